"""What paired seeds say: differences within a seed, their interval, and tests of them.

Of n seeds with differences d_i (arm − the arm it is held against, same seed):

    mean d̄, standard error SE = sd/√n, 95 % interval d̄ ± t(0.975; n − 1) SE

Unlike the intervals of `evaluation.statistics` this is about *training*: how the difference would
come out with other seeds. One seed has no interval of this kind.

Differences that are one number in each seed have no spread to measure an error with: shares of few
examples agree by chance, and arms may be the same to the last bit. Of those the signs alone are
tested, which takes nothing of the spread for granted: with n seeds on one side of a point the
chance is 2⁻ⁿ at most, were the median beyond it. Three seeds resolve nothing by that, five a
margin (0.03), six a difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rewarm.comparison.student import (
    detectable_in_errors,
    margin_in_errors,
    noncentral_t_cdf,
    t_quantile,
    two_sided_p,
)

__all__ = [
    "CONFIDENCE",
    "LEVEL",
    "POWER",
    "PairedMean",
    "holm",
    "inside_p",
    "interval_at",
    "paired_mean",
    "smallest_detectable",
]

CONFIDENCE = 0.95
LEVEL = 0.05
POWER = 0.8


_ROUNDING = 1e-12
"""Of the values: an sd below is one of rounding. Means and differences are exact to some 1e-15."""


class PairedMean(NamedTuple):
    """Mean of paired differences; spread, interval and test are None for a single pair."""

    mean: float
    sd: float | None
    """0.0 where there is none beyond rounding."""
    low: float | None
    """None, as `high`, where there are no two pairs, or too few without any spread."""
    high: float | None
    p: float | None
    """Of the two-sided t test that the mean is 0; without spread that of signs."""


def _has_no_spread(differences: Sequence[float], scale: float = 0.0) -> bool:
    """Tell whether two or more differences are one number up to rounding."""
    largest = max(scale, *map(abs, differences))
    return float(np.std(differences, ddof=1)) <= _ROUNDING * largest


def paired_mean(differences: Sequence[float], scale: float = 0.0) -> PairedMean:
    """Return the mean with its 95 % t interval and test; ValueError without a difference.

    `scale` is the largest of the values that the differences were taken of, whose rounding they
    bear.
    """
    if not differences:
        raise ValueError("no pair to compare")
    mean, count = float(np.mean(differences)), len(differences)
    if count == 1:
        return PairedMean(mean, None, None, None, None)
    low, high = interval_at(differences, CONFIDENCE, scale)
    if _has_no_spread(differences, scale):
        is_zero = abs(mean) <= _ROUNDING * scale
        p = 1.0 if is_zero else 2.0 * 0.5**count
        is_told = math.isfinite(low)
        return PairedMean(mean, 0.0, low if is_told else None, high if is_told else None, p)
    sd = float(np.std(differences, ddof=1))
    return PairedMean(mean, sd, low, high, two_sided_p(mean / (sd / math.sqrt(count)), count - 1))


def interval_at(
    differences: Sequence[float], confidence: float, scale: float = 0.0
) -> tuple[float, float]:
    """Return the t interval of two or more differences.

    Without spread it is that of signs: the one number where n seeds are enough for this confidence
    (2 · 2⁻ⁿ is left), else anything.
    """
    count = len(differences)
    mean = float(np.mean(differences))
    if _has_no_spread(differences, scale):
        is_enough = 2.0 * 0.5**count <= 1.0 - confidence
        return (mean, mean) if is_enough else (-math.inf, math.inf)
    error = float(np.std(differences, ddof=1)) / math.sqrt(count)
    reach = t_quantile((1.0 + confidence) / 2.0, count - 1) * error
    return mean - reach, mean + reach


def inside_p(
    differences: Sequence[float], lowest: float, highest: float, scale: float = 0.0
) -> float:
    """Return the p of one-sided t tests that the mean lies strictly between two ends.

    With both of them finite these are the two of equivalence: at most α just where the 1 − 2α
    interval lies inside (Schuirmann 1987). An infinite end is no test, and what is left is that of
    non-inferiority. For two or more differences; without spread the tests are those of signs.
    """
    count = len(differences)
    mean = float(np.mean(differences))
    if _has_no_spread(differences, scale):
        return 0.5**count if lowest < mean < highest else 1.0
    error = float(np.std(differences, ddof=1)) / math.sqrt(count)
    above = noncentral_t_cdf((lowest - mean) / error, count - 1)
    below = noncentral_t_cdf((mean - highest) / error, count - 1)
    return max(above, below)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for all being tested (Holm 1979), in the order given.

    In ascending order the k-th of m (from 0) is multiplied by m − k, never below the one before it
    and never above 1. Rejecting where they are at most α keeps the chance of any false rejection at
    α, whatever depends on what.
    """
    adjusted = [0.0] * len(p_values)
    least = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def smallest_detectable(
    sd: float, num_pairs: int, *, level: float = LEVEL, num_ends: int = 0
) -> float:
    """Return what so many pairs find at this level with 80 % power, were their spread what was
    seen here.

    That is the smallest difference; of a claim with a margin, which has one or two ends
    (`num_ends`), the smallest margin within which a difference of 0 is found to lie.
    """
    if num_ends:
        errors = margin_in_errors(num_pairs, num_ends=num_ends, level=level, power=POWER)
    else:
        errors = detectable_in_errors(num_pairs, level=level, power=POWER)
    return errors * sd / math.sqrt(num_pairs)
