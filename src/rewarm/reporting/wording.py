"""The verdict of a run in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rewarm.evaluation.forgetting import NEW_ROLES, OLD_ROLES, DomainVerdict
from rewarm.records.facts import LOSS_METRICS, SHARE_METRICS, Metric
from rewarm.reporting import numbers
from rewarm.reporting.tables import Mood

__all__ = [
    "ONE_SEED",
    "Statement",
    "joined",
    "mood_of",
    "statements",
    "written_change",
    "written_ends",
    "written_value",
]

ONE_SEED = (
    "Intervals are evaluation noise of one seed: how the figures of these very weights would move "
    "on other documents of the same domains. They do not tell how a run with another seed would "
    "have ended."
)

_MOST_NAMED = 4


class Statement(NamedTuple):
    """A sentence that begins with the judgement: Learned, Forgot, Kept."""

    mood: Mood
    verb: str
    rest: str


_VERBS: tuple[tuple[str, str, Mood, str], ...] = (
    ("new", "improved", "good", "Learned"),
    ("new", "kept", "open", "Did not learn"),
    ("new", "forgotten", "bad", "Got worse on"),
    ("old", "forgotten", "bad", "Forgot"),
    ("old", "kept", "good", "Kept"),
    ("old", "improved", "good", "Improved"),
    ("task", "improved", "good", "Got better at"),
    ("task", "forgotten", "bad", "Got worse at"),
    ("task", "kept", "open", "Stayed as good at"),
    ("new", "not resolved", "open", "Cannot tell about"),
    ("old", "not resolved", "open", "Cannot tell about"),
    ("task", "not resolved", "open", "Cannot tell about"),
)


def _group(role: str) -> str:
    if role in OLD_ROLES:
        return "old"
    return "new" if role in NEW_ROLES else "task"


def mood_of(verdict: DomainVerdict) -> Mood:
    """Return whether a verdict is good news, bad news or neither, given the domain's role."""
    group = _group(verdict.role)
    return next(mood for g, word, mood, _ in _VERBS if (g, word) == (group, verdict.verdict))


def statements(verdicts: Sequence[DomainVerdict]) -> list[Statement]:
    """Return what was learned and what was forgotten, a sentence per verb.

    Held-out text and answers are told; other metrics only where neither was measured.
    """
    told = [verdict for verdict in verdicts if verdict.metric in LOSS_METRICS] or verdicts
    found: list[Statement] = []
    for group, word, mood, verb in _VERBS:
        mine = [v for v in told if (_group(v.role), v.verdict) == (group, word)]
        if mine:
            mine.sort(key=lambda v: -abs(v.delta))
            found.append(Statement(mood, verb, f"{joined([_phrase(v) for v in mine])}."))
    return found


_OF_ANSWERS: dict[Metric, str] = {
    "answer_bits_per_byte": " answers",
    "answer_contrast": " answers, own question less another's",
}


def _phrase(verdict: DomainVerdict) -> str:
    unit = " bits per byte" if verdict.metric in LOSS_METRICS else ""
    first = written_value(verdict.metric, verdict.first)
    last = written_value(verdict.metric, verdict.last)
    what = _OF_ANSWERS.get(verdict.metric, "")
    return f"{verdict.domain}{what}: {first} → {last}{unit} ({written_change(verdict)})"


def written_value(metric: Metric, value: float) -> str:
    """Return a metric's figure in its unit: 1.234, or 45.6 % of right answers."""
    return numbers.share(value) if metric in SHARE_METRICS else numbers.brief(value)


def written_change(verdict: DomainVerdict) -> str:
    """Return a verdict's change in its unit: −0.417, or +1.5 points of accuracy."""
    change = _signed(verdict.metric, verdict.delta)
    return f"{change} points" if verdict.metric in SHARE_METRICS else change


def written_ends(verdict: DomainVerdict) -> tuple[str, str] | None:
    """Return the ends of a change's interval in its unit; None where there is none."""
    if verdict.low is None or verdict.high is None:
        return None
    return _signed(verdict.metric, verdict.low), _signed(verdict.metric, verdict.high)


def _signed(metric: Metric, change: float) -> str:
    if metric in SHARE_METRICS:
        return numbers.signed(100 * change, 1)
    if abs(change) < 10_000:
        return numbers.signed(change)
    return ("+" if change > 0 else "") + numbers.brief(change)


def joined(phrases: Sequence[str]) -> str:
    """Return the phrases as an enumeration: a; b; and 3 more."""
    named = list(phrases[:_MOST_NAMED])
    if len(phrases) > len(named):
        named.append(f"and {len(phrases) - len(named)} more")
    return "; ".join(named)
