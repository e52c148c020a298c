"""Best-fit-decreasing packing of pieces into bins of one size, by counting.

Ding et al. 2024, "Fewer Truncations Improve Language Modeling" (arXiv 2404.10830): the longest
first, each into the fullest bin that still has room. Lengths are whole numbers of at most a window,
so pieces of one length are placed together and bins are kept by the room that they have left: one
number's bits say which rooms there are, and the smallest that is large enough is their lowest bit
from there on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["best_fit_decreasing"]

Integers = NDArray[np.int64]


def best_fit_decreasing(lengths: NDArray[np.integer], capacity: int) -> tuple[Integers, int]:
    """Return the bin of each piece, int64 [pieces], and how many bins there are.

    `lengths` lie in [1, capacity]. Bins are numbered by their first piece, in the pieces' order.
    Sorting apart, the work is one step for each length and each kind of bin that it meets: at most
    as many as there are pieces, and no more than capacity², however many those are.
    """
    none = np.empty(0, dtype=np.int64)
    if not len(lengths):
        return none, 0
    assert lengths.min() >= 1
    assert lengths.max() <= capacity
    # A stable sort of small integers is a radix sort: linear.
    keys = (capacity - lengths).astype(np.uint16 if capacity <= 2**16 else np.int64)
    order = np.argsort(keys, kind="stable")
    bins = _OpenBins(capacity)
    of_sorted = np.empty(len(lengths), dtype=np.int64)
    counts = np.bincount(lengths)
    placed = 0
    for length in np.flatnonzero(counts)[::-1].tolist():
        number = int(counts[length])
        bins.place(length, of_sorted[placed : placed + number])
        placed += number
    bin_of = np.empty(len(lengths), dtype=np.int64)
    bin_of[order] = of_sorted
    return _by_first_piece(bin_of, bins.number), bins.number


class _OpenBins:
    """Bins by the room that they have left."""

    def __init__(self, capacity: int) -> None:
        self.number = 0
        self._capacity = capacity
        self._by_room: list[list[Integers]] = [[] for _ in range(capacity + 1)]
        self._rooms = 0  # bit r is set where some bin has room r left

    def place(self, length: int, bin_of: Integers) -> None:
        """Write into `bin_of` the bins of so many pieces of one length.

        A bin that took one piece of a length fits the next one of it better than any other bin
        that it was chosen over, so bins are filled one after the other, as far as they go.
        """
        left = len(bin_of)
        while left:
            room, found = self._tightest(length, left)
            in_each = room // length
            used = found[: -(-left // in_each)]
            self._put(room, found[len(used) :])
            taken = min(left, len(used) * in_each)
            start = len(bin_of) - left
            bin_of[start : start + taken] = np.repeat(used, in_each)[:taken]
            full, rest = divmod(taken, in_each)
            self._put(room - in_each * length, used[:full])
            if rest:
                self._put(room - rest * length, used[full:])
            left -= taken

    def _tightest(self, length: int, number: int) -> tuple[int, Integers]:
        """Return the smallest room that a piece fits into, and bins that have it, taken out; new
        ones where none has."""
        fitting = self._rooms >> length
        if not fitting:
            count = -(-number // (self._capacity // length))
            self.number += count
            return self._capacity, np.arange(self.number - count, self.number)
        room = length + (fitting & -fitting).bit_length() - 1
        found = self._by_room[room].pop()
        if not self._by_room[room]:
            self._rooms ^= 1 << room
        return room, found

    def _put(self, room: int, bins: Integers) -> None:
        if room and bins.size:
            self._by_room[room].append(bins)
            self._rooms |= 1 << room


def _by_first_piece(bin_of: Integers, num_bins: int) -> Integers:
    """Return bins numbered by the first piece that lies in them."""
    first = np.full(num_bins, len(bin_of))
    np.minimum.at(first, bin_of, np.arange(len(bin_of)))
    number = np.empty(num_bins, dtype=np.int64)
    number[np.argsort(first)] = np.arange(num_bins)
    return number[bin_of]
