"""SIGKILL at random moments within saves of one process: the newest verified one always loads."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from rewarm.distributed.fsdp import Root
from rewarm.records.run_folder import RunFolder
from rewarm.training.checkpoint import find_newest_verified, step_of
from rewarm.training.optimizer import build_optimizer, trainable_parameters
from rewarm.training.state import TrainState, read_state
from tests.support.python import Python
from tests.support.tiny_plans import make_plan, new_tiny_model, tensors_of, train_tiny

ROOT = Path(__file__).resolve().parents[2]

# Whatever touches the disk is made slow, so that no part of a save is too short to be struck.
CHILD = """
import os, shutil, sys, time
from pathlib import Path
from rewarm.training.checkpoint import CheckpointStore
from tests.support.python import Python
from tests.support.tiny_plans import make_plan, train_tiny

for room, name in [(os, "fsync"), (os, "rename"), (os, "replace"), (shutil, "rmtree")]:
    def slow(*arguments, _real=getattr(room, name), **more):
        time.sleep(0.01)
        done = _real(*arguments, **more)
        time.sleep(0.01)
        return done
    setattr(room, name, slow)

save = CheckpointStore.save
def told(self, step, write):
    print(f"begins {step}", flush=True)
    path = save(self, step, write)
    print(f"ends {step}", flush=True)
    return path
CheckpointStore.save = told
train_tiny(Path(sys.argv[1]), make_plan(num_steps=int(sys.argv[2]), checkpoint_every=1, keep=2))
"""


class Child:
    """A run in a process of its own, which says when a save begins and ends."""

    def __init__(self, folder: Path, num_steps: int) -> None:
        self.said: list[str] = []
        self._process = Python(["-c", CHILD, str(folder), str(num_steps)], cwd=ROOT)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def listen(self, line: str | None = None) -> None:
        """Read what it says up to a line, or until it has ended."""
        for said in self._process.stdout:
            self.said.append(said.decode().strip())
            if self.said[-1] == line:
                return
        assert line is None, f"it ended before it said {line!r}: {self.said[-3:]}"

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self.listen()
        self.end(-signal.SIGKILL)

    def end(self, code: int) -> None:
        assert self._process.wait(60) == code


def seconds_of_a_save(folder: Path) -> float:
    """Return how long the third save takes: the first ones delete nothing."""
    with Child(folder, 4) as child:
        child.listen("begins 3")
        began = time.monotonic()
        child.listen("ends 3")
        return time.monotonic() - began


def check(folder: Path, num_kills: int, seed: int) -> None:
    rng = random.Random(seed)
    length_s = seconds_of_a_save(folder / "measured")
    run = RunFolder(folder / "killed")
    num_steps = 3 * num_kills + 4
    plan = make_plan(num_steps=num_steps, checkpoint_every=1, keep=2)
    reached = num_struck = num_tries = 0
    while num_struck < num_kills:
        num_tries += 1
        assert num_tries <= 3 * num_kills, "the kills miss the saves"
        with Child(run.path, num_steps) as child:
            child.listen(f"begins {reached + 1 + (reached == 0)}")
            time.sleep(rng.uniform(0, length_s))
            child.kill()
        within = child.said[-1].startswith("begins")
        num_struck += within
        ended = [int(line.split()[1]) for line in child.said if line.startswith("ends")]

        found = find_newest_verified(run.checkpoints)
        assert found.path is not None
        assert found.passed_over == []
        assert step_of(found.path) >= max(ended, default=reached)
        reached = step_of(found.path)
        model = new_tiny_model(seed=99)
        state = TrainState(
            Root(model), build_optimizer(trainable_parameters(model), plan.science.optimizer)
        )
        read_state(found.path, state, plan.science)
        assert state.step == reached
    with Child(run.path, num_steps) as child:
        child.listen()
        child.end(0)
    resumed = [event.message for event in run.events() if event.kind == "resume"]
    assert len(resumed) == num_tries
    assert resumed[-1] == f"resumed from step-{reached:08d}"
    train_tiny(folder / "whole", plan)
    assert tensors_of(run.path) == tensors_of(folder / "whole")
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [
        f"step-{step:08d}" for step in (num_steps - 1, num_steps)
    ]


@pytest.mark.timeout(280)
def test_two_kills_within_saves(tmp_path: Path) -> None:
    check(tmp_path, 2, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_kills_within_saves(tmp_path: Path) -> None:
    check(tmp_path, 20, seed=2)
