"""The rule by which short runs at several replay shares say which share to take.

Runs at four replay shares and three lengths fit the law of `mixture_law.py` for old and for new
text; a run at another share and twice the longest length, which the law has not seen, says how
wrong it is; then that run is taken in, and the law asked for the target's tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rewarm.evaluation.forgetting import KEPT_WITHIN, NEW_ROLES, OLD_ROLES, delta_curve
from rewarm.evaluation.mixture_law import (
    MOST_REPLAY,
    Measured,
    Prediction,
    ShareFinding,
    fit_law,
    recommend_share,
)
from rewarm.evaluation.statistics import bootstrap_ratios
from rewarm.records.facts import EvalRecord, Record

__all__ = [
    "CHECK_LENGTH",
    "CHECK_SHARE",
    "LENGTHS",
    "RULE",
    "SHARES",
    "Check",
    "CurvePoint",
    "ReplayFinding",
    "ReplayTrial",
    "find_share",
    "try_share",
]

SHARES = (0.0, 0.05, 0.25, 0.75)
LENGTHS = (0.25, 0.5, 1.0)
"""Of the longest run that the law is fitted to."""
CHECK_SHARE, CHECK_LENGTH = 0.1, 2.0
RULE = (
    "Rule: the change in bits per byte of old and of new text at the end of each run is fitted by "
    "E + B·r^η/D^β + C/(r+ε)^γ (D-CPT: r the text's share, D the tokens). A run that the fit has "
    "not seen says how wrong it is. The share to take is the smallest replay under which the law "
    "predicts, for the budget, that old text stays within the tolerance of the base (CMR)."
)
_NATS_PER_BIT = math.log(2.0)
_CURVE = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, MOST_REPLAY)

Floats = NDArray[np.float64]


class ReplayTrial(Record):
    """One short run: the share of old text in it, its length, what it came to."""

    replay: float = Field(description="share of old text in the run's tokens")
    num_tokens: int
    old: Measured | None = Field(description="None: the run diverged")
    new: Measured | None


class Check(Record):
    """What the law said of a run that it had not seen, and what that came to."""

    replay: float
    num_tokens: int
    old: float
    old_predicted: Prediction
    new: float
    new_predicted: Prediction

    @property
    def is_within(self) -> bool:
        """Whether both figures lie in their intervals."""
        return (
            self.old_predicted.low <= self.old <= self.old_predicted.high
            and self.new_predicted.low <= self.new <= self.new_predicted.high
        )


class CurvePoint(Record):
    """What the law predicts for the budget at one replay share."""

    replay: float
    old: Prediction
    new: Prediction


class ReplayFinding(Record):
    """The trials, what the law makes of them, how wrong it was, and what it takes the budget to."""

    rule: str = RULE
    trials: tuple[ReplayTrial, ...]
    check: Check | None = Field(description="None: that run diverged")
    finding: ShareFinding
    curve: tuple[CurvePoint, ...]
    tokens_spent: int = Field(description="tokens of all short runs")
    remarks: tuple[str, ...]


def try_share(
    replay: float, num_tokens: int, records: Sequence[EvalRecord], *, seed: int
) -> ReplayTrial:
    """Return what a finished run came to; without records it diverged.

    Raises ValueError where old or new text was not measured at step 0 and at the end.
    """
    if not records:
        return ReplayTrial(replay=replay, num_tokens=num_tokens, old=None, new=None)
    return ReplayTrial(
        replay=replay,
        num_tokens=num_tokens,
        old=_measured(records, OLD_ROLES, replay, num_tokens, seed),
        new=_measured(records, NEW_ROLES, 1.0 - replay, num_tokens, seed),
    )


def _measured(
    records: Sequence[EvalRecord], roles: frozenset[str], share: float, num_tokens: int, seed: int
) -> Measured:
    domains = dict.fromkeys(
        r.domain for r in records if r.metric == "bits_per_byte" and r.role in roles
    )
    if not domains:
        raise ValueError("old and new text must both be measured")
    changes, variances = [], []
    for domain in domains:
        curve = delta_curve(records, domain)
        if len(curve) < 2:
            raise ValueError(f"{domain!r} was not measured after step 0")
        changes.append(curve[-1].delta)
        variances.append(_variance_of_change(records, domain, curve[-1].step, seed))
    return Measured(
        share=share,
        num_tokens=num_tokens,
        loss=sum(changes) / len(changes),
        standard_error=math.sqrt(sum(variances)) / len(variances),
    )


def _variance_of_change(records: Sequence[EvalRecord], domain: str, step: int, seed: int) -> float:
    """Return the variance of ℓ(T) − ℓ(0) over draws of the domain's documents."""
    by_step = {r.step: r for r in records if r.domain == domain and r.metric == "bits_per_byte"}
    base, last = by_step[0], by_step[step]
    if len(base.item_weights) < 2:
        return 0.0
    drawn = bootstrap_ratios([base.item_values, last.item_values], base.item_weights, seed=seed)
    return float(np.var((drawn[1] - drawn[0]) / _NATS_PER_BIT))


def find_share(
    trials: Sequence[ReplayTrial],
    unseen: ReplayTrial,
    *,
    tolerance: float,
    num_tokens: int,
    seed: int,
) -> ReplayFinding:
    """Fit the law to `trials`, hold it against `unseen`, and ask it for `num_tokens`.

    Raises ValueError where so many runs diverged that no law can be fitted.
    """
    check = _check(trials, unseen, seed)
    every = [*trials, unseen]
    old = fit_law([trial.old for trial in every if trial.old is not None], seed=seed)
    new = fit_law([trial.new for trial in every if trial.new is not None], seed=seed)
    finding = recommend_share(old, new, tolerance=tolerance, num_tokens=num_tokens)
    curve = tuple(
        CurvePoint(
            replay=share,
            old=old.predict(share, num_tokens),
            new=new.predict(1.0 - share, num_tokens),
        )
        for share in _CURVE
    )
    return ReplayFinding(
        trials=tuple(every),
        check=check,
        finding=finding,
        curve=curve,
        tokens_spent=sum(trial.num_tokens for trial in every),
        remarks=tuple(_remarks(every, check, finding)),
    )


def _check(trials: Sequence[ReplayTrial], unseen: ReplayTrial, seed: int) -> Check | None:
    if unseen.old is None or unseen.new is None:
        return None
    old = fit_law([trial.old for trial in trials if trial.old is not None], seed=seed)
    new = fit_law([trial.new for trial in trials if trial.new is not None], seed=seed)
    return Check(
        replay=unseen.replay,
        num_tokens=unseen.num_tokens,
        old=unseen.old.loss,
        old_predicted=old.predict(unseen.old.share, unseen.num_tokens),
        new=unseen.new.loss,
        new_predicted=new.predict(unseen.new.share, unseen.num_tokens),
    )


def _remarks(
    trials: Sequence[ReplayTrial], check: Check | None, finding: ShareFinding
) -> list[str]:
    remarks: list[str] = []
    diverged = [f"{t.replay:.0%} of {t.num_tokens:,} tokens" for t in trials if t.old is None]
    if diverged:
        remarks.append(f"left out, for they diverged: the runs at {', '.join(diverged)}")
    if check is None:
        remarks.append("the run that was to check the law diverged: how wrong it is, nobody knows")
    elif not check.is_within:
        remarks.append(
            "the run that the law had not seen lies outside of its interval: do not trust the law "
            "further than that; longer runs (--tokens) would tell more"
        )
    longest = max(trial.num_tokens for trial in trials)
    if finding.num_tokens > 10 * longest:
        remarks.append(
            f"the budget is {finding.num_tokens / longest:.0f} times the longest run: the law was "
            f"checked at {CHECK_LENGTH:g} times its runs, not at that"
        )
    if finding.share is None:
        remarks.append(
            f"no share up to {MOST_REPLAY:.0%} keeps old text within the tolerance: lower the "
            "learning rate, or accept more"
        )
    elif finding.high is None or (finding.low is not None and finding.high - finding.low > 0.25):
        remarks.append(
            "the share is not resolved: laws that fit the runs as well need another; longer runs "
            "(--tokens) or more held-out text would tell more"
        )
    old = finding.old
    if old is not None and old.high - old.low > 10 * KEPT_WITHIN:
        remarks.append("old loss at the budget is predicted widely: see its interval")
    return remarks
