"""A comparison that is killed goes on by the same command; one run that is killed is told alone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from rewarm.records.comparison import ComparisonResult
from rewarm.records.run_folder import RunFolder
from tests.support.comparisons import EXPERIMENT, make_comparison_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SHORT = EXPERIMENT.replace("seeds = 3", "seeds = 2").replace("noise_floor = true", "")
NUM_STEPS = 80


def launch(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rewarm", "compare", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def runs_in(folder: Path) -> list[RunFolder]:
    return [RunFolder(path) for path in folder.glob("comparisons/replay/runs/*/seed-*")]


def result_in(folder: Path) -> ComparisonResult:
    path = folder / "comparisons" / "replay" / "result.json"
    return ComparisonResult.model_validate(json.loads(path.read_text()))


def wait_for(
    happened: Callable[[], bool], child: subprocess.Popen[str], limit_s: float = 200
) -> None:
    deadline = time.monotonic() + limit_s
    while not happened() and time.monotonic() < deadline:
        assert child.poll() is None, child.communicate()[0]
        time.sleep(0.05)
    assert happened()


def training_under(child: subprocess.Popen[str]) -> dict[int, Path]:
    """Return the processes that train, by the run folder whose log they write to."""
    found: dict[int, Path] = {}
    for process in psutil.Process(child.pid).children(recursive=True):
        try:
            logs = [Path(f.path) for f in process.open_files() if f.path.endswith("train.log")]
        except psutil.Error:
            continue
        if logs:
            found[process.pid] = logs[0].parent
    return found


def test_a_killed_comparison_goes_on(tmp_path: Path) -> None:
    whole = make_comparison_folder(tmp_path / "whole", SHORT, tokens=256 * NUM_STEPS, save_every=4)
    undisturbed = launch(whole)
    output = undisturbed.communicate(timeout=400)[0]
    assert undisturbed.returncode == 0, output

    folder = tmp_path / "killed"
    path = make_comparison_folder(folder, SHORT, tokens=256 * NUM_STEPS, save_every=4)
    child = launch(path)
    # One run is done, another one has taken its first checkpoint.
    wait_for(
        lambda: (
            any(run.is_measured_after(NUM_STEPS) for run in runs_in(folder))
            and len([run for run in runs_in(folder) if run.newest_steps()]) > 2
        ),
        child,
    )
    under_way = training_under(child)
    done = {
        run.path: run.events_log.read_bytes()
        for run in runs_in(folder)
        if run.is_measured_after(NUM_STEPS)
    }
    assert 1 <= len(done) < 4
    child.send_signal(signal.SIGKILL)  # the parent alone: its runs must end by themselves
    child.communicate()
    assert not (folder / "comparisons" / "replay" / "result.json").exists()

    again = launch(path)
    output = again.communicate(timeout=400)[0]
    assert again.returncode == 0, output
    # The runs under way heard that their parent was gone, saved and left before their end.
    assert not [pid for pid in under_way if psutil.pid_exists(pid)]
    events = [event for run in under_way.values() for event in RunFolder(run).events()]
    assert any(event.kind == "stop" and "SIGTERM" in event.message for event in events)
    for run, log in done.items():
        assert RunFolder(run).events_log.read_bytes() == log  # not so much as begun again
    # And nothing shows that it was ever interrupted.
    expected = {(r.arm, r.seed): dict(r.values) for r in result_in(tmp_path / "whole").runs}
    for found in result_in(folder).runs:
        assert [
            s.step for s in RunFolder(folder / "comparisons/replay" / found.folder).steps()
        ] == list(range(NUM_STEPS))
        values, others = dict(found.values), expected[found.arm, found.seed]
        for measured in ("training_s", "peak_mib"):
            values.pop(measured), others.pop(measured)
        assert values == others


def test_a_run_that_is_killed_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    path = make_comparison_folder(tmp_path, SHORT, tokens=256 * NUM_STEPS, save_every=4)
    child = launch(path)
    wait_for(
        lambda: any(RunFolder(run).newest_steps() for run in training_under(child).values()), child
    )
    pid, killed = next(
        (pid, run) for pid, run in training_under(child).items() if RunFolder(run).newest_steps()
    )
    psutil.Process(pid).kill()
    output = child.communicate(timeout=400)[0]
    assert child.returncode == 1, output
    assert "the process was ended by SIGKILL" in output
    states = {f"{run.arm}/seed-{run.seed}": run.state for run in result_in(tmp_path).runs}
    name = f"{killed.parent.name}/{killed.name}"
    assert states.pop(name) == "failed"
    assert set(states.values()) == {"done"}

    again = launch(path)
    output = again.communicate(timeout=400)[0]
    assert again.returncode == 0, output
    assert {run.state for run in result_in(tmp_path).runs} == {"done"}


@pytest.mark.parametrize(
    ("number", "told"),
    [(signal.SIGINT, "stopped by the keyboard"), (signal.SIGTERM, "stopped by SIGTERM")],
)
def test_a_key_press_or_sigterm_lets_the_runs_save(
    tmp_path: Path, number: signal.Signals, told: str
) -> None:
    path = make_comparison_folder(tmp_path, SHORT, tokens=256 * 500, save_every=100_000)
    child = launch(path)
    wait_for(
        lambda: any(RunFolder(run).newest_steps() for run in training_under(child).values()), child
    )
    under_way = training_under(child)
    begun = list(under_way.values())
    child.send_signal(number)  # the parent alone hears it
    output = child.communicate(timeout=200)[0]
    assert child.returncode == 130, output
    assert "the same command goes on" in output
    assert told in output
    saved = [run for run in begun if list(RunFolder(run).checkpoints.glob("step-*"))]
    assert saved
    # Nobody is left behind, who would refuse the next launch.
    assert not [pid for pid in under_way if psutil.pid_exists(pid)]
    assert not (tmp_path / "comparisons" / "replay" / "lock.json").exists()
    assert not [run for run in begun if RunFolder(run).lock.exists()]
