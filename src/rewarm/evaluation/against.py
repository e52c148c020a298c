"""A run against others from the same base: a control taken off its gap, a joint training's share.

Re-warming alone raises the loss on old text, whatever is trained on. A control run with the same
schedule on old text alone shows how much; what is left is the new text's doing. Figures are of the
same items in both, so that intervals pair them item by item. They are evaluation noise of these
weights: of other seeds they say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rewarm.evaluation.forgetting import comparable_records, gap_of_curve, unit_of
from rewarm.evaluation.statistics import bootstrap_ratios, paired_bootstrap
from rewarm.records.against import AgainstControl, RecoveredFraction
from rewarm.records.facts import LOWER_IS_BETTER, EvalRecord, Metric

__all__ = ["against_control", "recovered_fractions"]

_Key = tuple[str, Metric]


def against_control(
    run: Sequence[EvalRecord], control: Sequence[EvalRecord], *, seed: int = 0
) -> list[AgainstControl]:
    """Return the gap of each domain that both runs measured on the same items at step 0 and later.

    Perplexities are left out: their differences do not add up. Steps that only one of the two has
    do not count.
    """
    found = []
    for domain, metric in _keys(run):
        if metric == "task_perplexity":
            continue
        mine, theirs = _by_step(run, domain, metric), _by_step(control, domain, metric)
        steps = sorted(mine.keys() & theirs.keys()) if 0 in mine and 0 in theirs else []
        if len(steps) < 2 or not mine[0].item_values or not _has_one_base(mine[0], theirs[0]):
            continue
        worse = [
            _sign(metric) * (mine[k].value - mine[0].value - (theirs[k].value - theirs[0].value))
            for k in steps
        ]
        gap = gap_of_curve(steps, worse, tolerance=0.0)
        low, high = _excess_interval(mine, theirs, steps[-1], seed)
        found.append(
            AgainstControl(
                domain=domain,
                role=mine[0].role,
                metric=metric,
                num_steps=len(steps),
                num_items=len(mine[0].item_values),
                depth=gap.depth,
                steps_to_peak=gap.steps_to_peak,
                area=gap.area,
                forgetting=gap.forgetting,
                last_step=steps[-1],
                low=low,
                high=high,
            )
        )
    return found


def recovered_fractions(
    run: Sequence[EvalRecord], joint: Sequence[EvalRecord], *, seed: int = 0
) -> list[RecoveredFraction]:
    """Return (base − run) / (base − joint) of each domain's last figures, on the same items.

    The joint run may have begun from any weights: of it only the last figure counts.

    The interval is a bootstrap over items that all three figures share. Where joint training is not
    better than the base, also in some of the resamples, the fraction (or its interval) means
    nothing and is left out, with the reason.
    """
    found = []
    for domain, metric in _keys(run):
        mine, theirs = _by_step(run, domain, metric), _by_step(joint, domain, metric)
        if len(mine) < 2 or len(theirs) < 2:
            continue
        base, last, whole = mine[0], mine[max(mine)], theirs[max(theirs)]
        if not _has_same_items(base, whole):
            continue
        gained = _sign(metric) * (base.value - whole.value)
        fraction = _sign(metric) * (base.value - last.value) / gained if gained > 0 else None
        low, high, reason = _fraction_interval(base, last, whole, seed)
        found.append(
            RecoveredFraction(
                domain=domain,
                role=base.role,
                metric=metric,
                base=base.value,
                run=last.value,
                joint=whole.value,
                fraction=fraction,
                low=low if fraction is not None else None,
                high=high if fraction is not None else None,
                reason=reason
                if fraction is not None
                else "joint training is not better than the base here",
            )
        )
    return found


def _fraction_interval(
    base: EvalRecord, last: EvalRecord, whole: EvalRecord, seed: int
) -> tuple[float | None, float | None, str]:
    if len(base.item_values) < 2:
        return None, None, "a single item tells no spread"
    drawn = bootstrap_ratios(
        [base.item_values, last.item_values, whole.item_values], base.item_weights, seed=seed
    )
    if base.metric == "task_perplexity":
        drawn = np.exp(drawn)
    gained = _sign(base.metric) * (drawn[0] - drawn[2])
    if (gained <= 0).any():
        return None, None, "what joint training gains is not resolved on these items"
    fractions = _sign(base.metric) * (drawn[0] - drawn[1]) / gained
    low, high = np.quantile(fractions, [0.025, 0.975])
    return float(low), float(high), ""


def _excess_interval(
    mine: dict[int, EvalRecord], theirs: dict[int, EvalRecord], step: int, seed: int
) -> tuple[float | None, float | None]:
    if len(mine[0].item_values) < 2:
        return None, None
    changed = np.subtract(mine[step].item_values, mine[0].item_values)
    by_control = np.subtract(theirs[step].item_values, theirs[0].item_values)
    interval = paired_bootstrap(changed, by_control, mine[0].item_weights, seed=seed)
    metric = mine[0].metric
    ends = sorted(_sign(metric) * unit_of(metric) * end for end in (interval.low, interval.high))
    return ends[0], ends[1]


def _keys(records: Sequence[EvalRecord]) -> list[_Key]:
    return list(dict.fromkeys((record.domain, record.metric) for record in records))


def _by_step(records: Sequence[EvalRecord], domain: str, metric: Metric) -> dict[int, EvalRecord]:
    """Return a domain's comparable records by step; none where step 0 was not measured."""
    try:
        return {record.step: record for record in comparable_records(records, domain, metric)}
    except ValueError:
        return {}


def _has_same_items(one: EvalRecord, other: EvalRecord) -> bool:
    return (one.items_key, one.item_weights) == (other.items_key, other.item_weights)


def _has_one_base(one: EvalRecord, other: EvalRecord) -> bool:
    """Tell whether two runs begin with the same figures on the same items."""
    begins_alike = np.allclose(one.item_values, other.item_values, rtol=1e-3, atol=1e-6)
    return _has_same_items(one, other) and bool(begins_alike)


def _sign(metric: Metric) -> int:
    return 1 if metric in LOWER_IS_BETTER else -1
