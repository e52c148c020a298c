"""The arms of a comparison: each a run, with the figures that stand in the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rewarm.evaluation.forgetting import NEW_ROLES, OLD_ROLES, DomainVerdict
from rewarm.records.facts import Metric
from rewarm.records.run_folder import RunFolder
from rewarm.reporting.figures import Estimate
from rewarm.reporting.run_view import RunView, load_run_view

__all__ = ["Accuracy", "ArmView", "Change", "load_arm"]


class Change(NamedTuple):
    """A figure at step 0 and at the end, its mean where there are several domains of one kind.

    `change` is last − first. Each domain's interval is a paired bootstrap over its items; over k
    domains, drawn independently, the distance d from the mean to an end is √(Σ d_i²)/k.
    """

    first: float
    last: float
    change: Estimate


class Accuracy(NamedTuple):
    """A share of right answers at the end, with its standard error; a mean as in `Change`."""

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
    return ArmView(
        name=name,
        description=description,
        view=view,
        old=_change(_of_kind(view, "bits_per_byte", OLD_ROLES)),
        new=_change(_to_be_learned(view, "bits_per_byte")),
        answers=_change(_of_kind(view, "answer_bits_per_byte", OLD_ROLES | NEW_ROLES)),
        matched_old=_accuracy(view, _of_kind(view, "matched_continuation", OLD_ROLES)),
        matched_new=_accuracy(view, _to_be_learned(view, "matched_continuation")),
    )


def _of_kind(view: RunView, metric: Metric, roles: frozenset[str]) -> list[DomainVerdict]:
    return [v for v in view.verdicts if v.metric == metric and v.role in roles]


def _to_be_learned(view: RunView, metric: Metric) -> list[DomainVerdict]:
    """Return the new domains; questions stand in for them where there are no others.

    Text of questions and new text can move in opposite directions: their mean would hide both.
    """
    return _of_kind(view, metric, frozenset({"new"})) or _of_kind(view, metric, NEW_ROLES)


def _change(verdicts: Sequence[DomainVerdict]) -> Change | None:
    if not verdicts:
        return None
    change = _mean([verdict.delta for verdict in verdicts])
    low: float | None = None
    high: float | None = None
    below = [v.delta - v.low for v in verdicts if v.low is not None]
    above = [v.high - v.delta for v in verdicts if v.high is not None]
    if len(below) == len(above) == len(verdicts):
        low = change - math.hypot(*below) / len(verdicts)
        high = change + math.hypot(*above) / len(verdicts)
    first = _mean([verdict.first for verdict in verdicts])
    last = _mean([verdict.last for verdict in verdicts])
    return Change(first, last, Estimate(change, low, high))


def _accuracy(view: RunView, verdicts: Sequence[DomainVerdict]) -> Accuracy | None:
    if not verdicts:
        return None
    last = {(v.domain, v.metric, v.last_step) for v in verdicts}
    records = [r for r in view.evals if (r.domain, r.metric, r.step) in last]
    errors = [r.standard_error for r in records if r.standard_error is not None]
    known = len(errors) == len(verdicts)
    return Accuracy(
        value=_mean([verdict.last for verdict in verdicts]),
        standard_error=math.hypot(*errors) / len(errors) if known else None,
        first=_mean([verdict.first for verdict in verdicts]),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
