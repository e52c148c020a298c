"""Forgetting at matched adaptation: what two runs forgot by when they had learned as much.

An arm that learns more forgets more; at their ends two arms stand at different places of one
trade-off. Each run's evaluations give a curve of adaptation A(t) and forgetting F(t), means over
new and over old domains, from (0, 0) at the base. Two runs of a seed are matched at the largest
adaptation that both reach,

    A* = min(max_t A_arm(t), max_t A_against(t)),

and each one's F is read where its A first comes to A*, straight between two evaluations. Where the
two ended differently, that is a place on the way of the one that learned more.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Sequence
from typing import NamedTuple

from rewarm.evaluation.forgetting import NEW_ROLES, OLD_ROLES, delta_curve
from rewarm.records.facts import EvalRecord

__all__ = ["MATCHED", "Place", "forgetting_at", "matched_forgetting", "trade_off"]

MATCHED = "matched_forgetting"
"""How an experiment's file names it."""


class Place(NamedTuple):
    """What a run had learned and forgotten at one evaluation, in bits per byte."""

    adaptation: float
    forgetting: float


def trade_off(
    records: Sequence[EvalRecord],
    common: Container[str] | None = None,
    *,
    from_base: bool = True,
) -> tuple[Place, ...]:
    """Return a run's places in the order of its evaluations, the base's first.

    A run that did not begin there was never at the base's place: its own evaluations alone count.
    `common` are the domains that means are over; None: all. Evaluations that left a domain out are
    passed over. Empty where no old, or no new, domain was measured at step 0.
    """
    loss = [
        record
        for record in records
        if record.metric == "bits_per_byte" and (common is None or record.domain in common)
    ]
    first = [record for record in loss if record.step == 0]
    old = {record.domain for record in first if record.role in OLD_ROLES}
    learned = {record.domain for record in first if record.role in NEW_ROLES}
    new = {record.domain for record in first if record.role == "new"} or learned
    if not old or not new:
        return ()
    changes = {
        domain: {point.step: point.delta for point in delta_curve(loss, domain)}
        for domain in old | new
    }
    steps = set.intersection(*(set(change) for change in changes.values()))
    return tuple(
        Place(
            adaptation=-_mean([changes[domain][step] for domain in sorted(new)]),
            forgetting=_mean([changes[domain][step] for domain in sorted(old)]),
        )
        for step in sorted(steps)
        if from_base or step > 0
    )


def forgetting_at(places: Sequence[Place], adaptation: float) -> float | None:
    """Return the forgetting where adaptation first comes to this; None where it never does."""
    for before, place in itertools.pairwise(places):
        if before.adaptation < adaptation <= place.adaptation:
            part = (adaptation - before.adaptation) / (place.adaptation - before.adaptation)
            return before.forgetting + part * (place.forgetting - before.forgetting)
    return None


def matched_forgetting(own: Sequence[Place], other: Sequence[Place]) -> tuple[float, float] | None:
    """Return what either run had forgotten at the largest adaptation that both reach.

    None where one of them was not measured, never learned anything, or (begun elsewhere) had
    learned more than that when it was first measured.
    """
    if not own or not other:
        return None
    level = min(max(place.adaptation for place in places) for places in (own, other))
    found = forgetting_at(own, level), forgetting_at(other, level)
    return None if found[0] is None or found[1] is None else (found[0], found[1])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
