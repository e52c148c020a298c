"""Near-duplicates among token sequences: MinHash signatures and bands (Broder 1997).

The similarity of two texts is the Jaccard index of their sets of 5-token runs. A signature holds,
for each of 128 hash functions, the least hash over the set: the share of places at which two
signatures agree estimates the similarity (standard error at most 0.045). Texts that agree in all
four places of one of 32 bands are compared: of pairs at 0.8 all but one in ten million are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["NUM_HASHES", "NearDuplicates", "Signature", "run_hashes", "signature"]

NUM_HASHES = 128
RUN_TOKENS = 5
_BAND = 4

Words = NDArray[np.uint64]
Signature = NDArray[np.uint32]

# Odd multipliers and offsets: hash j of word w is the upper half of a_j · w + b_j (mod 2^64).
_WORDS = np.random.Philox(key=np.array([0x5245, 0x5741], dtype=np.uint64))
_MULTIPLIERS: Words = _WORDS.random_raw(NUM_HASHES) | np.uint64(1)
_OFFSETS: Words = _WORDS.random_raw(NUM_HASHES)
_PLACES: Words = _WORDS.random_raw(64) | np.uint64(1)


def run_hashes(ids: NDArray[np.integer], length: int) -> Words:
    """Return a 64-bit hash of each run of `length` tokens; of the whole where it is shorter."""
    words = ids.astype(np.uint64) + np.uint64(1)
    length = min(length, len(words))
    runs = np.lib.stride_tricks.sliding_window_view(words, length) if length else words[:, None]
    # Unsigned arithmetic wraps at 2^64, here and below, which is meant.
    hashes = (runs * _PLACES[:length]).sum(axis=1, dtype=np.uint64)
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Words = hashes ^ (hashes >> np.uint64(31))
    return mixed


def signature(ids: NDArray[np.integer]) -> Signature:
    """Return the MinHash signature of a text's 5-token runs, uint32 [NUM_HASHES]."""
    hashes = np.unique(run_hashes(ids, RUN_TOKENS))
    if not hashes.size:
        return np.zeros(NUM_HASHES, dtype=np.uint32)
    every = hashes[:, None] * _MULTIPLIERS + _OFFSETS
    least: Signature = (every.min(axis=0) >> np.uint64(32)).astype(np.uint32)
    return least


class NearDuplicates:
    """The texts kept so far; what is too similar to one of them is told apart.

    Memory: about 3 kB a text.
    """

    def __init__(self, max_similarity: float) -> None:
        self._max_similarity = max_similarity
        self._kept: list[Signature] = []
        self._in_band: dict[tuple[int, bytes], list[int]] = {}

    def add(self, new: Signature) -> bool:
        """Keep a text unless its similarity with a kept one is above the bound; tell which."""
        bands = [
            (number, new[number : number + _BAND].tobytes()) for number in range(0, len(new), _BAND)
        ]
        near = {index for band in bands for index in self._in_band.get(band, ())}
        if any(float((self._kept[index] == new).mean()) > self._max_similarity for index in near):
            return False
        for band in bands:
            self._in_band.setdefault(band, []).append(len(self._kept))
        self._kept.append(new)
        return True
