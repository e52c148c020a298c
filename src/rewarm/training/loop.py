"""The training loop, whole.

Take the batch of the state's step, take one optimizer step, advance the state, let each hook look,
yield the step's record. A step that an amendment skips is passed over: its samples count as
consumed. What a step does is `step.py`, what is done about one that goes wrong `guard.py`. Logging,
evaluation and checkpoints are hooks (`hooks.py`); setting up and resuming is `run.py`. Which batch
and which rate belong to a step are functions of the plan, so all that has to survive a kill is the
state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rewarm.batches.loader import Batch, Batches
from rewarm.records.facts import StepRecord
from rewarm.training.hooks import Hook
from rewarm.training.state import TrainState

__all__ = ["TakeStep", "Until", "train"]

TakeStep = Callable[[TrainState, Batch], StepRecord | None]
"""Updates weights and optimizer with one batch; None where it leaves the step out after all."""

Until = Callable[[TrainState], bool]
"""Tells whether to stop before the state's next step."""


def train(
    state: TrainState, take_step: TakeStep, batches: Batches, hooks: Sequence[Hook], until: Until
) -> Iterator[StepRecord]:
    """Yield the record of each step that is taken until `until` says so.

    Hooks run in their order. They see the state and the record, never the loop. After an exception
    no hook is called: what is on the disk already is what the next launch resumes from.
    """
    for hook in hooks:
        hook.before_train(state)
    while not until(state):
        record = None
        if not state.amendments.skips(state.step):
            record = take_step(state, batches.batch(state.step))
        state.step += 1
        for hook in hooks:
            hook.after_step(state, record)
        if record is not None:
            yield record
    for hook in hooks:
        hook.on_stop(state)
