"""Histograms of what documents are like, in bins that fit what is counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Histogram", "histogram_of_counts", "histogram_of_values"]

_MOST_BINS = 24
_TAIL = 0.005
# From here on values are told by their ratios rather than by their differences.
_WIDE_RATIO = 30.0

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many documents have which value.

    Bin i holds values from `edges[i]` up to, not with, `edges[i + 1]`; the outermost two also hold
    what lies beyond (`num_below`, `num_above` of it). `kept` counts those of a bin that a selection
    keeps, and `cut_at` is the value at which it was cut; both are None without one. `shares` are
    the bins' shares of all tokens.
    """

    what: str
    unit: str
    is_log: bool
    are_whole: bool
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    shares: tuple[float, ...]
    median: float | None
    num_below: int = 0
    num_above: int = 0
    num_without: int = 0
    kept: tuple[int, ...] | None = None
    cut_at: float | None = None


def histogram_of_counts(what: str, unit: str, values: Integers, num_tokens: Integers) -> Histogram:
    """Return the histogram of whole numbers from 0 on, in bins that grow by the root of two, or by
    two where they would be too many; both arrays are [documents]."""
    largest = int(values.max()) if values.size else 1
    smallest = max(1, int(values.min())) if values.size else 1
    low = int(np.floor(2 * np.log2(smallest)))
    high = int(np.floor(2 * np.log2(largest))) + 1 if largest else 1
    step = 1 if high - low <= _MOST_BINS else 2
    powers = np.arange(low - low % step, high + step, step)
    edges = np.unique(np.ceil(2 ** (powers / 2)).astype(np.int64))
    if values.size and values.min() < edges[0]:
        edges = np.insert(edges, 0, 0)
    if len(edges) < 2:
        edges = np.array([edges[0], edges[0] + 1])
    return _filled(what, unit, values, num_tokens, edges.astype(np.float64), True, True)


def histogram_of_values(
    what: str,
    unit: str,
    values: Floats,
    num_tokens: Integers,
    *,
    kept: NDArray[np.bool_] | None = None,
    cut_at: float | None = None,
) -> Histogram:
    """Return the histogram of numbers (NaN: none), all arrays [documents].

    Half a per cent at either end goes into the outermost bins, so that a few strange documents do
    not squeeze all others into one; bins are even, or even in ratio where positive values span more
    than a factor of 30.
    """
    known = values[np.isfinite(values)]
    if not known.size:
        edges, is_log = np.array([0.0, 1.0]), False
    else:
        low, high = (float(q) for q in np.quantile(known, [_TAIL, 1 - _TAIL]))
        if cut_at is not None:
            low, high = min(low, cut_at), max(high, cut_at)
        is_log = low > 0 and high > _WIDE_RATIO * low
        if not high > low:
            pad = abs(low) / 100 or 0.5
            low, high = low - pad, high + pad
        edges = (
            np.geomspace(low, high, _MOST_BINS + 1)
            if is_log
            else np.linspace(low, high, _MOST_BINS + 1)
        )
    return _filled(what, unit, values, num_tokens, edges, is_log, False, kept, cut_at)


def _filled(
    what: str,
    unit: str,
    values: NDArray[np.number],
    num_tokens: Integers,
    edges: Floats,
    is_log: bool,
    are_whole: bool,
    kept: NDArray[np.bool_] | None = None,
    cut_at: float | None = None,
) -> Histogram:
    is_known = np.isfinite(values)
    known = values[is_known]
    num_bins = len(edges) - 1
    place = np.clip(np.searchsorted(edges, known, side="right") - 1, 0, num_bins - 1)
    tokens = np.bincount(place, weights=num_tokens[is_known], minlength=num_bins)
    whole = max(float(num_tokens.sum()), 1.0)
    of_kept = None
    if kept is not None:
        of_kept = tuple(np.bincount(place[kept[is_known]], minlength=num_bins).tolist())
    return Histogram(
        what=what,
        unit=unit,
        is_log=is_log,
        are_whole=are_whole,
        edges=tuple(edges.tolist()),
        counts=tuple(np.bincount(place, minlength=num_bins).tolist()),
        shares=tuple((tokens / whole).tolist()),
        median=float(np.median(known)) if known.size else None,
        num_below=int((known < edges[0]).sum()),
        num_above=int((known > edges[-1]).sum()),
        num_without=int((~is_known).sum()),
        kept=of_kept,
        cut_at=cut_at,
    )
