"""A keyed permutation of [0, n) that needs no memory, whatever n.

A Feistel network permutes the smallest suitable power of two; entries that land at n or beyond are
sent through again until they land inside ("cycle walking"), which keeps it a permutation of [0, n).
Round functions are the finaliser of splitmix64 (Steele et al. 2014). An affine map a·i + b mod n
would be cheaper and is not enough: it keeps the parity of neighbours.

Of 5 to 16 items some orders come more often than others, by a tenth (root mean square over keys):
in a network of 16 points even ideal round functions do that, whatever their number. Each place
alone is even to about a hundredth; from 17 items on, 400,000 keys showed no difference.

The numbers are pinned by golden tests: a change of any of them changes every run's data order.
"""

from __future__ import annotations

import hashlib
import operator
from typing import SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["MAX_LENGTH", "derive_key", "invert", "permute"]

MAX_LENGTH = 2**62
_NUM_ROUNDS = 8
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_MASK_64 = 2**64 - 1

Integers = NDArray[np.int64]
_Words = NDArray[np.uint64]


def derive_key(*parts: SupportsIndex | str) -> int:
    """Return a 64-bit key for a purpose, e.g. `derive_key(seed, "epoch", source, epoch)`.

    Parts are typed and length-prefixed before they are hashed (BLAKE2b), so ("a", "bc") and
    ("ab", "c"), or 1 and "1", never meet. Stable over processes, platforms and releases.
    """
    digest = hashlib.blake2b(digest_size=8, person=b"rewarm.order")
    for part in parts:
        kind, text = ("s", part) if isinstance(part, str) else ("i", str(operator.index(part)))
        encoded = text.encode("utf-8")
        digest.update(f"{kind}{len(encoded)}:".encode("ascii") + encoded)
    return int.from_bytes(digest.digest(), "big")


def permute(index: NDArray[np.integer], length: ArrayLike, key: ArrayLike) -> Integers:
    """Return where a keyed permutation of [0, length) sends each index.

    `index` holds integers in [0, length), any shape; `length` and the 64-bit `key` are one for all
    or one for each (they broadcast to its shape). The result is int64 of that shape. Raises
    ValueError for a length outside [1, 2^62] or an index outside [0, length).
    """
    return _walk(index, length, key, inverse=False)


def invert(index: NDArray[np.integer], length: ArrayLike, key: ArrayLike) -> Integers:
    """Return the index that `permute` sends to each of these; same shapes and errors."""
    return _walk(index, length, key, inverse=True)


def _walk(
    index: NDArray[np.integer], length: ArrayLike, key: ArrayLike, *, inverse: bool
) -> Integers:
    if not ((np.asarray(length) >= 1) & (np.asarray(length) <= MAX_LENGTH)).all():
        raise ValueError(f"cannot permute {length!r} positions; 1 to 2^62 are possible")
    shape = np.shape(index)
    flat = np.asarray(index).reshape(-1)
    lengths = np.broadcast_to(np.asarray(length, dtype=np.int64), shape).reshape(-1)
    keys = np.broadcast_to(np.asarray(key, dtype=np.uint64), shape).reshape(-1)
    if not ((flat >= 0) & (flat < lengths)).all():
        raise ValueError(f"an index is outside of [0, {length!r})")
    values = flat.astype(np.uint64)
    limits = lengths.astype(np.uint64)
    half_bits = _half_bits(lengths)
    outside = np.arange(values.size)
    # The domain is at most four times the length, so on average under four passes are needed.
    while outside.size:
        moved = _feistel(values[outside], half_bits[outside], keys[outside], inverse=inverse)
        values[outside] = moved
        outside = outside[moved >= limits[outside]]
    return values.astype(np.int64).reshape(shape)


def _half_bits(lengths: Integers) -> _Words:
    """Return half the bits of the smallest power of four that holds each length, at least 1."""
    powers = np.left_shift(np.int64(1), 2 * np.arange(1, 31, dtype=np.int64))
    return (1 + np.searchsorted(powers, lengths, side="left")).astype(np.uint64)


def _feistel(values: _Words, half_bits: _Words, keys: _Words, *, inverse: bool) -> _Words:
    """Return the Feistel permutation of [0, 4^half_bits) under each key, either way round."""
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left: _Words = values >> half_bits
    right: _Words = values & mask
    for r in range(_NUM_ROUNDS, 0, -1) if inverse else range(1, _NUM_ROUNDS + 1):
        # Unsigned arithmetic wraps at 2^64, here and below, which is meant.
        round_key = _finalise(keys + np.uint64(r * _GOLDEN_GAMMA & _MASK_64))
        if inverse:
            left, right = right ^ (_finalise(left + round_key) & mask), left
        else:
            left, right = right, left ^ (_finalise(right + round_key) & mask)
    return (left << half_bits) | right


def _finalise(words: _Words) -> _Words:
    """Mix 64-bit words as splitmix64 does."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
