"""A keyed permutation of [0, n) that needs no memory, whatever n.

A Feistel network permutes the smallest suitable power of two; entries that land at n or beyond are
sent through again until they land inside ("cycle walking"), which keeps it a permutation of [0, n).
Round functions are the finaliser of splitmix64 (Steele et al. 2014). An affine map a·i + b mod n
would be cheaper and is not enough: it keeps the parity of neighbours.

The numbers are pinned by golden tests: a change of any of them changes every run's data order.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_LENGTH", "derive_key", "invert", "permute"]

MAX_LENGTH = 2**62
_NUM_ROUNDS = 8
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_MASK_64 = 2**64 - 1

Integers = NDArray[np.int64]
_Words = NDArray[np.uint64]


def derive_key(*parts: int | str) -> int:
    """Return a 64-bit key for a purpose, e.g. `derive_key(seed, "epoch", source, epoch)`.

    Parts are typed and length-prefixed before they are hashed (BLAKE2b), so ("a", "bc") and
    ("ab", "c"), or 1 and "1", never meet. Stable over processes, platforms and releases.
    """
    digest = hashlib.blake2b(digest_size=8, person=b"rewarm.order")
    for part in parts:
        kind, text = ("i", str(int(part))) if isinstance(part, int) else ("s", part)
        encoded = text.encode("utf-8")
        digest.update(f"{kind}{len(encoded)}:".encode("ascii") + encoded)
    return int.from_bytes(digest.digest(), "big")


def permute(index: NDArray[np.integer], length: int, key: int) -> Integers:
    """Return where a keyed permutation of [0, length) sends each index.

    `index` holds integers in [0, length), any shape; the result has its shape, int64. Raises
    ValueError for a length outside [1, 2^62] or an index outside [0, length).
    """
    return _walk(index, length, key, inverse=False)


def invert(index: NDArray[np.integer], length: int, key: int) -> Integers:
    """Return the index that `permute` sends to each of these; same shapes and errors."""
    return _walk(index, length, key, inverse=True)


def _walk(index: NDArray[np.integer], length: int, key: int, *, inverse: bool) -> Integers:
    if not 1 <= length <= MAX_LENGTH:
        raise ValueError(f"cannot permute {length} positions; 1 to 2^62 are possible")
    flat = np.asarray(index).reshape(-1)
    if flat.size and not (flat.min() >= 0 and flat.max() < length):
        raise ValueError(f"an index is outside of [0, {length})")
    half_bits = max(1, ((length - 1).bit_length() + 1) // 2)
    rounds = _round_keys(key)
    values = flat.astype(np.uint64)
    outside = np.arange(values.size)
    limit = np.uint64(length)
    # The domain is at most four times the length, so on average under four passes are needed.
    while outside.size:
        moved = _feistel(values[outside], half_bits, rounds, inverse=inverse)
        values[outside] = moved
        outside = outside[moved >= limit]
    return values.astype(np.int64).reshape(np.shape(index))


def _round_keys(key: int) -> list[np.uint64]:
    return [
        np.uint64(_finalise_int((key + (r + 1) * _GOLDEN_GAMMA) & _MASK_64))
        for r in range(_NUM_ROUNDS)
    ]


def _feistel(values: _Words, half_bits: int, rounds: list[np.uint64], *, inverse: bool) -> _Words:
    """Return the Feistel permutation of [0, 4^half_bits), forwards or backwards."""
    shift = np.uint64(half_bits)
    mask = np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    if inverse:
        for round_key in reversed(rounds):
            left, right = right ^ (_finalise(left + round_key) & mask), left
    else:
        for round_key in rounds:
            left, right = right, left ^ (_finalise(right + round_key) & mask)
    return (left << shift) | right


def _finalise(words: _Words) -> _Words:
    """Mix 64-bit words as splitmix64 does; unsigned arithmetic wraps, which is meant."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _finalise_int(word: int) -> int:
    """Mix one word as `_finalise` does, in Python integers (scalars would warn of wrapping)."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK_64
    return word ^ (word >> 31)
