"""Tokens, bytes, steps, nats and bits, and the only conversions between them."""

from __future__ import annotations

import math
import re
from decimal import Decimal

__all__ = [
    "counted",
    "format_bytes",
    "format_count",
    "format_duration",
    "nats_to_bits_per_byte",
    "parse_count",
    "steps_for_tokens",
]

# Arithmetic on counts is done in 64 bits.
_LARGEST_COUNT = 10**18
_LONGEST_COUNT = 100
_SUFFIX = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_COUNT = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?)\s*([kmbt]?)", re.IGNORECASE)


def parse_count(value: int | str) -> int:
    """Return the whole number that `300_000_000`, `"300M"`, `"0.3B"` or `"2T"` stands for.

    Suffixes are decimal (k, M, B, T = 10^3, 10^6, 10^9, 10^12). Raises ValueError for anything
    else, for a number that is not whole and for one that is not positive: nothing is rounded.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{value!r} is not a count; write e.g. 300M or 300_000_000")
    if isinstance(value, int):
        count = Decimal(value)
    elif len(value) > _LONGEST_COUNT:
        raise ValueError(f"{value[:40]!r}… is not a count; write e.g. 300M, 2B or 1_000_000")
    else:
        match = _COUNT.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{value!r} is not a count; write e.g. 300M, 2B or 1_000_000")
        count = Decimal(match[1].replace("_", "")) * _SUFFIX[match[2].lower()]
    if count != count.to_integral_value():
        raise ValueError(f"{value!r} is not a whole number")
    if count <= 0:
        raise ValueError(f"{value!r} is not a positive number")
    if count > _LARGEST_COUNT:
        raise ValueError(f"{str(value)[:40]!r} is above 10^18: nobody has counted so far")
    return int(count)


def format_count(count: float) -> str:
    """Return a short reading of a count: 999, 1.50k, 300M, 2.00B."""
    for suffix, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(count) >= size:
            return f"{_three_digits(count / size)}{suffix}"
    return _three_digits(count) if count != int(count) else str(int(count))


def counted(number: int, what: str) -> str:
    """Return `1 step`, `1,000 steps`."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def format_bytes(num_bytes: float) -> str:
    """Return a short reading of a size in binary units: 512 B, 1.5 GiB."""
    for suffix, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(num_bytes) >= size:
            return f"{_three_digits(num_bytes / size)} {suffix}"
    return f"{int(num_bytes)} B"


def _three_digits(value: float) -> str:
    """Return about three significant digits, never an exponent and no trailing zeros."""
    decimals = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def format_duration(seconds: float) -> str:
    """Return a short reading of a duration: 12 s, 3 min 05 s, 7 h 02 min, 3 d 04 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02d} h"


def nats_to_bits_per_byte(nats: float, num_bytes: int) -> float:
    """Return bits per byte, nats / (ln 2 · bytes): comparable between tokenizers.

    `num_bytes` counts the UTF-8 bytes of exactly the text whose tokens were scored.
    """
    if num_bytes <= 0:
        raise ValueError(f"bits per byte of {num_bytes} bytes is not defined")
    return nats / (math.log(2.0) * num_bytes)


def steps_for_tokens(tokens: int, tokens_per_step: int) -> int:
    """Return the whole optimizer steps that a token budget pays for (never more than it)."""
    return tokens // tokens_per_step
