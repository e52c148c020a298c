"""The rule that picks a learning rate from three short runs, stated before they are made.

Each run holds one rate constant from the base on. With ℓ_d(t) the bits per byte of domain d after t
updates, a rate's score is the mean over old domains of ℓ_d(T) − ℓ_d(0) and the mean over new ones,
each counting half: what was forgotten is weighed against what was learned. Rates lie a factor √10
apart, so with s₋, s₀, s₊ the scores a parabola in log rate through them has its minimum at

    t = (s₋ − s₊) / (2 (s₋ − 2 s₀ + s₊))      in steps of √10 from the middle rate

Which outcome it is, by the first that holds: flat (the scores differ by no more than what counts as
kept), inside (the parabola opens upwards and −1 ≤ t ≤ 1), else below or above the grid, on the side
of the better end. The uncertainty is evaluation noise: documents are drawn anew, the same ones for
all rates, and the rule is applied to each draw. It says nothing of other seeds or longer runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rewarm.evaluation.forgetting import KEPT_WITHIN, NEW_ROLES, OLD_ROLES, delta_curve
from rewarm.evaluation.statistics import bootstrap_ratios, least_items
from rewarm.records.facts import EvalRecord, Record

__all__ = [
    "RULE",
    "STEP",
    "LrFinding",
    "LrTrial",
    "candidate_rates",
    "find_rate",
    "try_rate",
]

STEP = math.sqrt(10.0)
RULE = (
    "Rule: a rate's score is the change in bits per byte from the base to the end of its run, old "
    "and new text counting half each (the mean over the domains of either). A parabola in log rate "
    "through the three scores gives the rate; where its minimum lies beyond the three, the next "
    f"three are proposed; where the scores differ by no more than {KEPT_WITHIN:g}, the middle rate "
    "stays."
)
_NATS_PER_BIT = math.log(2.0)
_CONFIDENCE = 0.95

Floats = NDArray[np.float64]
Outcome = Literal["flat", "inside", "below", "above"]


class LrTrial(Record):
    """What one short run came to; bits per byte against the base."""

    rate: float
    diverged: bool = Field(description="its loss or gradient was not finite: it has no figures")
    old: float | None = Field(description="mean change of the old domains; positive: forgotten")
    new: float | None = Field(description="mean change of the new domains; negative: learned")
    score: float | None = Field(description="mean of old and new, or the one that was measured")
    old_is_rising: bool = Field(
        description="old loss rose by more than what counts as kept in the second half of the run"
    )

    @classmethod
    def of_divergence(cls, rate: float) -> LrTrial:
        """Return the trial of a run whose loss or gradient was not finite."""
        return cls(rate=rate, diverged=True, old=None, new=None, score=None, old_is_rising=False)


class LrFinding(Record):
    """The trials, what the rule makes of them, and how sure that is."""

    rule: str = RULE
    trials: tuple[LrTrial, LrTrial, LrTrial]
    outcome: Outcome
    rate: float | None = Field(description="the rate to take; None: it lies beyond the three")
    low: float | None = Field(description="95 % interval of the rate, within the grid")
    high: float | None
    agreement: float | None = Field(
        description="share of the draws of documents with this outcome; None: too few documents"
    )
    next_rates: tuple[float, float, float] | None = Field(description="where to look instead")
    remarks: tuple[str, ...]


def candidate_rates(around: float) -> tuple[float, float, float]:
    """Return three rates a factor √10 apart, to three digits, with `around` in the middle.

    The others are those of the rounded one, so that a grid around ten times it shares an end.
    """
    middle = _three_digits(around)
    return (_three_digits(middle / STEP), middle, _three_digits(middle * STEP))


def try_rate(rate: float, records: Sequence[EvalRecord]) -> LrTrial:
    """Return what a finished run at this rate came to; its records hold step 0, half, and the end.

    Raises ValueError where it measured neither old nor new text at step 0 and later.
    """
    old, new = _mean_curve(records, OLD_ROLES), _mean_curve(records, NEW_ROLES)
    ends = [curve[-1] for curve in (old, new) if curve]
    if not ends:
        raise ValueError("no held-out text of an old or a new domain was measured")
    return LrTrial(
        rate=rate,
        diverged=False,
        old=old[-1] if old else None,
        new=new[-1] if new else None,
        score=sum(ends) / len(ends),
        old_is_rising=len(old) > 2 and old[-1] - old[-2] > KEPT_WITHIN,
    )


def _mean_curve(records: Sequence[EvalRecord], roles: frozenset[str]) -> list[float]:
    """Return the mean change over the domains of these roles, by step in order."""
    changes: dict[int, list[float]] = {}
    for domain in _domains(records, roles):
        for point in delta_curve(records, domain):
            changes.setdefault(point.step, []).append(point.delta)
    return [sum(found) / len(found) for _, found in sorted(changes.items())]


def _domains(records: Sequence[EvalRecord], roles: frozenset[str]) -> list[str]:
    found = [r.domain for r in records if r.metric == "bits_per_byte" and r.role in roles]
    return list(dict.fromkeys(found))


def find_rate(
    trials: tuple[LrTrial, LrTrial, LrTrial],
    records: tuple[Sequence[EvalRecord], Sequence[EvalRecord], Sequence[EvalRecord]],
    *,
    seed: int,
) -> LrFinding:
    """Apply the rule to three trials in ascending order of the rate, a factor √10 apart.

    `records` are those that the trials were made from; a trial that diverged has none.
    """
    middle = trials[1].rate
    if any(trial.diverged for trial in trials):
        return _beside_divergence(trials)
    scores = np.array([[trial.score] for trial in trials], dtype=np.float64)
    place, codes = _apply(scores)
    outcome = _OUTCOMES[int(codes[0])]
    low = high = agreement = None
    drawn = _drawn_scores(records, seed)
    if drawn is not None:
        places, drawn_codes = _apply(drawn)
        agreement = float(np.mean(drawn_codes == codes[0]))
        if outcome in ("inside", "flat"):
            tail = (1.0 - _CONFIDENCE) / 2.0
            ends = np.quantile(places, [tail, 1.0 - tail])
            low, high = (_three_digits(middle * STEP**end) for end in ends)
    is_there = outcome in ("inside", "flat")
    return LrFinding(
        trials=trials,
        outcome=outcome,
        rate=_three_digits(middle * STEP ** float(place[0])) if is_there else None,
        low=low,
        high=high,
        agreement=agreement,
        next_rates=None if is_there else _next_rates(trials, outcome),
        remarks=tuple(_remarks(trials, agreement)),
    )


_OUTCOMES: tuple[Outcome, ...] = ("flat", "inside", "below", "above")


def _apply(scores: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Return place (in steps of √10 from the middle) and number of the outcome for [3, draws]."""
    low, middle, high = scores
    bend = low - 2.0 * middle + high
    with np.errstate(divide="ignore", invalid="ignore"):
        place = (low - high) / (2.0 * bend)
    better_end = np.where(low <= high, -1.0, 1.0)
    inside = (bend > 0) & (np.abs(place) <= 1.0)
    flat = scores.max(axis=0) - scores.min(axis=0) <= KEPT_WITHIN
    code = np.where(flat, 0, np.where(inside, 1, np.where(better_end < 0, 2, 3)))
    return np.where(flat, 0.0, np.where(inside, place, better_end)), code


def _drawn_scores(records: Sequence[Sequence[EvalRecord]], seed: int) -> Floats | None:
    """Return the scores of the three rates under draws of the documents, [3, draws].

    None where some domain has too few documents for a statement.
    """
    generator = np.random.default_rng(seed)
    means: list[Floats] = []
    for roles in (OLD_ROLES, NEW_ROLES):
        changes: list[Floats] = []
        for domain in _domains(records[0], roles):
            drawn = _drawn_changes(records, domain, int(generator.integers(2**63)))
            if drawn is None:
                return None
            changes.append(drawn)
        if changes:
            means.append(np.mean(changes, axis=0))
    return np.asarray(np.mean(means, axis=0))


def _drawn_changes(
    records: Sequence[Sequence[EvalRecord]], domain: str, seed: int
) -> Floats | None:
    """Return ℓ(T) − ℓ(0) of a domain at the three rates under draws of its documents."""
    runs = [
        [r for r in run if r.domain == domain and r.metric == "bits_per_byte"] for run in records
    ]
    if len({record.items_key for run in runs for record in run}) != 1:
        raise ValueError(f"the runs scored different documents of {domain!r}")
    base, weights = runs[0][0].item_values, runs[0][0].item_weights
    if len(weights) < least_items():
        return None
    values = [base, *(run[-1].item_values for run in runs)]
    ratios = bootstrap_ratios(values, weights, seed=seed) / _NATS_PER_BIT
    return np.asarray(ratios[1:] - ratios[0])


def _beside_divergence(trials: tuple[LrTrial, LrTrial, LrTrial]) -> LrFinding:
    """Return what can be said where a run diverged: no parabola, but the best of the others."""
    scores = [math.inf if trial.score is None else trial.score for trial in trials]
    best = scores.index(min(scores))
    diverged = ", ".join(f"{trial.rate:.3g}" for trial in trials if trial.diverged)
    is_there = best == 1
    outcome: Outcome = "inside" if is_there else "below" if best == 0 else "above"
    return LrFinding(
        trials=trials,
        outcome=outcome,
        rate=trials[1].rate if is_there else None,
        low=None,
        high=None,
        agreement=None,
        next_rates=None if is_there else _next_rates(trials, outcome),
        remarks=(
            f"the run at {diverged} diverged: no parabola fits, and the best of the others counts",
            *_remarks(trials, 1.0),
        ),
    )


def _next_rates(trials: Sequence[LrTrial], outcome: Outcome) -> tuple[float, float, float]:
    """Return three rates that begin at the better end, so that it is in both grids."""
    middle = trials[1].rate
    return candidate_rates(middle / 10.0 if outcome == "below" else middle * 10.0)


def _remarks(trials: Sequence[LrTrial], agreement: float | None) -> list[str]:
    remarks: list[str] = []
    if agreement is None:
        remarks.append(
            f"a domain has fewer than {least_items()} held-out documents: how sure this is cannot "
            "be said"
        )
    elif agreement < _CONFIDENCE:
        remarks.append(
            f"not resolved: {1.0 - agreement:.0%} of the draws of held-out documents say otherwise;"
            " more held-out text, or longer runs (--tokens), would tell more"
        )
    measured = [trial for trial in trials if not trial.diverged]
    if all(trial.old is None for trial in measured):
        remarks.append("no old text was measured: what is forgotten is not seen, and not weighed")
    if all(trial.new is None for trial in measured):
        remarks.append("no new text was measured: what is learned is not seen, and not weighed")
    if all(trial.new is not None and trial.new >= 0 for trial in measured):
        remarks.append("no rate improved on the new text: the runs are too short (--tokens)")
    rising = ", ".join(f"{trial.rate:.3g}" for trial in measured if trial.old_is_rising)
    if rising:
        remarks.append(
            f"old loss was still rising at the end of the run at {rising}: a longer run (--tokens) "
            "would show whether it comes back"
        )
    return remarks


def _three_digits(rate: float) -> float:
    return float(f"{rate:.3g}")
