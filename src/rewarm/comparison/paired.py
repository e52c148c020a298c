"""What paired seeds say: differences within a seed, their interval, and tests of them.

Of n seeds with differences d_i (arm − the arm it is held against, same seed):

    mean d̄, standard error SE = sd/√n, 95 % interval d̄ ± t(0.975; n − 1) SE

Unlike the intervals of `evaluation.statistics` this is about *training*: how the difference would
come out with other seeds. One seed has no interval of this kind.
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


class PairedMean(NamedTuple):
    """Mean of paired differences; spread, interval and test are None for a single pair."""

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    p: float | None
    """Of the two-sided t test that the mean is 0."""


def paired_mean(differences: Sequence[float]) -> PairedMean:
    """Return the mean with its 95 % t interval and test; ValueError without a difference.

    Differences without any spread have the interval [mean, mean], and p = 1 where they are 0.
    """
    if not differences:
        raise ValueError("no pair to compare")
    mean = float(np.mean(differences))
    if len(differences) == 1:
        return PairedMean(mean, None, None, None, None)
    sd = float(np.std(differences, ddof=1))
    low, high = interval_at(differences, CONFIDENCE)
    return PairedMean(mean, sd, low, high, _p_of(mean, sd, len(differences)))


def _p_of(mean: float, sd: float, num_pairs: int) -> float:
    if sd == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    return two_sided_p(mean / (sd / math.sqrt(num_pairs)), num_pairs - 1)


def interval_at(differences: Sequence[float], confidence: float) -> tuple[float, float]:
    """Return the t interval of two or more differences."""
    count = len(differences)
    mean, error = float(np.mean(differences)), float(np.std(differences, ddof=1)) / math.sqrt(count)
    reach = t_quantile((1.0 + confidence) / 2.0, count - 1) * error
    return mean - reach, mean + reach


def inside_p(differences: Sequence[float], lowest: float, highest: float) -> float:
    """Return the p of one-sided t tests that the mean lies strictly between two ends.

    With both of them finite these are the two of equivalence: at most α just where the 1 − 2α
    interval lies inside (Schuirmann 1987). An infinite end is no test, and what is left is that of
    non-inferiority. For two or more differences.
    """
    count = len(differences)
    mean, sd = float(np.mean(differences)), float(np.std(differences, ddof=1))
    if sd == 0.0:
        return 0.0 if lowest < mean < highest else 1.0
    error = sd / math.sqrt(count)
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
