"""The arms of a comparison: each a run, with the figures that stand in the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rewarm.evaluation.forgetting import NEW_ROLES, OLD_ROLES, DomainVerdict
from rewarm.evaluation.trade_off import mean_change, new_verdicts, old_verdicts
from rewarm.records.run_folder import RunFolder
from rewarm.reporting.figures import Estimate
from rewarm.reporting.run_view import RunView, load_run_view

__all__ = ["Accuracy", "ArmView", "Change", "load_arm"]


class Change(NamedTuple):
    """A figure at step 0 and at the end, its mean where there are several domains of one kind.

    `change` is last − first; for its interval see `mean_change`.
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
    verdicts = view.verdicts
    answers = [v for v in verdicts if v.metric == "answer_bits_per_byte"]
    return ArmView(
        name=name,
        description=description,
        view=view,
        old=_change(old_verdicts(verdicts)),
        new=_change(new_verdicts(verdicts)),
        answers=_change([v for v in answers if v.role in OLD_ROLES | NEW_ROLES]),
        matched_old=_accuracy(view, old_verdicts(verdicts, "matched_continuation")),
        matched_new=_accuracy(view, new_verdicts(verdicts, "matched_continuation")),
    )


def _change(verdicts: Sequence[DomainVerdict]) -> Change | None:
    mean = mean_change(verdicts)
    if mean is None:
        return None
    return Change(mean.first, mean.last, Estimate(mean.change, mean.low, mean.high))


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
