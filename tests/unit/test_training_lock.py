"""One launcher at a time; a dead one's lock is taken over, a living one's never."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewarm.artifacts import canonical_json
from rewarm.errors import EnvironmentFault, RunFolderError
from rewarm.training import lock
from rewarm.training.lock import STALE_AFTER_S, LockOwner, hold_lock

OWNER = """
import pathlib, sys, time
from rewarm.training.lock import hold_lock
with hold_lock(pathlib.Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "lock.json"


@pytest.fixture
def owner(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def write_owner(path: Path, **changes: object) -> LockOwner:
    """Write the lock of a made-up owner."""
    made_up = lock._myself().model_copy(update={"token": "t", **changes})
    path.parent.mkdir(exist_ok=True)
    path.write_text(canonical_json(made_up.model_dump()), encoding="ascii")
    return made_up


def backdate(path: Path, seconds: float) -> None:
    past = time.time() - seconds
    os.utime(path, (past, past))


def take(path: Path) -> list[str]:
    """Hold and release the lock; return what was said."""
    said: list[str] = []
    with hold_lock(path, said.append):
        assert path.exists()
    return said


def assert_nothing_left(path: Path) -> None:
    assert [file.name for file in path.parent.iterdir()] == [".lock.json.guard"]


def test_it_is_held_for_a_block_and_gone_afterwards(path: Path) -> None:
    with hold_lock(path, print) as held:
        held.check()
        text = path.read_text(encoding="ascii")
        assert f'"pid":{os.getpid()}' in text
    assert take(path) == []
    assert_nothing_left(path)


def test_an_error_in_the_block_releases_it(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), hold_lock(path, print):
        raise ZeroDivisionError
    assert_nothing_left(path)


def test_a_second_launcher_is_refused_with_who_holds_it(
    path: Path, owner: subprocess.Popen[str]
) -> None:
    with pytest.raises(RunFolderError) as caught:
        take(path)
    message = str(caught.value)
    assert f"process {owner.pid} on {os.uname().nodename} since 20" in message
    assert str(path.parent) in message
    assert caught.value.exit_code == 2
    assert owner.poll() is None
    assert path.exists()


def test_a_lock_outlives_nobody_who_was_killed(path: Path, owner: subprocess.Popen[str]) -> None:
    owner.send_signal(signal.SIGKILL)
    # Not even waited for: a zombie is as dead.
    while lock._process_start(owner.pid) is not None:
        time.sleep(0.01)
    (said,) = take(path)
    assert said.startswith(f"took over the lock of process {owner.pid} on ")
    assert said.endswith(": that process is gone")
    assert_nothing_left(path)


def test_a_pid_that_is_used_again_is_another_process(path: Path) -> None:
    write_owner(path, process_started="1")
    assert "that process is gone" in take(path)[0]


def test_without_a_start_time_a_living_pid_counts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on systems without /proc."""
    monkeypatch.setattr(lock, "_process_start", lambda pid: "" if pid == os.getpid() else None)
    write_owner(path, process_started="")
    with pytest.raises(RunFolderError, match="in use by process"):
        take(path)
    write_owner(path, process_started="", pid=os.getpid() + 1)
    assert "that process is gone" in take(path)[0]


def test_another_machines_lock_holds_while_its_heart_beats(path: Path) -> None:
    write_owner(path, machine="elsewhere", host="elsewhere", pid=1)
    backdate(path, STALE_AFTER_S - 10)
    with pytest.raises(RunFolderError, match="in use by process 1 on elsewhere"):
        take(path)
    backdate(path, STALE_AFTER_S + 10)
    (said,) = take(path)
    assert "process 1 on elsewhere" in said
    assert "no heartbeat for 7" in said
    assert_nothing_left(path)


def test_the_patient_wait_for_a_sign_of_life(path: Path, tmp_path: Path) -> None:
    """A node that was lost beats no more; one that lives is seen to within a heartbeat."""
    write_owner(path, machine="elsewhere", host="elsewhere", pid=1)
    backdate(path, STALE_AFTER_S - 1)
    said: list[str] = []
    with hold_lock(path, said.append, patient=True):
        assert "no heartbeat for 6" in said[0]
    write_owner(path, machine="elsewhere", host="elsewhere", pid=1)
    beat = threading.Timer(0.7, path.touch)
    beat.start()
    began = time.monotonic()
    with (
        pytest.raises(RunFolderError, match="in use by process 1 on elsewhere"),
        hold_lock(path, said.append, patient=True),
    ):
        pass
    assert 0.5 < time.monotonic() - began < STALE_AFTER_S / 2
    beat.join()


def test_an_unreadable_lock_is_waited_for_then_taken(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("")
    with pytest.raises(RunFolderError, match="an unknown process"):
        take(path)
    backdate(path, STALE_AFTER_S + 10)
    assert "an unknown process" in take(path)[0]


def test_the_heart_beats(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.01)
    with hold_lock(path, print):
        backdate(path, 1000)
        deadline = time.monotonic() + 10
        while time.time() - path.stat().st_mtime > 100 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - path.stat().st_mtime < 100
    assert not any(thread.name == "lock-heartbeat" for thread in threading.enumerate())


def test_who_lost_the_lock_is_told_and_leaves_the_new_one_alone(path: Path) -> None:
    with hold_lock(path, print) as held:
        path.unlink()
        with pytest.raises(RunFolderError, match=r"lock\.json was removed"):
            held.check()
        write_owner(path, host="elsewhere", pid=1)
        with pytest.raises(RunFolderError, match="taken over by process 1 on elsewhere"):
            held.check()
    assert '"pid":1,' in path.read_text(encoding="ascii")


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Let threads take turns as often as Python can, so that races show."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("frequent_switches")
@pytest.mark.parametrize("attempt", range(15))
def test_of_many_that_see_a_stale_lock_one_gets_it(path: Path, attempt: int) -> None:
    write_owner(path, process_started="1")
    barrier = threading.Barrier(8)
    held = threading.Event()
    outcomes: list[str] = []

    def launch() -> None:
        barrier.wait()
        try:
            with hold_lock(path, lambda _: None):
                outcomes.append("held")
                held.wait(10)
        except RunFolderError:
            outcomes.append("refused")

    threads = [threading.Thread(target=launch) for _ in range(8)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while len(outcomes) < 8 and time.monotonic() < deadline:
        time.sleep(0.005)
    held.set()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held"] + ["refused"] * 7
    assert_nothing_left(path)


def test_a_file_system_without_flock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with hold_lock(path, print) as held:
        held.check()
        with pytest.raises(RunFolderError, match="in use"):
            take(path)
    assert_nothing_left(path)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match=r"lock\.json cannot be written"):
        take(tmp_path / "file" / "lock.json")
