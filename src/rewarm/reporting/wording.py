"""The verdict of a run in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rewarm.evaluation.forgetting import NEW_ROLES, OLD_ROLES, DomainVerdict
from rewarm.records.facts import LOSS_METRICS, SHARE_METRICS
from rewarm.reporting import numbers
from rewarm.reporting.tables import Mood

__all__ = ["ONE_SEED", "Statement", "joined", "mood_of", "statements", "written_change"]

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


def _phrase(verdict: DomainVerdict) -> str:
    unit = " bits per byte" if verdict.metric in LOSS_METRICS else ""
    first, last = _value(verdict, verdict.first), _value(verdict, verdict.last)
    what = " answers" if verdict.metric == "answer_bits_per_byte" else ""
    return f"{verdict.domain}{what}: {first} → {last}{unit} ({written_change(verdict)})"


def _value(verdict: DomainVerdict, value: float) -> str:
    return numbers.share(value) if verdict.metric in SHARE_METRICS else numbers.plain(value)


def written_change(verdict: DomainVerdict) -> str:
    """Return a verdict's change in its unit: −0.417, or +1.5 points of accuracy."""
    if verdict.metric not in SHARE_METRICS:
        return numbers.signed(verdict.delta)
    return f"{numbers.signed(100 * verdict.delta, 1)} points"


def joined(phrases: Sequence[str]) -> str:
    """Return the phrases as an enumeration: a; b; and 3 more."""
    named = list(phrases[:_MOST_NAMED])
    if len(phrases) > len(named):
        named.append(f"and {len(phrases) - len(named)} more")
    return "; ".join(named)
