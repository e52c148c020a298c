"""Numbers as people read them: a real minus sign, a sign on changes, no spurious digits."""

from __future__ import annotations

from rewarm.units import format_bytes, format_count, format_duration

__all__ = [
    "MISSING",
    "brief",
    "count",
    "decimals_of_gap",
    "in_unit",
    "interval",
    "plain",
    "rate",
    "share",
    "signed",
]

MISSING = "–"
_NO_BREAK = "\N{NO-BREAK SPACE}"
_MINUS = "\N{MINUS SIGN}"
_LONG = 10_000


def plain(value: float | None, decimals: int = 3) -> str:
    """Return a fixed-point number: −0.520; a dash for None."""
    if value is None:
        return MISSING
    text = f"{value:,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", _MINUS)


def brief(value: float | None) -> str:
    """Return a number of any size: 46.843, 7.94e9; a dash for None."""
    if value is None or abs(value) < _LONG:
        return plain(value)
    return ("" if value > 0 else _MINUS) + rate(abs(value))


def signed(value: float | None, decimals: int = 3) -> str:
    """Return a change with its sign: +0.031, −0.520; what rounds to zero has none."""
    text = plain(value, decimals)
    if value is None or value <= 0 or float(text.replace(",", "")) == 0:
        return text
    return f"+{text}"


def rate(value: float | None) -> str:
    """Return a learning rate or another small positive number to three digits: 4.5e-5, 0.012."""
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.2e}".split("e")
    if -3 < int(exponent) < 4:
        return f"{value:.3g}"
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def interval(low: str, high: str) -> str:
    """Return two written ends as an interval that does not break over lines."""
    return f"{low}{_NO_BREAK}to{_NO_BREAK}{high}"


def share(value: float | None, decimals: int = 1) -> str:
    """Return a fraction of 1 in per cent: 12.5 %."""
    return MISSING if value is None else f"{plain(100 * value, decimals)} %"


def count(value: int | None) -> str:
    """Return a whole number with separators: 1,234,567."""
    return MISSING if value is None else f"{value:,}"


def in_unit(value: float, unit: str) -> str:
    """Return a quantity as people read its unit: 3 min 05 s, 1.5 GiB, 2e15 FLOP, 1.2M."""
    if unit == "s":
        return format_duration(value)
    if unit == "byte":
        return format_bytes(value)
    if unit == "FLOP":
        return f"{rate(value)} FLOP"
    return f"{format_count(value)} {unit}".strip()


def decimals_of_gap(gap: float) -> int:
    """Return how many decimals tell two values `gap` apart: 0.05 needs 2, 20 needs none."""
    for decimals in range(10):
        if abs(gap * 10**decimals - round(gap * 10**decimals)) < 1e-6:
            return decimals
    return 10
