"""Texts as words, and runs of words as 64-bit hashes: what two texts share, however they are set.

A word is a run of letters and digits, without case, accents and punctuation; in scripts that put no
space between words (Chinese, Japanese, Thai, Lao, Burmese, Khmer) every character is one.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Hashes", "Words", "hash_words", "runs_of", "spell_words", "whole_of"]

Hashes = NDArray[np.uint64]

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_ACCENTS = re.compile("[\u0300-\u036f]+")
_MAX_KNOWN_WORDS = 2**18
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class Words(NamedTuple):
    """The words of several texts, one after the other: hashes [words], and where each text begins,
    int64 [texts + 1]."""

    hashes: Hashes
    starts: NDArray[np.int64]


class _Known(dict[str, int]):
    """64-bit hashes of words; those that were met before are not computed again."""

    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        found = self[word] = int.from_bytes(digest, "little")
        return found


_KNOWN = _Known()


def spell_words(text: str) -> list[str]:
    """Return the words of a text, as they are compared."""
    if not text.isascii():
        text = _ACCENTS.sub("", unicodedata.normalize("NFKD", text))
    return _WORD.findall(text.casefold())


def hash_words(texts: Sequence[str]) -> Words:
    """Return the words of texts as hashes."""
    if len(_KNOWN) > _MAX_KNOWN_WORDS:
        _KNOWN.clear()
    spelled = [spell_words(text) for text in texts]
    starts = np.concatenate(([0], np.cumsum([len(words) for words in spelled], dtype=np.int64)))
    hashes = np.fromiter(
        (value for words in spelled for value in map(_KNOWN.__getitem__, words)),
        dtype=np.uint64,
        count=int(starts[-1]),
    )
    return Words(hashes, starts)


def runs_of(words: Words, length: int) -> tuple[Hashes, NDArray[np.int64]]:
    """Return the hash of every run of `length` words within one text, and its first word's place.

    Of texts with fewer words there is none.
    """
    num = len(words.hashes) - length + 1
    if num <= 0:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    total = words.hashes[:num].copy()
    for place in range(1, length):
        total *= _MULTIPLIER
        total += words.hashes[place : place + num]
    sizes = np.diff(words.starts)
    left = np.repeat(words.starts[1:], sizes)[:num] - np.arange(num)
    places = np.flatnonzero(left >= length)
    return _mixed(total[places], length), places


def whole_of(words: Words) -> Hashes:
    """Return a hash of all words of each text, [texts]; texts without words share one."""
    found = np.empty(len(words.starts) - 1, dtype=np.uint64)
    for index in range(len(found)):
        own = words.hashes[words.starts[index] : words.starts[index + 1]]
        digest = hashlib.blake2b(own.astype("<u8").tobytes(), digest_size=8).digest()
        found[index] = int.from_bytes(digest, "little")
    return found


def _mixed(values: Hashes, length: int) -> Hashes:
    """Spread sums over all 64 bits (splitmix64's last steps); runs of two lengths differ."""
    values = values + np.uint64(length * int(_MULTIPLIER) % 2**64)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = values ^ (values >> np.uint64(31))
    return mixed
