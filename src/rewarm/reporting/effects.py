"""Paired effects as tables and pages write them."""

from __future__ import annotations

from collections.abc import Iterator

from rewarm.records.comparison import ComparisonResult, Direction, PairedEffect, Registration
from rewarm.records.margins import expected_words
from rewarm.reporting import numbers
from rewarm.reporting.figures import Estimate
from rewarm.reporting.tables import Mood
from rewarm.reporting.wording import Statement
from rewarm.units import format_bytes

__all__ = [
    "arm_estimate",
    "detectable_of",
    "effect_value",
    "expectation",
    "interval_of",
    "mood_of_effect",
    "p_value",
    "peak_memory",
    "per_seed",
    "stated",
    "verdict_statement",
    "written",
    "written_down",
]

_ENDS = {"equal": "±", "not_higher": "+", "not_lower": "\N{MINUS SIGN}"}
_MOODS: dict[str, Mood] = {"as expected": "good", "against expectation": "bad"}


def written(value: float | None, unit: str, *, sign: bool = False) -> str:
    """Return a value in its unit: bits per byte to three decimals, seconds to one, shares in %."""
    if value is None:
        return numbers.MISSING
    form = numbers.signed if sign else numbers.plain
    if unit == "share right":
        return f"{form(100 * value, 1)} %" if not sign else f"{form(100 * value, 1)} points"
    decimals = 1 if unit == "s" else 3 if abs(value) >= 0.01 or value == 0 else 4
    return form(value, decimals)


def effect_value(effect: PairedEffect) -> str:
    """Return the mean difference with its sign."""
    return written(effect.mean, effect.unit, sign=True)


def interval_of(effect: PairedEffect) -> str:
    """Return the 95 % interval over seeds; of one seed that over documents, said so.

    Of a few seeds that are all the same: that there is no spread.
    """
    low, high, of = effect.low, effect.high, ""
    if low is None and effect.sd == 0.0:
        return "no spread"
    if low is None or high is None:
        low, high, of = effect.document_low, effect.document_high, " (documents)"
    if low is None or high is None:
        return numbers.MISSING
    ends = (written(end, effect.unit, sign=True) for end in (low, high))
    return numbers.interval(*ends) + of


def per_seed(effect: PairedEffect) -> str:
    """Return every seed's difference in order of the seeds."""
    shown = (written(difference, effect.unit, sign=True) for difference in effect.differences)
    return ", ".join(shown) or numbers.MISSING


def p_value(p: float | None) -> str:
    """Return a p-value to two digits."""
    if p is None:
        return numbers.MISSING
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def detectable_of(effect: PairedEffect, value: float | None) -> str:
    """Return what could have been found: a difference, or a margin with the sign of its ends."""
    sign = _ENDS.get(effect.expect or "", "") if value is not None else ""
    return sign + written(value, effect.unit)


def mood_of_effect(effect: PairedEffect) -> Mood:
    """Return the colour of what came of an expectation."""
    return _MOODS.get(effect.word, "open" if effect.word else "")


def verdict_statement(verdict: str) -> Statement:
    """Return a comparison's verdict as the sentence that stands under a title."""
    verb, _, rest = verdict.partition(":")
    mood = _MOODS.get(verb.lower(), "open")
    return Statement(mood, f"{verb}:", f"{rest.strip()}.")


def expectation(expect: Direction | None, within: float | None) -> str:
    """Return what was expected of a difference; empty where nothing was."""
    return expected_words(expect, f"{within or 0.0:g}")


def written_down(known: Registration) -> str:
    """Return when and as what file the claims were written down."""
    when = f", {_before_or_after(known)}" if _before_or_after(known) else ""
    first = f"{known.file_name}, SHA-256 {known.file_sha256[:12]}, {known.time}{when}"
    return "; ".join([first, *_again(known)])


def stated(known: Registration | None) -> str:
    """Return what stands before a hypothesis: that it was stated beforehand, where it was.

    Of tables of published results, which have a line for it; `written_down` is of pages.
    """
    if known is None or (known.before_runs and not known.again):
        return "Stated beforehand"
    first = " ".join(["First stated", _minute(known.time), _before_or_after(known)]).strip()
    return "; ".join([first, *_again(known)])


def _before_or_after(known: Registration) -> str:
    """Return when the claims of now were stated; empty where some were others at first."""
    if known.before_runs:
        return "before the first run"
    return "" if any(one.changed for one in known.again) else "AFTER runs had begun"


def _again(known: Registration) -> Iterator[str]:
    for one in known.again:
        what = f"other claims ({', '.join(one.changed)})" if one.changed else "the same claims"
        yield (
            f"registered again {_minute(one.time)} with {what}, when {one.num_runs} earlier runs "
            "were known"
        )


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")


def arm_estimate(result: ComparisonResult, arm: str, metric: str) -> Estimate | None:
    """Return an arm's mean over its seeds; None where no seed has the metric."""
    values = [r.values[metric] for r in result.runs_of(arm) if metric in r.values]
    return Estimate(sum(values) / len(values)) if values else None


def peak_memory(result: ComparisonResult, arm: str) -> str:
    """Return what an arm's steps took of memory, the mean over its seeds; empty where it was not
    measured.
    """
    found = arm_estimate(result, arm, "peak_mib")
    return "" if found is None else format_bytes(found.value * 2**20)
