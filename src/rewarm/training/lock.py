"""One launcher at a time on a run folder.

`lock.json` says who holds it: machine (boot and process namespace), host, pid, when that process
started, since when, and a token. It outlives a SIGKILL; a heartbeat renews its modification time
while its owner lives. It is stale when its process is gone (told at once on the same machine) or,
on another one, when the heartbeat is old; age is measured against the file system's own clock, so
the hosts' clocks need not agree.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from rewarm.artifacts import canonical_json, parse_json, write_atomically
from rewarm.errors import EnvironmentFault, RunFolderError
from rewarm.records.facts import Record

__all__ = ["HEARTBEAT_S", "STALE_AFTER_S", "LockOwner", "RunLock", "hold_lock", "seems_held"]

HEARTBEAT_S = 5.0
_LOOK_EVERY_S = 0.5
STALE_AFTER_S = 60.0
"""Twelve heartbeats missed: longer than a network file system's hiccup."""


class LockOwner(Record):
    """Who holds a run folder."""

    host: str
    machine: str
    pid: int
    process_started: str
    since: str
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


class RunLock:
    """A lock that is held; its heartbeat runs until `release`."""

    def __init__(self, path: Path, owner: LockOwner) -> None:
        """For `hold_lock` alone: the file is already there."""
        self._path = path
        self._owner = owner
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lock-heartbeat", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise RunFolderError where another launcher took the lock over meanwhile.

        That happens to a process that was stopped for longer than STALE_AFTER_S, its folder being
        shared with another host: it must not write any more.
        """
        owner = _read_owner(self._path)
        if owner is not None and owner.token != self._owner.token:
            what = f"its lock was taken over by {owner} while this process was held up"
        elif not self._path.exists():
            what = f"its lock {self._path.name} was removed while this process held it"
        else:
            return
        raise RunFolderError.one(
            str(self._path.parent), what, "launch again once nobody else writes to this folder"
        )

    def release(self) -> None:
        """Stop the heartbeat and remove the lock file, if it still is this one's."""
        self._released.set()
        self._thread.join()
        # A disk that fails now must not hide what ended the run: the lock just grows stale.
        with (
            contextlib.suppress(OSError, EnvironmentFault),
            _one_launcher_at_a_time(self._path),
        ):
            owner = _read_owner(self._path)
            if owner is not None and owner.token == self._owner.token:
                self._path.unlink()

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_S):
            owner = _read_owner(self._path)
            if owner is not None and owner.token != self._owner.token:
                return
            # A file system that hiccups is waited for; `check` tells where the lock is gone.
            with contextlib.suppress(OSError):
                os.utime(self._path)


@contextlib.contextmanager
def hold_lock(
    path: Path, say: Callable[[str], None], *, patient: bool = False
) -> Iterator[RunLock]:
    """Hold the lock file `path` for the length of a block.

    Raises RunFolderError where another launcher holds it. A stale lock is taken over, and `say`
    told so. Who is `patient` waits to see whether a holder on another machine still lives: after a
    node was lost its restart comes before the lock is stale.
    """
    if patient:
        _wait_for_a_sign(path)
    lock = RunLock(path, _acquire(path, say))
    try:
        yield lock
    finally:
        lock.release()


def seems_held(path: Path) -> bool:
    """Tell whether a launch holds a lock, as far as looking alone tells: nothing is written.

    The heartbeat of another machine's is judged by this one's clock.
    """
    owner = _read_owner(path)
    if owner is None:
        return False
    if owner.machine == _machine():
        return _is_alive(owner)
    try:
        return time.time() - path.stat().st_mtime <= STALE_AFTER_S
    except OSError:
        return False


def _acquire(path: Path, say: Callable[[str], None]) -> LockOwner:
    mine = _myself()
    with _one_launcher_at_a_time(path):
        if path.exists():
            holder = _read_owner(path)
            reason = _why_stale(path, holder)
            if reason is None:
                raise RunFolderError.one(
                    str(path.parent),
                    f"it is in use by {holder or 'an unknown process'}",
                    "wait until that run has ended, or stop it; it can be resumed at any time",
                )
            say(f"took over the lock of {holder or 'an unknown process'}: {reason}")
        write_atomically(path, canonical_json(mine.model_dump()) + "\n")
    return mine


def _wait_for_a_sign(path: Path) -> None:
    """Wait until the heartbeat of a holder on another machine is seen, or its lock is stale."""
    holder = _read_owner(path)
    if holder is None or holder.machine == _machine():
        return
    with contextlib.suppress(FileNotFoundError):
        seen = path.stat().st_mtime_ns
        while path.stat().st_mtime_ns == seen and _why_stale(path, holder) is None:
            time.sleep(_LOOK_EVERY_S)


@contextlib.contextmanager
def _one_launcher_at_a_time(path: Path) -> Iterator[None]:
    """Serialise looking at the lock file and changing it, so that of two takers one is refused.

    The kernel frees this short `flock` whatever happens to its holder. Where the file system has
    none, only launches within the same milliseconds go unguarded.
    """
    guard = path.with_name(f".{path.name}.guard")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(guard, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise EnvironmentFault(
            f"{path} cannot be written ({error.strerror or error})",
            "make the run folder writable, or choose another run_folder",
        ) from error
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _why_stale(path: Path, owner: LockOwner | None) -> str | None:
    """Return why a lock no longer holds, or None where it does."""
    if owner is not None and owner.machine == _machine():
        return None if _is_alive(owner) else "that process is gone"
    age_s = _age_s(path)
    if age_s > STALE_AFTER_S:
        return f"no heartbeat for {age_s:.0f} s"
    return None


def _age_s(path: Path) -> float:
    """Return how old a file is by the clock of its own file system; 0 where it just went."""
    probe = path.with_name(f".{path.name}.clock.{uuid.uuid4().hex}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
    finally:
        probe.unlink(missing_ok=True)


def _read_owner(path: Path) -> LockOwner | None:
    """Return who a lock file names, None where it is missing or half written."""
    try:
        return LockOwner.model_validate(parse_json(path.read_bytes()))
    except (OSError, ValueError, ValidationError):
        return None


def _myself() -> LockOwner:
    now = datetime.datetime.now(datetime.UTC)
    return LockOwner(
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        process_started=_process_start(os.getpid()) or "",
        since=now.isoformat(timespec="seconds"),
        token=uuid.uuid4().hex,
    )


def _machine() -> str:
    """Return what tells apart where pids mean something: host, boot, and namespace of processes.

    Containers may share a host name and a folder but not their pids. Off Linux the host must do.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()}/{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _is_alive(owner: LockOwner) -> bool:
    """Tell whether the owner's process lives; a pid that was used again has another start."""
    start = _process_start(owner.pid)
    return start is not None and (not start or start == owner.process_started)


def _process_start(pid: int) -> str | None:
    """Return when a process started, in ticks since boot (the 22nd field of /proc/PID/stat).

    None for one that is gone or a zombie; "" where it lives and the system does not say since when.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # no /proc here, or the process is hidden from us, or gone
        return "" if _takes_signals(pid) else None
    state, *others = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return None if state in "ZX" else others[18]


def _takes_signals(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
