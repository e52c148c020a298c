"""Freezes the lowest layers once their gradients have settled (AutoFreeze).

Over intervals of equal length the norms of each layer's gradient are added up. At the end of one, a
layer's change is |before − now| / before. The layers below the first one whose change reaches the
median freeze: what changes least is taken for learned (Liu et al. 2021, arXiv 2102.01386). That
depends on the data, so it is an amendment of the plan, on the disk before it governs.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Protocol

from rewarm.planning.plan import Science
from rewarm.records.facts import StepRecord
from rewarm.training.saved import SettlingMemory
from rewarm.training.state import TrainState

__all__ = ["FreezeSettledLayers", "settled_layers"]


class AmendByFreeze(Protocol):
    """Puts a freeze of the lowest layers from a state's step on, on the disk and into the state."""

    def __call__(self, state: TrainState, until_step: int, layers: int, why: str, /) -> None:
        """Amend the plan; collective."""
        ...


class FreezeSettledLayers:
    """A hook that looks at the layers' gradients of every step, and at intervals decides.

    Stands before `SaveCheckpoints`, so that a checkpoint knows what was decided at its step.
    """

    def __init__(self, science: Science, amend: AmendByFreeze) -> None:
        """The interval is `freezing.every` of the run, at least one step."""
        self._science = science
        self._amend = amend
        self._interval = max(1, round(science.freezing.every * science.num_steps))

    def before_train(self, state: TrainState, /) -> None:
        """What was seen so far is in the state."""

    def after_step(self, state: TrainState, record: StepRecord | None, /) -> None:
        """Add a step's norms; at the end of an interval, freeze what has settled."""
        memory = state.settling
        if record is not None and record.layer_grad_norms:
            sums = memory.sums or (0.0,) * len(record.layer_grad_norms)
            added = zip(sums, record.layer_grad_norms, strict=True)
            memory = memory.model_copy(update={"sums": tuple(a + b for a, b in added)})
        if state.step % self._interval == 0 and memory.sums:
            self._decide(state, memory)
            memory = SettlingMemory(before=memory.sums)
        state.settling = memory

    def on_stop(self, state: TrainState, /) -> None:
        """Nothing is left to do."""

    def _decide(self, state: TrainState, memory: SettlingMemory) -> None:
        science, step = self._science, state.step
        if not memory.before or step in state.amendments.freeze_steps():
            return  # decided before a kill already, or nothing to compare with
        frozen = science.stage_at(step, state.amendments).frozen_layers
        most = science.num_layers - science.freezing.keep_top
        layers, changes = settled_layers(memory.before, memory.sums, frozen=frozen, most=most)
        if layers > frozen and step < science.num_steps:
            told = ", ".join(f"{change:.3f}" for change in changes)
            self._amend(
                state,
                science.num_steps,
                layers,
                f"the gradients of layers {frozen} to {layers - 1} have settled (relative changes "
                f"from layer {frozen} on: {told})",
            )


def settled_layers(
    before: Sequence[float], now: Sequence[float], *, frozen: int, most: int
) -> tuple[int, list[float]]:
    """Return how many of the lowest layers should be frozen, and the changes of those that are not.

    `before` and `now` are sums of gradient norms by layer; `frozen` layers are so already, at most
    `most` may be.
    """
    changes = [
        abs(one - other) / one if one > 0 else 0.0
        for one, other in zip(before[frozen:], now[frozen:], strict=True)
    ]
    if not changes:
        return frozen, changes
    median = statistics.median(changes)
    below = next(index for index, change in enumerate(changes) if change >= median)
    return min(max(frozen, most), frozen + below), changes
