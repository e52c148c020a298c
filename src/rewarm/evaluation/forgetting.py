"""From evaluation records to what was learned, what was forgotten and what cannot be told.

ℓ_d(t) is the figure of domain d after t updates, ℓ_d(0) that of the base on the same items. Every
difference is taken between records of exactly the same items: a record that scored other text than
step 0 did (the evaluation's settings were changed between two launches) is left out, and the
verdict says so. "Worse" is up for bits per byte and down for accuracies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from rewarm.evaluation.statistics import (
    bootstrap_ratios,
    least_items,
    most_changed,
    paired_bootstrap,
    paired_standard_error,
)
from rewarm.records.facts import LOSS_METRICS, LOWER_IS_BETTER, EvalRecord, Metric, Record, Role

__all__ = [
    "KEPT_WITHIN",
    "NEW_ROLES",
    "OLD_ROLES",
    "CurvePoint",
    "DomainVerdict",
    "StabilityGap",
    "Verdict",
    "adaptation",
    "comparable_records",
    "delta_curve",
    "domain_verdicts",
    "forgetting",
    "gap_of_curve",
    "stability_gap",
    "unit_of",
]

OLD_ROLES: frozenset[str] = frozenset({"general", "quality", "replay"})
"""Domains that the base knew: a rise of their loss is forgetting."""

NEW_ROLES: frozenset[str] = frozenset({"new", "qa"})
"""Domains that the run is there to learn: a fall of their loss is adaptation."""

KEPT_WITHIN = 0.01
"""Bits per byte (or share of right answers) within which a domain counts as kept; of a perplexity,
this share of the base's."""

_NATS_PER_BIT = math.log(2.0)
_NORMAL_95 = 1.96

Verdict = Literal["kept", "improved", "forgotten", "not resolved"]


class CurvePoint(NamedTuple):
    """A domain's figure after `step` updates, and its difference from the base's.

    `noise` is how far the 95 % interval of the difference reaches to either side: evaluation noise
    of the same items, from its standard error; None for a single item.
    """

    step: int
    value: float
    delta: float
    noise: float | None = None


class StabilityGap(Record):
    """How an old domain's figure got worse and came back, against step 0.

    Steps count updates. Values are in the metric's unit (bits per byte; share of right answers).
    """

    depth: float = Field(description="max over t of how much worse t is than step 0; 0 or more")
    transient: float = Field(description="depth - max(0, F): what came back by the last evaluation")
    forgetting: float = Field(description="F: how much worse the last evaluation is than step 0")
    steps_to_peak: int = Field(description="first step with the greatest loss")
    recovery_step: int | None = Field(
        description="first step from the peak on since when the figure stays within the tolerance "
        "of step 0; None: not recovered. The peak itself where it never left the tolerance"
    )
    area: float = Field(description="sum of how much worse, times updates: unit times steps")
    tolerance: float = Field(description="how much worse still counts as recovered")


class DomainVerdict(Record):
    """What can be said of one domain after a run, and how sure that is.

    The interval is evaluation noise of this one run on other items of the same domain, by paired
    bootstrap over items; it does not tell how a run with another seed would have ended.
    """

    domain: str
    role: Role | Literal["task"]
    metric: Metric
    last_step: int
    num_items: int
    first: float = Field(description="the base's figure (step 0)")
    last: float = Field(description="the figure at `last_step`, on the same items")
    delta: float = Field(description="last - first")
    low: float | None = Field(description="95 % interval of delta; None for a single item")
    high: float | None
    resolvable: float | None = Field(
        None,
        description="smallest change that these items would have told from none: the longer arm of "
        "the interval",
    )
    verdict: Verdict
    reason: str = Field(description="the rule that gave the verdict, and any caveat")


def delta_curve(
    records: Sequence[EvalRecord], domain: str, metric: Metric = "bits_per_byte"
) -> list[CurvePoint]:
    """Return (step, value, value − value at step 0) in order of the steps; step 0 comes first.

    Records that scored other items than step 0 did are left out. Raises ValueError where step 0
    was not measured.
    """
    comparable = _comparable(records, domain, metric)[0]
    first = comparable[0].value
    return [
        CurvePoint(record.step, record.value, record.value - first, _noise(comparable[0], record))
        for record in comparable
    ]


def forgetting(records: Sequence[EvalRecord], metric: Metric = "bits_per_byte") -> dict[str, float]:
    """Return F_d = ℓ_d(T) − ℓ_d(0) of every old domain; positive: forgotten.

    T is the domain's last evaluation. For accuracies the sign is turned, so that positive remains
    worse. Domains without step 0 or anything after it are absent.
    """
    return _worsening_by_domain(records, metric, OLD_ROLES)


def adaptation(records: Sequence[EvalRecord], metric: Metric = "bits_per_byte") -> dict[str, float]:
    """Return A_d = ℓ_d(0) − ℓ_d(T) of every domain to be learned; positive: learned."""
    worsening = _worsening_by_domain(records, metric, NEW_ROLES)
    return {domain: -worse for domain, worse in worsening.items()}


def stability_gap(
    records: Sequence[EvalRecord],
    domain: str,
    metric: Metric = "bits_per_byte",
    *,
    tolerance: float = KEPT_WITHIN,
) -> StabilityGap:
    """Return depth, transient part, peak, recovery and area of a domain's gap.

    With w(t) = ℓ(t) − ℓ(0): depth = max w; transient = depth − max(0, w(T)); recovered at the first
    t ≥ t_peak since when w ≤ tolerance for good; area = Σ max(0, w(t_k)) Δt_k with Δt_k half the
    distance between the neighbouring evaluations (the trapezoid rule). What lies between two
    evaluations is not seen: a gap is at least as deep as this says. Re-warming alone raises old
    loss: subtract the same figures of a control arm on old text only. Raises ValueError where
    step 0 was not measured.
    """
    curve = delta_curve(records, domain, metric)
    sign = _sign_of_worse(metric)
    steps = [point.step for point in curve]
    return gap_of_curve(steps, [sign * point.delta for point in curve], tolerance=tolerance)


def gap_of_curve(steps: Sequence[int], worse: Sequence[float], *, tolerance: float) -> StabilityGap:
    """Return the gap of a curve of how much worse each step is than step 0, as `stability_gap`."""
    depth = max(worse)
    peak = worse.index(depth)
    final = worse[-1]
    return StabilityGap(
        depth=depth,
        transient=depth - max(0.0, final),
        forgetting=final,
        steps_to_peak=steps[peak],
        recovery_step=_recovery_step(list(steps[peak:]), list(worse[peak:]), tolerance),
        area=_area(list(steps), list(worse)),
        tolerance=tolerance,
    )


def _recovery_step(steps: list[int], worse: list[float], tolerance: float) -> int | None:
    """Return the first step since when every value stays within the tolerance."""
    recovered = None
    for step, value in zip(reversed(steps), reversed(worse), strict=True):
        if value > tolerance:
            break
        recovered = step
    return recovered


def _area(steps: list[int], worse: list[float]) -> float:
    """Return the trapezoid sum of the positive parts over the steps."""
    heights = [max(0.0, value) for value in worse]
    return sum(
        (steps[k + 1] - steps[k]) * (heights[k] + heights[k + 1]) / 2 for k in range(len(steps) - 1)
    )


def domain_verdicts(
    records: Sequence[EvalRecord],
    *,
    seed: int = 0,
    metric: Metric = "bits_per_byte",
    kept_within: float = KEPT_WITHIN,
) -> list[DomainVerdict]:
    """Return one verdict per domain that was measured at step 0 and later, in order of appearance.

    With Δ = ℓ(T) − ℓ(0) and its 95 % interval, the first rule that holds gives the word:

        not resolved   fewer than `least_items` items
        kept           the whole interval lies within ±`kept_within`
        forgotten      the whole interval is worse than step 0
        improved       the whole interval is better than step 0
        not resolved   otherwise: the interval contains 0 and reaches beyond ±`kept_within`

    Of questions of which not one was answered otherwise, the interval is that of `most_changed`:
    ±0.01 takes 299 of them. What was not resolved says from which change on these items would have
    told. A word is about
    these weights on this domain: the interval is evaluation noise of one run.
    """
    domains = dict.fromkeys(record.domain for record in records if record.metric == metric)
    return [
        _verdict(records, domain, metric, seed, kept_within)
        for domain in domains
        if _has_first_and_later(records, domain, metric)
    ]


def _verdict(
    records: Sequence[EvalRecord], domain: str, metric: Metric, seed: int, kept_within: float
) -> DomainVerdict:
    comparable, num_left_out = _comparable(records, domain, metric)
    first, last = comparable[0], comparable[-1]
    low, high = _interval(first, last, seed)
    delta = last.value - first.value
    resolvable = None if low is None or high is None else max(high - delta, delta - low)
    if metric == "task_perplexity":
        kept_within *= first.value
    verdict, reason = _word(metric, low, high, len(last.item_values), kept_within)
    if verdict == "not resolved" and resolvable and len(last.item_values) >= least_items():
        reason += f"; a change of {resolvable:.2g} or more would have been"
    if num_left_out:
        reason += f"; {num_left_out} evaluation(s) that scored other items than step 0 are left out"
    return DomainVerdict(
        domain=domain,
        role=last.role,
        metric=metric,
        last_step=last.step,
        num_items=len(last.item_values),
        first=first.value,
        last=last.value,
        delta=delta,
        low=low,
        high=high,
        resolvable=resolvable,
        verdict=verdict,
        reason=reason,
    )


def _interval(
    first: EvalRecord, last: EvalRecord, seed: int
) -> tuple[float, float] | tuple[None, None]:
    """Return the paired 95 % interval of last − first in the metric's unit."""
    if len(last.item_values) < 2:
        return None, None
    if last.metric == "task_perplexity":
        both = bootstrap_ratios([last.item_values, first.item_values], last.item_weights, seed=seed)
        low, high = np.quantile(np.exp(both[0]) - np.exp(both[1]), [0.025, 0.975])
        return float(low), float(high)
    if _is_share(first) and _is_share(last) and first.item_values == last.item_values:
        most = most_changed(len(last.item_values))
        return -most, most
    interval = paired_bootstrap(
        last.item_values, first.item_values, last.item_weights, seed=seed, confidence=0.95
    )
    scale = unit_of(last.metric)
    return interval.low * scale, interval.high * scale


def _is_share(record: EvalRecord) -> bool:
    """Tell whether every item is right or wrong (or, of a pair, a tie)."""
    continuous = record.metric in LOSS_METRICS or record.metric == "task_perplexity"
    return not continuous and all(value in (0.0, 0.5, 1.0) for value in record.item_values)


def unit_of(metric: Metric) -> float:
    """Return what a ratio of items is multiplied by to be a metric's figure: bits of nats."""
    return 1.0 / _NATS_PER_BIT if metric in LOSS_METRICS else 1.0


def _noise(first: EvalRecord, later: EvalRecord) -> float | None:
    """Return half of the 95 % interval of a change, by its standard error over the items."""
    if len(later.item_values) < 2:
        return None
    if later is first:
        return 0.0
    error = paired_standard_error(later.item_values, first.item_values, later.item_weights)
    scale = later.value if later.metric == "task_perplexity" else unit_of(later.metric)
    return _NORMAL_95 * scale * error


def _word(
    metric: Metric, low: float | None, high: float | None, num_items: int, kept_within: float
) -> tuple[Verdict, str]:
    """Apply the rules of `domain_verdicts` in their order."""
    if num_items == 0:
        return "not resolved", "the figure is one of all items together: it has no interval"
    if low is None or high is None or num_items < least_items():
        return (
            "not resolved",
            f"{num_items} item(s) are too few: a 95 % statement needs {least_items()}",
        )
    if -kept_within <= low and high <= kept_within:
        return "kept", f"the whole 95 % interval lies within ±{kept_within:g}"
    sign = _sign_of_worse(metric)
    if min(sign * low, sign * high) > 0:
        return "forgotten", "the whole 95 % interval is worse than the base"
    if max(sign * low, sign * high) < 0:
        return "improved", "the whole 95 % interval is better than the base"
    return "not resolved", "the 95 % interval contains 0: not resolved at this sample size"


def _sign_of_worse(metric: Metric) -> int:
    """Return +1 where a higher figure is worse (losses), −1 where it is better (accuracies)."""
    return 1 if metric in LOWER_IS_BETTER else -1


def _worsening_by_domain(
    records: Sequence[EvalRecord], metric: Metric, roles: frozenset[str]
) -> dict[str, float]:
    """Return how much worse the last evaluation is than step 0, by domain of these roles."""
    domains = dict.fromkeys(
        record.domain for record in records if record.metric == metric and record.role in roles
    )
    sign = _sign_of_worse(metric)
    return {
        domain: sign * delta_curve(records, domain, metric)[-1].delta
        for domain in domains
        if _has_first_and_later(records, domain, metric)
    }


def _has_first_and_later(records: Sequence[EvalRecord], domain: str, metric: Metric) -> bool:
    """Tell whether step 0 and a later step with the same items were measured."""
    series = _series(records, domain, metric)
    return bool(series) and series[0].step == 0 and len(_comparable(records, domain, metric)[0]) > 1


def _series(records: Sequence[EvalRecord], domain: str, metric: Metric) -> list[EvalRecord]:
    """Return a domain's records in order of the steps; of one step, the last written counts."""
    last = {
        record.step: record
        for record in records
        if record.domain == domain and record.metric == metric
    }
    return [last[step] for step in sorted(last)]


def _comparable(
    records: Sequence[EvalRecord], domain: str, metric: Metric
) -> tuple[list[EvalRecord], int]:
    """Return step 0 and the later records with its items, and how many others there are."""
    series = _series(records, domain, metric)
    if not series or series[0].step != 0:
        raise ValueError(f"{metric} of {domain!r} was not measured at step 0")
    same = [record for record in series if _item_set(record) == _item_set(series[0])]
    return same, len(series) - len(same)


def comparable_records(
    records: Sequence[EvalRecord], domain: str, metric: Metric = "bits_per_byte"
) -> list[EvalRecord]:
    """Return a domain's records of step 0 and of later steps with its items, in order of the steps.

    Raises ValueError where step 0 was not measured.
    """
    return _comparable(records, domain, metric)[0]


def _item_set(record: EvalRecord) -> tuple[str, tuple[int, ...]]:
    """Return what two records must share for their items to pair up."""
    return record.items_key, record.item_weights
