"""Student's t, central and noncentral, by one integral.

With S the root of a χ² over its n degrees of freedom, T = (Z + δ)/S and so

    P(T ≤ t) = ∫₀^∞ Φ(t s − δ) f(s) ds,    f(s) = 2 (n/2)^(n/2) / Γ(n/2) · s^(n−1) exp(−n s²/2)

The integrand is smooth and positive, so Gauss-Legendre panels give it to 1e-12, small tails
included. Panels shrink towards 0, where Φ(t s) turns for large t. scipy is the tests' oracle and no
dependency: it is larger than everything else here together.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "detectable_in_errors",
    "margin_in_errors",
    "noncentral_t_cdf",
    "t_quantile",
    "two_sided_p",
]

Floats = NDArray[np.float64]

_NODES_PER_PANEL = 16
_LEAST_PANEL = 1e-9


def noncentral_t_cdf(t: float, degrees: int, shift: float = 0.0) -> float:
    """Return P(T ≤ t) for n degrees of freedom and noncentrality δ (`shift`).

    Raises ValueError for fewer degrees than 1.
    """
    nodes, weights = _density(degrees)
    return float(weights @ _normal_cdf(t * nodes - shift))


def two_sided_p(t: float, degrees: int) -> float:
    """Return P(|T| ≥ |t|) of the central t."""
    return min(1.0, 2.0 * noncentral_t_cdf(-abs(t), degrees))


@functools.lru_cache(maxsize=256)
def t_quantile(probability: float, degrees: int) -> float:
    """Return t with P(T ≤ t) = probability, which lies strictly between 0 and 1."""
    if not 0.0 < probability < 1.0:
        raise ValueError(f"no quantile for probability {probability}")
    if probability < 0.5:
        return -t_quantile(1.0 - probability, degrees)
    return _root(lambda t: noncentral_t_cdf(-t, degrees) - (1.0 - probability))


@functools.lru_cache(maxsize=256)
def detectable_in_errors(num_pairs: int, *, level: float = 0.05, power: float = 0.8) -> float:
    """Return the smallest effect, in standard errors of the mean, that a two-sided paired t test
    at this level finds with this power.

    It is the δ with P(|T| ≥ t*) = power, t* being the test's own quantile. 3 pairs give 5.7 at
    80 %, 5 give 3.8. Raises ValueError for fewer than 2 pairs.
    """
    if num_pairs < 2:
        raise ValueError(f"{num_pairs} pair(s) have no t test")
    degrees = num_pairs - 1
    threshold = t_quantile(1.0 - level / 2.0, degrees)

    def lacking(shift: float) -> float:
        below = noncentral_t_cdf(threshold, degrees, shift)
        return below - noncentral_t_cdf(-threshold, degrees, shift) - (1.0 - power)

    return _root(lacking)


@functools.lru_cache(maxsize=256)
def margin_in_errors(
    num_pairs: int, *, num_ends: int, level: float = 0.05, power: float = 0.8
) -> float:
    """Return the smallest margin, in standard errors of the mean, within which one-sided paired t
    tests at this level find a mean that is 0, with this power.

    With one end (not higher, not lower) it is the δ with P(T ≥ t*) = power. With two (equivalence)
    both tests have to find it with the same S: |Z| ≤ δ − t* S, which no S above δ/t* leaves room
    for. 3 pairs give 4.0 and 4.6 at 80 %, 5 give 3.0 and 3.6. Raises ValueError for fewer than 2
    pairs, and for other ends than 1 or 2.
    """
    if num_pairs < 2:
        raise ValueError(f"{num_pairs} pair(s) have no t test")
    if num_ends not in (1, 2):
        raise ValueError(f"a margin with {num_ends} end(s)")
    degrees = num_pairs - 1
    threshold = t_quantile(1.0 - level, degrees)

    def missed_by_one(shift: float) -> float:
        return noncentral_t_cdf(threshold, degrees, shift) - (1.0 - power)

    def missed_by_two(shift: float) -> float:
        return power - _both_find(threshold, degrees, shift)

    return _root(missed_by_one if num_ends == 1 else missed_by_two)


def _both_find(threshold: float, degrees: int, shift: float) -> float:
    """Return P(|Z| ≤ δ − t* S) for a threshold t* above 0."""
    if shift <= 0.0:
        return 0.0
    # Up to where the integrand ends in a kink, which panels across it would blur.
    nodes, weights = _density_to(degrees, shift / threshold)
    return float(weights @ (2.0 * _normal_cdf(shift - threshold * nodes) - 1.0))


def _root(falling: Callable[[float], float]) -> float:
    """Return where a function that falls from a positive value at 0 is 0, to 1e-13 of it."""
    high = 1.0
    while falling(high) > 0.0:
        high *= 2.0
    low = 0.0
    while high - low > 1e-13 * high:
        middle = (low + high) / 2.0
        if falling(middle) > 0.0:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


@functools.lru_cache(maxsize=32)
def _density(degrees: int) -> tuple[Floats, Floats]:
    """Return nodes s and their weights times f(s)."""
    if degrees < 1:
        raise ValueError(f"{degrees} degrees of freedom")
    return _density_to(degrees, math.inf)


def _density_to(degrees: int, last: float) -> tuple[Floats, Floats]:
    """Return nodes s up to a last one, and their weights times f(s)."""
    edges = _panel_edges(degrees)
    if last < edges[-1]:
        edges = np.append(edges[edges < last], last)
    unit, unit_weights = np.polynomial.legendre.leggauss(_NODES_PER_PANEL)
    half = np.diff(edges)[:, None] / 2.0
    nodes = (edges[:-1, None] + half + half * unit).ravel()
    log_scale = math.log(2.0) + degrees / 2 * math.log(degrees / 2) - math.lgamma(degrees / 2)
    log_density = log_scale + (degrees - 1) * np.log(nodes) - degrees / 2 * nodes**2
    return nodes, (half * unit_weights).ravel() * np.exp(log_density)


def _panel_edges(degrees: int) -> Floats:
    """Return edges that double from almost 0, then steps of a fraction of the density's width."""
    step = min(0.1, 0.25 / math.sqrt(2.0 * degrees))
    doubling = _LEAST_PANEL * 2.0 ** np.arange(math.ceil(math.log2(step / _LEAST_PANEL)))
    last = 1.0 + 9.0 / math.sqrt(degrees)
    even = np.arange(doubling[-1] + step, last + step, step)
    return np.concatenate([[0.0], doubling, even])


def _normal_cdf(values: Floats) -> Floats:
    scaled = (-values / math.sqrt(2.0)).tolist()
    return np.array([0.5 * math.erfc(value) for value in scaled])
