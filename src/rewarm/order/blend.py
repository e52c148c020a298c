"""Deals the slots of a phase to its sources so that every prefix keeps to the blend.

Shares are quantised to integers over 65,536. The slots of one cycle are dealt earliest deadline
first: the j-th sample of a source with share w may not be dealt before slot ⌊j/w⌋ and must be dealt
before slot ⌈(j+1)/w⌉. Such a deal always exists, and in it every prefix of t slots holds w·t
samples of the source to within less than one (Tijdeman 1980; Baruah et al. 1996). A table of one
cycle, a few hundred KiB at most, then answers for any position by arithmetic.
"""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CYCLE", "BlendCycle", "count_before", "deal_cycle", "locate", "quantise_weights"]

CYCLE = 65_536
"""Shares are whole numbers of 1/65,536."""

Integers = NDArray[np.int64]


def quantise_weights(weights: Sequence[float]) -> tuple[int, ...]:
    """Return integer shares that sum to 65,536, by largest remainder; zero stays zero.

    Raises ValueError for a negative or non-finite weight, for all zeros, and for a share below
    1/65,536, which could not be dealt.
    """
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError(f"weights must be finite and not negative: {list(weights)}")
    # `sum` overflows to infinity where `fsum` would raise an OverflowError.
    if not 0 < sum(weights) < math.inf:
        raise ValueError("at least one weight must be above zero (and their sum finite)")
    total = math.fsum(weights)
    for index, weight in enumerate(weights):
        if 0 < weight / total < 1 / CYCLE:
            raise ValueError(f"share {weight / total:.3g} of source {index} is below 1/{CYCLE}")
    exact = [weight / total * CYCLE for weight in weights]
    # A positive share is at least 1 up to rounding in its last bit, so it never becomes 0 here.
    shares = [max(math.floor(share), 1 if share > 0 else 0) for share in exact]
    by_remainder = sorted(
        (index for index in range(len(shares)) if exact[index] > 0),
        key=lambda index: (shares[index] - exact[index], index),
    )
    for index in by_remainder[: CYCLE - sum(shares)]:
        shares[index] += 1
    assert sum(shares) == CYCLE
    return tuple(shares)


@dataclass(frozen=True, slots=True, eq=False)
class BlendCycle:
    """One cycle of the deal, as short as the common divisor of the shares allows.

    `shares[i]` slots of the `length` belong to source i. `source_of_slot` and `rank_of_slot` have
    shape [length]: the source of each slot, and how many earlier slots of the cycle are its own.
    """

    shares: tuple[int, ...]
    source_of_slot: NDArray[np.int32]
    rank_of_slot: NDArray[np.int32]

    @property
    def length(self) -> int:
        """Slots of the cycle."""
        return len(self.source_of_slot)


@functools.lru_cache(maxsize=64)
def deal_cycle(weights: tuple[int, ...]) -> BlendCycle:
    """Return the cycle of quantised weights (not negative, at least one positive)."""
    divisor = math.gcd(*weights)
    if divisor == 0 or min(weights) < 0:
        raise ValueError(f"weights must be not negative and not all zero: {weights}")
    shares = tuple(weight // divisor for weight in weights)
    length = sum(shares)
    num_sources = len(shares)
    # A job is one integer, deadline · sources + source: it sorts by deadline, then by source, and
    # the heap compares it faster than a tuple.
    jobs_from_slot: list[list[int]] = [[] for _ in range(length)]
    for source, share in enumerate(shares):
        if share:
            jobs_from_slot[0].append(-(-length // share) * num_sources + source)
    released: list[int] = []
    num_dealt = [0] * num_sources
    sources, ranks = [], []
    for slot in range(length):
        for job in jobs_from_slot[slot]:
            heapq.heappush(released, job)
        source = heapq.heappop(released) % num_sources
        sources.append(source)
        ranks.append(num_dealt[source])
        num_dealt[source] += 1
        following, share = num_dealt[source], shares[source]
        if following < share:
            release = max(following * length // share, slot + 1)
            deadline = -(-(following + 1) * length // share)
            jobs_from_slot[release].append(deadline * num_sources + source)
    source_of_slot = np.array(sources, dtype=np.int32)
    rank_of_slot = np.array(ranks, dtype=np.int32)
    source_of_slot.flags.writeable = False
    rank_of_slot.flags.writeable = False
    return BlendCycle(shares, source_of_slot, rank_of_slot)


def count_before(cycle: BlendCycle, position: int) -> Integers:
    """Return how many of the first `position` slots belong to each source, shape [sources]."""
    if position < 0:
        raise ValueError(f"position {position} lies before the phase")
    cycles, rest = divmod(position, cycle.length)
    counts = np.bincount(cycle.source_of_slot[:rest], minlength=len(cycle.shares))
    return counts.astype(np.int64) + np.asarray(cycle.shares, dtype=np.int64) * cycles


def locate(cycle: BlendCycle, positions: NDArray[np.integer]) -> tuple[Integers, Integers]:
    """Return for slots of a phase their source and how many earlier slots are that source's.

    `positions` count from the phase's first slot; both results have their shape. Raises ValueError
    for a negative one.
    """
    # Unsigned positions would make the ranks below floating-point numbers.
    signed = np.asarray(positions, dtype=np.int64)
    if (signed < 0).any():
        raise ValueError(f"position {signed.min()} lies before the phase")
    cycles, slots = np.divmod(signed, cycle.length)
    sources = cycle.source_of_slot[slots].astype(np.int64)
    shares = np.asarray(cycle.shares, dtype=np.int64)
    return sources, cycles * shares[sources] + cycle.rank_of_slot[slots]
