"""Signals and a second launcher against a process of its own, in the middle of its steps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rewarm.errors import RunFolderError
from rewarm.records.run_folder import RunFolder
from tests.support.tiny_plans import make_plan, tensors_of, train_tiny

REPOSITORY = Path(__file__).resolve().parents[2]
NUM_STEPS = 400
PLAN = make_plan(num_steps=NUM_STEPS, checkpoint_every=NUM_STEPS, keep=9)

CHILD = """
import sys, time
from pathlib import Path
from tests.support.tiny_plans import make_plan, train_tiny, sum_of_token_losses

def slow_loss(*arguments):
    time.sleep(0.005)
    return sum_of_token_losses(*arguments)

plan = make_plan(num_steps=400, checkpoint_every=400, keep=9)
print(train_tiny(Path(sys.argv[1]), plan, loss=slow_loss))
"""


def wait_for(condition: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert child.poll() is None, "the child ended early"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_usr1_saves_term_stops_and_nobody_else_may_launch(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(run.path)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def num_checkpoints() -> int:
        return len(list(run.checkpoints.glob("step-*")))

    wait_for(run.steps_log.exists, child)
    with pytest.raises(RunFolderError, match=f"in use by process {child.pid} on"):
        train_tiny(run.path, PLAN)
    child.send_signal(signal.SIGUSR1)
    wait_for(lambda: num_checkpoints() == 1, child)
    steps_then = len(run.steps())
    wait_for(lambda: len(run.steps()) > steps_then, child)
    child.send_signal(signal.SIGTERM)
    output, errors = child.communicate(timeout=60)

    assert child.returncode == 0, errors
    step = len(run.steps())
    assert output == f"Ending(step={step}, finished=False, signal='SIGTERM', forgot=False)\n"
    assert "SIGTERM: finishing the step, then a checkpoint" in errors
    assert num_checkpoints() == 2
    assert (run.checkpoints / f"step-{step:08d}").exists()
    assert not run.lock.exists()

    train_tiny(tmp_path / "uninterrupted", PLAN, until_step=step)
    assert tensors_of(run.path) == tensors_of(tmp_path / "uninterrupted")
