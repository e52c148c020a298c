"""Standard errors and paired intervals of the figures that an evaluation reports.

Every figure is a ratio Σ values / Σ weights over items (nats over bytes of documents; successes
over questions, with weights 1). Items are what is drawn at random from a domain, so they are what
is resampled: the tokens of one document are not independent of each other. All of this measures
*evaluation noise*: how the figure of these very weights would move on other items of the same
domain. It says nothing of how another training run would have ended.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Interval",
    "bootstrap_ratios",
    "least_items",
    "most_changed",
    "paired_bootstrap",
    "paired_standard_error",
    "proportion_standard_error",
    "ratio",
    "ratio_standard_error",
]

Floats = NDArray[np.float64]

_MAX_DRAWS_PER_CHUNK = 2_000_000  # item numbers held at once, 16 MB; their items as much again


class Interval(NamedTuple):
    """A confidence interval [low, high] around an estimate, in the estimate's unit."""

    low: float
    high: float
    estimate: float


def ratio(values: ArrayLike, weights: ArrayLike) -> float:
    """Return Σ values / Σ weights; ValueError unless all weights are positive."""
    v, w = _items(values, weights)
    return float(v.sum() / w.sum())


def ratio_standard_error(values: ArrayLike, weights: ArrayLike) -> float | None:
    """Return the standard error of R = Σ v / Σ w, None for a single item (one tells no spread).

    Linearised ratio estimator: with residuals e_i = v_i − R w_i,

        SE = √( n/(n − 1) · Σ e_i² ) / Σ w

    (Cochran, Sampling Techniques, 3rd ed., eq. 6.13 without the finite-population factor; the
    delete-one jackknife agrees to first order). With weights 1 it is the standard error of a mean.
    """
    v, w = _items(values, weights)
    if len(v) < 2:
        return None
    residuals = v - w * (v.sum() / w.sum())
    return math.sqrt(len(v) / (len(v) - 1) * float(residuals @ residuals)) / float(w.sum())


def paired_standard_error(values_a: ArrayLike, values_b: ArrayLike, weights: ArrayLike) -> float:
    """Return the standard error of Σ a / Σ w − Σ b / Σ w over the same two or more items.

    `ratio_standard_error` of the differences item by item. Raises ValueError for a single item.
    """
    a, w = _items(values_a, weights)
    b, _ = _items(values_b, weights)
    error = ratio_standard_error(a - b, w)
    if error is None:
        raise ValueError("a single item tells no spread")
    return error


def proportion_standard_error(proportion: float, num_items: int) -> float:
    """Return √(p(1 − p)/(n − 1)), what `ratio_standard_error` gives for n items of 0 or 1.

    Serves to say beforehand what n items can resolve: p = 0.5 and n = 1,000 give 0.016.
    """
    if not 0.0 <= proportion <= 1.0 or num_items < 2:
        raise ValueError(f"no standard error for a proportion {proportion} of {num_items} items")
    return math.sqrt(proportion * (1.0 - proportion) / (num_items - 1))


def least_items(confidence: float = 0.95) -> int:
    """Return the fewest items that can resolve a difference at this confidence.

    Where nothing changed, n paired differences all have one sign with probability 2^(1 − n), and a
    bootstrap of them never reaches across 0: n must be so large that 2^(1 − n) ≤ 1 − confidence.
    95 % needs 6 items.
    """
    return 1 + math.ceil(-math.log2(1.0 - confidence))


def most_changed(num_items: int, confidence: float = 0.95) -> float:
    """Return the largest share of a domain's items that can change, where none of n did.

    1 − (1 − confidence)^(1/n), about 3/n at 95 %: with a greater share, n items without any change
    are less likely than 1 − confidence. A bootstrap of n zeros has no width and claims more.
    """
    return 1.0 - float((1.0 - confidence) ** (1.0 / num_items))


def paired_bootstrap(
    values_a: ArrayLike,
    values_b: ArrayLike,
    weights: ArrayLike,
    *,
    seed: int,
    num_resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Return the interval of Σ a / Σ w − Σ b / Σ w over the same n items.

    Percentile bootstrap: each resample draws n items i with replacement and gives
    Σ (a_i − b_i) / Σ w_i; the ends are the (1 ∓ confidence)/2 quantiles. Pairing removes what makes
    an item hard for both. With 0/1 values and weights 1 this compares two accuracies on the same
    questions, as McNemar's test does; where none of them changed, `most_changed` is what n items
    can tell. The same seed gives the same interval.

    Few items make it too narrow, by about √((n − 1)/n) and for want of heavier tails; see
    `least_items` for where it stops meaning anything. Raises ValueError for unequal lengths and
    for weights that are not positive.
    """
    a, w = _items(values_a, weights)
    b, _ = _items(values_b, weights)
    if not 0.0 < confidence < 1.0 or num_resamples < 1:
        raise ValueError(f"cannot draw {num_resamples} resamples for confidence {confidence}")
    # The difference is taken item by item: equal items give exactly 0, not the rounding of a sum.
    difference = a - b
    resampled = np.concatenate(
        [
            difference[drawn].sum(axis=1) / w[drawn].sum(axis=1)
            for drawn in _resamples(len(w), num_resamples, seed)
        ]
    )
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(resampled, [tail, 1.0 - tail])
    return Interval(float(low), float(high), float(difference.sum() / w.sum()))


def bootstrap_ratios(
    values: ArrayLike, weights: ArrayLike, *, seed: int, num_resamples: int = 2000
) -> Floats:
    """Return Σ v / Σ w of k measurements of the same n items, [k, n] to [k, resamples].

    All k see the same resamples, so that anything computed from them compares like with like. The
    same seed gives the same ratios. Raises ValueError for shapes that do not fit and for weights
    that are not positive.
    """
    v = np.asarray(values, dtype=np.float64)
    if v.ndim != 2 or not len(v):
        raise ValueError(f"values {v.shape} must be a table of measurements by items")
    w = _items(v[0], weights)[1]
    return np.concatenate(
        [
            v[:, drawn].sum(axis=2) / w[drawn].sum(axis=1)
            for drawn in _resamples(len(w), num_resamples, seed)
        ],
        axis=1,
    )


def _resamples(num_items: int, num_resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield item numbers drawn with replacement, [resamples, items], in chunks of bounded size."""
    generator = np.random.default_rng(seed)
    rows_per_chunk = max(1, _MAX_DRAWS_PER_CHUNK // num_items)
    for start in range(0, num_resamples, rows_per_chunk):
        rows = min(rows_per_chunk, num_resamples - start)
        yield generator.integers(num_items, size=(rows, num_items))


def _items(values: ArrayLike, weights: ArrayLike) -> tuple[Floats, Floats]:
    """Return values and weights as float64 arrays that pair up."""
    v = np.asarray(values, dtype=np.float64)
    w = np.asarray(weights, dtype=np.float64)
    if v.ndim != 1 or v.shape != w.shape or not len(v):
        raise ValueError(f"values {v.shape} and weights {w.shape} must be equally long lists")
    if not (w > 0).all():
        raise ValueError("every item needs a positive weight")
    return v, w
