"""Draws of documents by the hashes of their texts: neither files' nor documents' order decides."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["drawing_order", "spread"]

Integers = NDArray[np.int64]
Hashes = NDArray[np.uint64]


def spread(hashes: Hashes) -> Hashes:
    """Return hashes whose order says nothing of the hashes' own, which decided the split."""
    mixed = hashes * np.uint64(0x9E3779B97F4A7C15)
    return mixed ^ (mixed >> np.uint64(29))


def drawing_order(hashes: Hashes) -> Integers:
    """Return the places of documents in the order in which they are drawn; copies go by place."""
    return np.argsort(spread(hashes), kind="stable")
