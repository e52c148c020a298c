"""The difference of two checkpoints on the same documents, and what drawing others would do to it.

This is all that a single seed has, and it is about these very weights: nothing of it says how the
difference would come out with another seed.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence

from rewarm.comparison.metrics import kind_of, last_records
from rewarm.evaluation.forgetting import OLD_ROLES
from rewarm.evaluation.statistics import Interval, least_items, paired_bootstrap
from rewarm.records.facts import LOSS_METRICS, EvalRecord

__all__ = ["document_interval"]

_NATS_PER_BIT = math.log(2.0)


def document_interval(
    metric: str,
    arm: Sequence[EvalRecord],
    against: Sequence[EvalRecord],
    *,
    common: Container[str] | None = None,
) -> Interval | None:
    """Return the 95 % bootstrap interval of arm − against at the end, in the metric's unit.

    Of a mean over domains the distances to the ends add up as roots of sums of squares, domains
    being drawn independently. None for metrics that are no mean over documents at the end (the
    stability gap, time), for other documents, and for fewer than can tell anything. `common` are
    the domains that count for such a mean; None: all.
    """
    pairs = _paired_domains(metric, arm, against, common)
    found = [_of_domain(one, other) for one, other in pairs]
    if not found or any(interval is None for interval in found):
        return None
    known = [interval for interval in found if interval is not None]
    sign = -1.0 if metric == "adaptation" else 1.0
    mean = sum(interval.estimate for interval in known) / len(known)
    below = math.hypot(*(interval.estimate - interval.low for interval in known)) / len(known)
    above = math.hypot(*(interval.high - interval.estimate for interval in known)) / len(known)
    ends = (sign * (mean - below), sign * (mean + above))
    return Interval(min(ends), max(ends), sign * mean)


def _paired_domains(
    metric: str,
    arm: Sequence[EvalRecord],
    against: Sequence[EvalRecord],
    common: Container[str] | None,
) -> list[tuple[EvalRecord, EvalRecord]]:
    one, other = last_records(arm), last_records(against)
    wanted = kind_of(metric).records
    if wanted:
        places = [(record, metric.partition(".")[2]) for record in wanted]
    elif metric in ("forgetting", "adaptation"):
        text = {place: r for place, r in one.items() if place[0] == "bits_per_byte"}
        text = {p: r for p, r in text.items() if common is None or p[1] in common}
        old = metric == "forgetting"
        places = [place for place, r in text.items() if (r.role in OLD_ROLES) == old]
        new = [place for place in places if one[place].role == "new"]
        places = places if old else new or places
    else:
        return []
    return [(one[place], other[place]) for place in places if place in one and place in other]


def _of_domain(arm: EvalRecord, against: EvalRecord) -> Interval | None:
    """Return the interval of one domain; None where the documents differ or are too few."""
    same = (arm.items_key, arm.item_weights) == (against.items_key, against.item_weights)
    if not same or len(arm.item_values) < least_items() or arm.metric == "task_perplexity":
        return None
    interval = paired_bootstrap(arm.item_values, against.item_values, arm.item_weights, seed=0)
    scale = 1.0 / _NATS_PER_BIT if arm.metric in LOSS_METRICS else 1.0
    return Interval(*(scale * part for part in interval))
