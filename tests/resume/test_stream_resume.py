"""A run of a stream that was stopped anywhere comes to the figures of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from rewarm.cli import main
from rewarm.records.run_folder import RunFolder
from rewarm.records.stream_steps import stream_steps
from rewarm.stream.sections import Algorithm
from rewarm.training.checkpoint import CheckpointStore
from tests.support.streams import EXPERIMENT, write_images

# A task has 5 steps and an end: after so many further saves the run stops, within the first task,
# at its end, within the second, and before its end.
_STOPS = (3, 3, 3, 2)


class _Stopped(BaseException):
    """What a kill is to a run, as far as one process can tell."""


def _experiment(folder: Path, algorithm: str, *, every_s: float) -> Path:
    folder.mkdir(exist_ok=True)
    write_images(folder / "a.parquet")
    head, _, rest = EXPERIMENT.partition("[source]")
    text = f"{head}checkpoint_every_s = {every_s}\n[source]{rest}".replace("seeds = 2", "seeds = 1")
    own = "memory_epochs = 2, " if algorithm == "gdumb" else ""
    (folder / "e.toml").write_text(
        text + f'one = {{ algorithm = "{algorithm}", {own}second_stage_epochs = 2 }}\n'
    )
    return folder / "e.toml"


def _steps(folder: Path) -> list[Any]:
    run = RunFolder(folder / "streams/made-up/runs/scratch/one/seed-1")
    return [record.model_dump(exclude={"step_s"}) for record in stream_steps(run)]


def _figures(folder: Path) -> Any:
    run = json.loads((folder / "streams/made-up/runs/scratch/one/seed-1.json").read_text())
    return run["matrix"], run["looks"], run["second_stage"]


def _stopping_after(num_saves: int) -> Callable[..., Path]:
    save, left = CheckpointStore.save, [num_saves]

    def stopping(*args: Any) -> Path:
        path = save(*args)
        left[0] -= 1
        if left[0] == 0:
            raise _Stopped
        return path

    return stopping


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
def test_a_stopped_run_comes_to_the_same(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _experiment(tmp_path / "whole", algorithm, every_s=86_400)
    assert main(["stream", str(whole)]) == 0
    stopped = _experiment(tmp_path / "stopped", algorithm, every_s=0)
    checkpoints = stopped.parent / "streams/made-up/runs/scratch/one/seed-1/checkpoints"
    for num_saves in _STOPS:
        with monkeypatch.context() as patched:
            patched.setattr(CheckpointStore, "save", _stopping_after(num_saves))
            with pytest.raises(_Stopped):
                main(["stream", str(stopped)])
        assert len(list(checkpoints.glob("step-*"))) == 1
    assert main(["stream", str(stopped)]) == 0
    assert _figures(stopped.parent) == _figures(whole.parent)
    assert _steps(stopped.parent) == _steps(whole.parent) != []
    assert not checkpoints.exists()


def test_a_damaged_checkpoint_costs_time_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = _experiment(tmp_path / "whole", "er", every_s=86_400)
    assert main(["stream", str(whole)]) == 0
    stopped = _experiment(tmp_path / "stopped", "er", every_s=0)
    with monkeypatch.context() as patched:
        patched.setattr(CheckpointStore, "save", _stopping_after(8))
        with pytest.raises(_Stopped):
            main(["stream", str(stopped)])
    runs = stopped.parent / "streams/made-up/runs"
    (state,) = runs.rglob("state.safetensors")
    content = bytearray(state.read_bytes())
    content[-5] ^= 1
    state.write_bytes(content)
    capsys.readouterr()
    assert main(["stream", str(stopped)]) == 0
    assert "begun again" in capsys.readouterr().out
    assert _figures(stopped.parent) == _figures(whole.parent)


@pytest.mark.slow
def test_a_killed_process_comes_to_the_same(tmp_path: Path) -> None:
    whole = _experiment(tmp_path / "whole", "icarl", every_s=86_400)
    assert main(["stream", str(whole)]) == 0
    killed = _experiment(tmp_path / "killed", "icarl", every_s=0)
    command = [sys.executable, "-m", "rewarm", "stream", str(killed)]
    checkpoints = killed.parent / "streams/made-up/runs/scratch/one/seed-1/checkpoints"
    deaths = 0
    for least in ("step-00000002", "step-00000007"):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            if any(path.name >= least for path in checkpoints.glob("step-*")):
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.001)
        deaths += process.wait() == -signal.SIGKILL
    assert deaths >= 1
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert _figures(killed.parent) == _figures(whole.parent)
