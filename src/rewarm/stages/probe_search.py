"""Which ways of laying a plan on a machine a probe tries, and which of them it takes.

First what a launch takes by default; while nothing fits, what by the estimate of memory, as the
last trial has corrected it, is the least change that does: smaller micro-batches before blocks that
are computed again, since those cost time. Then larger ones for as long as they are faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rewarm.planning.footprint import peak_of_placement
from rewarm.planning.plan import Placement, Plan
from rewarm.records.probe import Checkpointing, Trial
from rewarm.records.probe_trial import TrialReply

__all__ = ["Way", "chosen_of", "ways"]

_ORDER: tuple[Checkpointing, ...] = ("none", "selective", "full")
_MOST_TRIALS = 6
# Another way than the default has to be so much faster: less is what steps differ by anyway.
_WORTH = 0.97


class Way(NamedTuple):
    """What a trial varies."""

    micro_batch_sequences: int
    checkpointing: Checkpointing


def ways(
    plan: Plan, replies: Sequence[TrialReply], begun: Placement | None
) -> Iterator[Way | None]:
    """Yield what to try next, by what the trials so far came to; None: what a launch takes.

    What the recipe names is not varied, nor on its own device what a run has `begun` with; where
    the recipe by now names something else, or has a step that this does not divide, launches go by
    the recipe.
    """
    begun_way = None if begun is None else _goes_on(plan, begun)
    yield begun_way
    device = Placement.model_validate(replies[0].placement).device_name
    if begun is not None and begun_way is not None and begun.device_name == device:
        return
    sizes, kinds = _choices(plan, replies[0].trial)
    yield from _downwards(plan, replies, sizes, kinds)
    found = chosen_of(replies)
    if found is None:
        return
    size, kind = way = _way_of(replies[found].trial)
    larger = [Way(other, kind) for other in sizes if other > size]
    smaller = [Way(other, kind) for other in reversed(sizes) if other < size]
    yield from _faster(plan, replies, larger)
    if _way_of(replies[chosen_of(replies) or 0].trial) == way:
        yield from _faster(plan, replies, smaller)


def _downwards(
    plan: Plan,
    replies: Sequence[TrialReply],
    sizes: Sequence[int],
    kinds: Sequence[Checkpointing],
) -> Iterator[Way]:
    """Yield what takes less and less memory, until it fits."""
    left = [Way(size, kind) for kind in kinds for size in reversed(sizes)]
    first = _way_of(replies[0].trial)
    left = left[left.index(first) + 1 :]
    while chosen_of(replies) is None and left and len(replies) < _MOST_TRIALS:
        way = next((way for way in left if _may_fit(plan, replies, way)), left[-1])
        left = left[left.index(way) + 1 :]
        yield way


def _faster(plan: Plan, replies: Sequence[TrialReply], others: Sequence[Way]) -> Iterator[Way]:
    """Yield other ways in their order for as long as each is faster than the last."""
    for way in others:
        tried = {_way_of(reply.trial) for reply in replies}
        if way in tried or len(replies) >= _MOST_TRIALS or not _may_fit(plan, replies, way):
            return
        yield way
        if chosen_of(replies) != len(replies) - 1:
            return


def chosen_of(replies: Sequence[TrialReply]) -> int | None:
    """Return which trial launches take over: the first that fits, or one clearly faster."""
    fitting = [index for index, reply in enumerate(replies) if reply.trial.fits]
    if not fitting:
        return None
    chosen = fitting[0]
    for index in fitting[1:]:
        if replies[index].trial.step_s < _WORTH * replies[chosen].trial.step_s:
            chosen = index
    return chosen


def _choices(plan: Plan, first: Trial) -> tuple[list[int], tuple[Checkpointing, ...]]:
    """Return micro-batches and kinds of checkpointing that a probe may choose from."""
    training, all_of_step = plan.conduct.training, plan.science.sequences_per_step
    sizes = [size for size in range(1, all_of_step + 1) if all_of_step % size == 0]
    if training.micro_batch_sequences is not None:
        sizes = [first.micro_batch_sequences]
    asked = training.activation_checkpointing
    return sizes, _ORDER if asked == "auto" else (asked,)


def _goes_on(plan: Plan, begun: Placement) -> Way | None:
    """Return how a run that has begun goes on, with what the recipe names in place of its own.

    None where its micro-batch does not divide the step that the recipe has by now.
    """
    training, asked = plan.conduct.training, plan.conduct.training.activation_checkpointing
    size = training.micro_batch_sequences or begun.micro_batch_sequences
    if plan.science.sequences_per_step % size:
        return None
    return Way(size, begun.checkpointing if asked == "auto" else asked)


def _way_of(trial: Trial) -> Way:
    return Way(trial.micro_batch_sequences, trial.checkpointing)


def _may_fit(plan: Plan, replies: Sequence[TrialReply], way: Way) -> bool:
    """Tell whether a way fits by the estimate, corrected by what the last trial measured."""
    last = replies[-1]
    placement = Placement.model_validate(last.placement).model_copy(update=way._asdict())
    predicted = peak_of_placement(placement, plan.science, plan.conduct.model, last.num_trained)
    trial = last.trial
    correction = 1.0
    if trial.peak_bytes and trial.predicted_bytes:
        correction = (trial.peak_bytes - trial.process_bytes) / trial.predicted_bytes
    return trial.process_bytes + correction * predicted <= last.limit_bytes
