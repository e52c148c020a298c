"""The arms of a comparison: each a run, with the figures that stand in the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rewarm.evaluation.forgetting import NEW_ROLES, OLD_ROLES
from rewarm.evaluation.statistics import paired_bootstrap, ratio, ratio_standard_error
from rewarm.records.facts import LOSS_METRICS, EvalRecord, Metric
from rewarm.records.run_folder import RunFolder
from rewarm.reporting.figures import Estimate
from rewarm.reporting.run_view import RunView, load_run_view

__all__ = ["Accuracy", "ArmView", "Change", "load_arm"]

_BOOTSTRAP_SEED = 0


class Change(NamedTuple):
    """A figure over one or several domains at step 0 and at the end, and what lies between.

    `change` is last − first with its 95 % interval, by paired bootstrap over the items of all the
    domains together. Losses are in bits per byte.
    """

    first: float
    last: float
    change: Estimate


class Accuracy(NamedTuple):
    """A share of right answers at the end, with its standard error over the items."""

    value: float
    standard_error: float | None
    first: float


@dataclass(frozen=True, slots=True)
class ArmView:
    """One arm: what it is, its run, and its row of the table. What was not measured is None."""

    name: str
    description: str
    view: RunView
    old: Change | None
    new: Change | None
    answers: Change | None
    matched_old: Accuracy | None
    matched_new: Accuracy | None

    @property
    def run(self) -> RunFolder:
        """The run's folder."""
        return self.view.run


def load_arm(name: str, description: str, run: RunFolder) -> ArmView:
    """Read a run and compute its row; raises PlanError where its plan cannot be trusted."""
    view = load_run_view(run)
    answer_roles = OLD_ROLES | NEW_ROLES
    return ArmView(
        name=name,
        description=description,
        view=view,
        old=_change(view.evals, "bits_per_byte", OLD_ROLES),
        new=_change(view.evals, "bits_per_byte", NEW_ROLES),
        answers=_change(view.evals, "answer_bits_per_byte", answer_roles),
        matched_old=_accuracy(view.evals, OLD_ROLES),
        matched_new=_accuracy(view.evals, NEW_ROLES),
    )


class _Pooled(NamedTuple):
    """Items of several domains, at step 0 and at the end."""

    first: tuple[float, ...]
    last: tuple[float, ...]
    weights: tuple[int, ...]


def _pool(evals: Sequence[EvalRecord], metric: Metric, roles: frozenset[str]) -> _Pooled | None:
    """Return the items that were scored both at step 0 and last; None where there are none."""
    first: list[float] = []
    last: list[float] = []
    weights: list[int] = []
    domains = dict.fromkeys(r.domain for r in evals if r.metric == metric and r.role in roles)
    for domain in domains:
        series = [r for r in evals if r.domain == domain and r.metric == metric]
        base = next((r for r in series if r.step == 0), None)
        if base is None:
            continue
        same = [r for r in series if _items_of(r) == _items_of(base)]
        if same[-1].step == 0:
            continue
        first += base.item_values
        last += same[-1].item_values
        weights += base.item_weights
    return _Pooled(tuple(first), tuple(last), tuple(weights)) if weights else None


def _items_of(record: EvalRecord) -> tuple[str, tuple[int, ...]]:
    return record.items_key, record.item_weights


def _change(evals: Sequence[EvalRecord], metric: Metric, roles: frozenset[str]) -> Change | None:
    pooled = _pool(evals, metric, roles)
    if pooled is None:
        return None
    scale = 1.0 / math.log(2.0) if metric in LOSS_METRICS else 1.0
    low: float | None = None
    high: float | None = None
    if len(pooled.weights) > 1:
        interval = paired_bootstrap(pooled.last, pooled.first, pooled.weights, seed=_BOOTSTRAP_SEED)
        low, high = scale * interval.low, scale * interval.high
    first = scale * ratio(pooled.first, pooled.weights)
    last = scale * ratio(pooled.last, pooled.weights)
    return Change(first, last, Estimate(last - first, low, high))


def _accuracy(evals: Sequence[EvalRecord], roles: frozenset[str]) -> Accuracy | None:
    pooled = _pool(evals, "matched_continuation", roles)
    if pooled is None:
        return None
    return Accuracy(
        value=ratio(pooled.last, pooled.weights),
        standard_error=ratio_standard_error(pooled.last, pooled.weights),
        first=ratio(pooled.first, pooled.weights),
    )
