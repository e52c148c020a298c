"""Expectations that hold up to a margin: equal within it, no higher or no lower than by it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, get_args

from rewarm.records.comparison import Direction

__all__ = ["claimed_range", "expected_words", "margin_problem", "num_ends"]


class _Margin(NamedTuple):
    low: float
    """End of the claimed range, in margins."""
    high: float
    words: str
    why: str
    """Why there must be a margin."""
    fix: str


_MARGINS: dict[str, _Margin] = {
    "equal": _Margin(
        -1.0,
        1.0,
        "equal within ±{}",
        "nothing is equal to the last digit",
        "say which difference still counts as equal",
    ),
    "not_higher": _Margin(
        -math.inf,
        1.0,
        "not higher by more than {}",
        "no number of seeds shows that something is not higher at all",
        "say by how much it may be higher and still count as not higher",
    ),
    "not_lower": _Margin(
        -1.0,
        math.inf,
        "not lower by more than {}",
        "no number of seeds shows that something is not lower at all",
        "say by how much it may be lower and still count as not lower",
    ),
}


def claimed_range(expect: Direction | None, within: float | None) -> tuple[float, float] | None:
    """Return the ends between which a difference is claimed to lie, infinite where none is named.

    None for expectations without a margin, whatever `within` is: it is a metric's, and may be of
    its other contrasts.
    """
    margin = _MARGINS.get(expect or "")
    if margin is None:
        return None
    assert within is not None
    return margin.low * within, margin.high * within


def num_ends(expect: Direction | None) -> int:
    """Return how many ends the claimed range has: 0 for expectations without a margin."""
    margin = _MARGINS.get(expect or "")
    return 0 if margin is None else sum(map(math.isfinite, (margin.low, margin.high)))


def expected_words(expect: Direction | None, within: str) -> str:
    """Return an expectation as people say it, with its margin as written; empty for none."""
    margin = _MARGINS.get(expect or "")
    return (expect or "") if margin is None else margin.words.format(within)


def margin_problem(expectations: Sequence[object], *, given: bool) -> tuple[str, str] | None:
    """Return (what is wrong, what to do) of a `within` that is given or not, None where it is well.

    Whether one that is given has a meaning is told only where each expectation is a known one.
    """
    needed = next((_MARGINS[name] for name in _MARGINS if name in expectations), None)
    if needed is not None:
        return None if given else (f"is missing: {needed.why}", f"{needed.fix}, e.g. within = 0.02")
    if not given or not all(expect in get_args(Direction) for expect in expectations):
        return None
    shown = ", ".join(f'"{name}"' for name in _MARGINS)
    return (
        f"it has no meaning with expect = {expectations[0]!r}",
        f"leave it out, or expect one of: {shown}",
    )
