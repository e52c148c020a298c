"""Data position costs nothing on resume: from launch to the first step after it, early and late.

A run of a tiny model is resumed from a checkpoint of step 10 and from one that says step 10^9; the
model's own time is small, so that a look-up that counted its way there would show.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from record import Figure, write_results

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rewarm.distributed.fsdp import Root
from rewarm.records.run_folder import RunFolder
from rewarm.training.checkpoint import CheckpointStore
from rewarm.training.optimizer import build_optimizer, trainable_parameters
from rewarm.training.state import TrainState
from tests.support.tiny_plans import make_plan, new_tiny_model, train_tiny, write_state

STEPS = (10, 10**9)
NUM_ROUNDS = 15
PLAN = make_plan(num_steps=2 * 10**9, checkpoint_every=10**9, keep=9)


def resume_s(step: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the seconds from launch to the end of the first step after a resume at `step`."""
    with tempfile.TemporaryDirectory() as name:
        model = new_tiny_model()
        state = TrainState(
            Root(model), build_optimizer(trainable_parameters(model), PLAN.science.optimizer), step
        )
        store = CheckpointStore(RunFolder(Path(name)).checkpoints, keep=9)
        store.save(step, lambda folder: write_state(folder, state, PLAN.science))
        started = clock()
        ending = train_tiny(Path(name), PLAN, until_step=step + 1)
        assert ending.step == step + 1
        return clock() - started


def main() -> None:
    taken: dict[int, list[float]] = {step: [] for step in STEPS}
    for step in STEPS:
        resume_s(step)
    for _ in range(NUM_ROUNDS):  # interleaved, so that the machine's moods fall on both
        for step in STEPS:
            taken[step].append(resume_s(step))
    early, late = (statistics.median(taken[step]) for step in STEPS)
    write_results(
        "resume_position",
        [
            Figure("launch to first step, at step 10", early, "s", "lower"),
            Figure("launch to first step, at step 10^9", late, "s", "lower"),
            Figure("step 10^9 against step 10", late / early, "", "lower", 1.25, "step 10"),
        ],
    )


if __name__ == "__main__":
    main()
