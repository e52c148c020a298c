"""Old against new loss as one weight goes from base to model, and the rule that picks a point.

With F(w) how far the old domains' bits per byte are above the base's, and A(w) how far the new
ones' are below, both means over their domains:

    knee         the w with the largest A(w)/max A − F(w)/max F, of equals the smallest
    tolerance    the w with the largest A(w) of those whose F(w) lies below it with its whole
                 95 % interval
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from rewarm.evaluation.forgetting import NEW_ROLES, OLD_ROLES, DomainVerdict, domain_verdicts
from rewarm.records.facts import EvalRecord, Metric
from rewarm.records.merging import SweptPoint, TradeOff

__all__ = [
    "Choice",
    "MeanChange",
    "choose_weight",
    "mean_change",
    "new_verdicts",
    "old_verdicts",
    "rule_in_words",
    "swept_point",
]


class MeanChange(NamedTuple):
    """First and last figure and their difference, means over domains, with the 95 % interval."""

    first: float
    last: float
    change: float
    low: float | None
    high: float | None


def mean_change(verdicts: Sequence[DomainVerdict]) -> MeanChange | None:
    """Return the mean over domains; None without any.

    Each domain's interval is a paired bootstrap over its items; over k domains, drawn
    independently, the distance d from the mean to an end is √(Σ d_i²)/k.
    """
    if not verdicts:
        return None
    count = len(verdicts)
    change = sum(verdict.delta for verdict in verdicts) / count
    below = [v.delta - v.low for v in verdicts if v.low is not None]
    above = [v.high - v.delta for v in verdicts if v.high is not None]
    known = len(below) == len(above) == count
    return MeanChange(
        first=sum(verdict.first for verdict in verdicts) / count,
        last=sum(verdict.last for verdict in verdicts) / count,
        change=change,
        low=change - math.hypot(*below) / count if known else None,
        high=change + math.hypot(*above) / count if known else None,
    )


def old_verdicts(
    verdicts: Sequence[DomainVerdict], metric: Metric = "bits_per_byte"
) -> list[DomainVerdict]:
    """Return the verdicts on domains that the base knew."""
    return [v for v in verdicts if v.metric == metric and v.role in OLD_ROLES]


def new_verdicts(
    verdicts: Sequence[DomainVerdict], metric: Metric = "bits_per_byte"
) -> list[DomainVerdict]:
    """Return the verdicts on new domains; questions stand in for them where there are no others.

    Text of questions and new text can move in opposite directions: their mean would hide both.
    """
    learned = [v for v in verdicts if v.metric == metric and v.role in NEW_ROLES]
    return [v for v in learned if v.role == "new"] or learned


def swept_point(
    weight: float, base: Sequence[EvalRecord], merged: Sequence[EvalRecord]
) -> SweptPoint | None:
    """Return the point of a merged model; None where old or new text was not measured of both.

    `base` holds the records of step 0, `merged` those of any later step, on the same items.
    """
    verdicts = domain_verdicts([*base, *merged])
    old, new = mean_change(old_verdicts(verdicts)), mean_change(new_verdicts(verdicts))
    if old is None or new is None:
        return None
    return SweptPoint(
        weight=weight,
        forgetting=TradeOff(value=old.change, low=old.low, high=old.high),
        adaptation=TradeOff(
            value=_negated(new.change) or 0.0, low=_negated(new.high), high=_negated(new.low)
        ),
    )


def _negated(value: float | None) -> float | None:
    return None if value is None else 0.0 - value  # never −0


class Choice(NamedTuple):
    """The chosen weight, and why it is that one."""

    weight: float
    reason: str


def rule_in_words(tolerance: float | None) -> str:
    """Return the rule by which `choose_weight` will choose."""
    if tolerance is None:
        return (
            "the knee: the weight with the largest share of the adaptation less its share of the "
            "forgetting"
        )
    return (
        f"the most adaptation whose forgetting lies below {tolerance:g} bits per byte with its "
        "whole 95 % interval"
    )


def choose_weight(points: Sequence[SweptPoint], tolerance: float | None = None) -> Choice:
    """Return the weight that the rule of `rule_in_words` picks; of equals the smallest.

    Where nothing is forgotten at any weight, the knee is where the most was learned; where nothing
    is learned, or none is within the tolerance, it is the base. Raises ValueError without points.
    """
    ordered = sorted(points, key=lambda point: point.weight)
    if tolerance is not None:
        return _within(ordered, tolerance)
    most_learned = max(point.adaptation.value for point in ordered)
    most_forgotten = max(point.forgetting.value for point in ordered)
    if most_learned <= 0.0:
        return Choice(0.0, "no weight learned anything: the base")
    if most_forgotten <= 0.0:
        best = max(ordered, key=lambda point: point.adaptation.value)
        return Choice(best.weight, "no weight forgot anything: where the most was learned")

    def shares(point: SweptPoint) -> tuple[float, float]:
        return point.adaptation.value / most_learned, point.forgetting.value / most_forgotten

    best = max(ordered, key=lambda point: shares(point)[0] - shares(point)[1])
    learned, forgotten = shares(best)
    if learned - forgotten <= 0.0:
        return Choice(0.0, "at no weight is the share learned above the share forgotten: the base")
    return Choice(
        best.weight,
        f"{100 * learned:.0f} % of the adaptation for {100 * forgotten:.0f} % of the forgetting",
    )


def _within(ordered: Sequence[SweptPoint], tolerance: float) -> Choice:
    kept = [
        point
        for point in ordered
        if point.forgetting.high is not None and point.forgetting.high <= tolerance
    ]
    # Base against base has no noise; its interval is missing only where it has a single item.
    best = max(kept, key=lambda point: point.adaptation.value, default=None)
    if best is None or best.adaptation.value <= 0.0:
        return Choice(0.0, "no other weight stays within the tolerance and learned: the base")
    return Choice(
        best.weight,
        f"{best.adaptation.value:.3f} bits per byte learned, at most "
        f"{best.forgetting.high:.3f} forgotten".replace("-", "−"),
    )
