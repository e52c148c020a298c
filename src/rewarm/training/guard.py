"""Watches what steps come to: what is not finite, and losses far above the last ones.

It wraps the taking of a step. A step that is not finite never touched the weights, so it can simply
be left out; after a spike the weights have been updated, so the run goes back to a checkpoint and
leaves out the steps that led there. Both are amendments of the plan, on the disk before they
govern: a resumed run, on any number of ranks, leaves out the same steps. What was rejected never
enters the statistics, which are part of the state.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Protocol

from rewarm.batches.loader import Batch
from rewarm.errors import RewarmError
from rewarm.recipe.steps import GuardRecipe
from rewarm.records.facts import StepRecord
from rewarm.training.saved import GuardMemory
from rewarm.training.state import TrainState
from rewarm.training.step import NonFiniteStep, Tell

__all__ = ["Guard", "LossSpike", "NoSkipLeft", "RollBack", "spike_limit"]

_NEEDED = 16
"""Accepted losses before a spike can be told from the noise."""
_NORMAL = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
_LEAST_SPREAD = 1e-3
"""Relative to the median: losses that hardly differ would make anything a spike."""


class Amend(Protocol):
    """Puts a skip of the steps [from_step, until_step) on the disk and into the state."""

    def __call__(self, state: TrainState, from_step: int, until_step: int, why: str, /) -> None:
        """Amend the plan; collective."""
        ...


class LossSpike(RewarmError):  # noqa: N818 - it names what happened, as the records do
    """A loss far above the last ones, where the recipe says to stop at one."""


class NoSkipLeft(RewarmError):  # noqa: N818 - it names what happened, as the records do
    """A step that would have to be left out, and the recipe allows no more."""


class RollBack(Exception):  # noqa: N818 - no error: run.py goes back and on
    """The steps [from_step, until_step) are to be left out, the last of them having spiked."""

    def __init__(self, from_step: int, until_step: int, evidence: str) -> None:
        super().__init__(evidence)
        self.from_step = from_step
        self.until_step = until_step
        self.evidence = evidence


class Guard:
    """Takes steps, and does what a recipe says about those that go wrong."""

    def __init__(
        self,
        recipe: GuardRecipe,
        take_step: Callable[[TrainState, Batch], StepRecord],
        *,
        amend: Amend,
        tell: Tell,
    ) -> None:
        """`amend` is called before a skipped step is left behind."""
        self._recipe = recipe
        self._take_step = take_step
        self._amend = amend
        self._tell = tell
        self._within_spike = False

    def __call__(self, state: TrainState, batch: Batch, /) -> StepRecord | None:
        """Take a step; None where it is left out. Raises NonFiniteStep, LossSpike,
        NoSkipLeft and RollBack.
        """
        try:
            record = self._take_step(state, batch)
        except NonFiniteStep as error:
            if self._recipe.non_finite == "stop":
                raise
            evidence = f"step {error.step}: the {error.quantity} is {error.value}"
            self._check_skips_left(state, evidence)
            self._amend(state, batch.step, batch.step + 1, evidence)
            return None
        if self._recipe.spike != "off":
            self._judge(state, record)
        return record

    def _judge(self, state: TrainState, record: StepRecord) -> None:
        """Remember an accepted loss; answer one that is far above those remembered."""
        recipe = self._recipe
        # Another blend has another loss: what one phase teaches says nothing about the next.
        known = state.guard.losses if state.guard.phase == record.phase else ()
        limit = spike_limit(known, deviations=recipe.spike_deviations)
        if limit is None or record.loss <= limit:
            self._within_spike = False
            losses = (*known, record.loss)[-recipe.spike_history :]
            state.guard = GuardMemory(phase=record.phase, losses=losses)
            return
        evidence = (
            f"step {record.step}: the loss {record.loss:.4f} is above {limit:.4f}, "
            f"{recipe.spike_deviations:g} deviations over the last {len(known)} steps of the phase"
        )
        if recipe.spike == "stop":
            raise LossSpike(
                f"{evidence}\n    → see what it reads with `rewarm trace`; with "
                'guard.spike = "skip" the same command goes back and leaves its steps out, with '
                '"tell" it goes on'
            )
        if recipe.spike == "skip":
            self._check_skips_left(state, evidence)
            until_step = record.step + 1
            raise RollBack(max(0, until_step - recipe.skip_steps), until_step, evidence)
        if not self._within_spike:
            self._tell("spike", record.step, evidence)
        self._within_spike = True

    def _check_skips_left(self, state: TrainState, evidence: str) -> None:
        num_skips = state.amendments.num_skips
        if num_skips >= self._recipe.max_skips:
            raise NoSkipLeft(
                f"{evidence}; {num_skips} skips were made already, guard.max_skips allows no more\n"
                "    → look for the cause: a lower schedule.peak_lr, damaged text, precision; or "
                "raise guard.max_skips"
            )


def spike_limit(losses: tuple[float, ...], *, deviations: float) -> float | None:
    """Return the loss above which the next one is a spike; None where too few are known.

    Median plus `deviations` robust standard deviations (1.4826 · median absolute deviation, at
    least a thousandth of the median): a few high losses among those known do not move it.
    """
    if len(losses) < _NEEDED:
        return None
    median = statistics.median(losses)
    spread = _NORMAL * statistics.median(abs(loss - median) for loss in losses)
    return median + deviations * max(spread, _LEAST_SPREAD * abs(median))
