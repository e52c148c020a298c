"""What happens around steps. A hook sees the state and the record, and never the loop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from rewarm.distributed.fsdp import Root, reshard
from rewarm.records.facts import EvalRecord, StepRecord
from rewarm.training.randomness import undisturbed
from rewarm.training.sinks import Journal
from rewarm.training.state import TrainState
from rewarm.training.usage import StepMemory

__all__ = [
    "AverageWeights",
    "Evaluate",
    "Evaluator",
    "Hook",
    "LogSteps",
    "MeasureMemory",
    "SaveCheckpoints",
    "Saver",
]

Evaluator = Callable[[Root, int], Sequence[EvalRecord]]
"""Measures a model, within its root, after so many updates; collective."""

Apart = Callable[[], AbstractContextManager[None]]
"""Keeps the memory that is taken within out of the steps' peak."""


class Saver(Protocol):
    """Puts states on the disk, perhaps while training goes on."""

    def save(self, state: TrainState, /) -> None:
        """Save a state as it is now; raises what an earlier save failed with."""
        ...

    def finish(self) -> None:
        """Wait until all that was given is on the disk; raises where that failed."""
        ...


class Hook(Protocol):
    """Looks at a run before its first step, after each, and when it stops in good order."""

    def before_train(self, state: TrainState, /) -> None:
        """Look at the state that a launch begins with."""
        ...

    def after_step(self, state: TrainState, record: StepRecord | None, /) -> None:
        """Look at the state after a step: `record` is the last one's, None where it was skipped."""
        ...

    def on_stop(self, state: TrainState, /) -> None:
        """Look at the state that a launch ends with."""
        ...


class LogSteps:
    """Writes every step's record."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def before_train(self, state: TrainState, /) -> None:
        """Nothing is known yet."""

    def after_step(self, state: TrainState, record: StepRecord | None, /) -> None:
        """Log the step, if one was taken."""
        if record is not None:
            self._journal.step(record)

    def on_stop(self, state: TrainState, /) -> None:
        """All is written."""


class AverageWeights:
    """Takes the weights into their average after every step that was taken.

    Stands before whatever measures or saves the average.
    """

    def before_train(self, state: TrainState, /) -> None:
        """The average is at the base, or as it was saved."""

    def after_step(self, state: TrainState, record: StepRecord | None, /) -> None:
        """Take in the weights, if a step was taken."""
        if record is not None:
            assert state.average is not None
            state.average.update(state.model)

    def on_stop(self, state: TrainState, /) -> None:
        """All steps are taken in."""


class Evaluate:
    """Measures the model at planned steps, the base itself (step 0) included.

    Stands before `SaveCheckpoints`: a checkpoint of a step then says that its evaluation is on
    record, and a kill in between repeats both.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        steps: Collection[int],
        journal: Journal,
        *,
        of_average: bool = False,
        apart: Apart = nullcontext,
    ) -> None:
        """With `of_average` the average of the weights, where there is one, is measured too."""
        self._evaluator = evaluator
        self._steps = frozenset(steps)
        self._journal = journal
        self._of_average = of_average
        self._apart = apart

    def before_train(self, state: TrainState, /) -> None:
        """Measure the base; what a resumed run begins with was measured before it was saved."""
        if state.step == 0:
            self._measure(state)

    def after_step(self, state: TrainState, record: StepRecord | None, /) -> None:
        """Measure where it is planned."""
        self._measure(state)

    def on_stop(self, state: TrainState, /) -> None:
        """The last step was measured as any other."""

    def _measure(self, state: TrainState) -> None:
        if state.step not in self._steps:
            return
        with self._apart():
            self._measure_now(state)

    def _measure_now(self, state: TrainState) -> None:
        self._journal.evals(self._records(state))
        # At the base the average is the base.
        if self._of_average and state.average is not None and state.step:
            with state.average.in_place_of_weights(state.model):
                records = self._records(state)
            self._journal.average_evals(records)

    def _records(self, state: TrainState) -> Sequence[EvalRecord]:
        with undisturbed(state.model):
            records = self._evaluator(state.root, state.step)
        reshard(state.root)
        return records


class SaveCheckpoints:
    """Saves whenever it is due, and at the end what is not saved yet."""

    def __init__(
        self, saver: Saver, is_due: Callable[[int], bool], *, apart: Apart = nullcontext
    ) -> None:
        """`is_due` is asked once after each step, with the number of updates taken."""
        self._saver = saver
        self._is_due = is_due
        self._apart = apart
        self._safe_step = 0

    def before_train(self, state: TrainState, /) -> None:
        """Note that the base, or the checkpoint that was resumed from, is on the disk."""
        self._safe_step = state.step

    def after_step(self, state: TrainState, record: StepRecord | None, /) -> None:
        """Save where it is due."""
        if self._is_due(state.step):
            self._save_now(state)

    def on_stop(self, state: TrainState, /) -> None:
        """Save, unless this very state is on the disk, and wait until it is."""
        if state.step != self._safe_step:
            self._save_now(state)
        self._saver.finish()

    def _save_now(self, state: TrainState) -> None:
        with self._apart():
            self._saver.save(state)
        self._safe_step = state.step


class MeasureMemory:
    """Measures what steps take of the device's memory. Stands last: steps begin after all hooks."""

    def __init__(self, memory: StepMemory) -> None:
        self._memory = memory

    def before_train(self, state: TrainState, /) -> None:
        """What loading and the base's evaluation took is no step's."""
        self._memory.begin_steps()

    def after_step(self, state: TrainState, record: StepRecord | None, /) -> None:
        """Evaluations and saves keep themselves apart."""

    def on_stop(self, state: TrainState, /) -> None:
        """No step is taken from here on."""
        self._memory.end_steps()
