"""An n-gram model of token ids: interpolated, modified Kneser-Ney (Chen and Goodman 1998).

    p(w | h) = max(a(hw) − D(a(hw)), 0) / a(h·) + γ(h) p(w | h'),   p(w) likewise, with 1/outcomes

where h' is h without its first token, and a counts: occurrences for the longest runs and for those
that begin a document, else how many different tokens stand before the run. D takes the values D₁,
D₂, D₃ for counts of 1, 2, 3 and more, from the counts of counts of each length; γ makes
probabilities sum to 1 over the vocabulary and the end of the document. Each document begins with a
mark that predicts and is never predicted.

Runs are known by 64-bit hashes, in sorted arrays: 16 bytes for each different run. With 10⁸ runs
the chance that any two share a hash is below 1 in 1,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["NgramModel", "fit_ngrams"]

Integers = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Floats = NDArray[np.float64]

_NOTHING_KNOWN = (0.5, 1.0, 1.5)
"""Discounts where a length has too few runs to estimate them."""


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """Runs of one length, by rising hash: their own share of p, and γ where they are a history."""

    keys: Hashes
    shares: NDArray[np.float32]
    backoffs: NDArray[np.float32]

    def find(self, keys: Hashes) -> Integers:
        """Return where each run stands, −1 where it does not."""
        place = np.searchsorted(self.keys, keys)
        place[place == len(self.keys)] = 0
        return np.where(self.keys[place] == keys, place, -1)


@dataclass(frozen=True, slots=True, eq=False)
class NgramModel:
    """A fitted model; made by `fit_ngrams`."""

    vocab_size: int
    backoff: float
    tables: tuple[_Table, ...]

    @property
    def order(self) -> int:
        """Tokens of the longest runs."""
        return len(self.tables)

    def token_nats(self, documents: Sequence[Integers]) -> list[Floats]:
        """Return −log p of every token of each document, and of its end, float64 [tokens + 1]."""
        text = _Text.of(documents, self.vocab_size)
        nats = -np.log(self._probabilities(text))
        ends = np.cumsum([len(document) + 2 for document in documents])
        return [part[1:] for part in np.split(nats, ends[:-1])]

    def mean_nats(self, documents: Sequence[Integers]) -> Floats:
        """Return the mean of `token_nats` of each document, float64 [documents]."""
        return np.array([float(nats.mean()) for nats in self.token_nats(documents)])

    def _probabilities(self, text: _Text) -> Floats:
        """Return p of every place given those before it; at the marks, of no meaning."""
        uniform = 1.0 / (self.vocab_size + 1)
        keys = _longer(_no_hashes(text), text.ids, 1)
        place = self.tables[0].find(keys)
        p = self.backoff * uniform + np.where(place >= 0, self.tables[0].shares[place], 0.0)
        for length in range(2, self.order + 1):
            shorter, table = self.tables[length - 2], self.tables[length - 1]
            keys = _longer(keys, text.ids, length)
            history = np.concatenate(([-1], place[:-1]))
            known = np.flatnonzero((history >= 0) & (text.depth >= length))
            p[known] *= shorter.backoffs[history[known]]
            # A run that is known has a history and an ending that are known.
            maybe = known[place[known] >= 0]
            place = np.full(len(text.ids), -1)
            place[maybe] = table.find(keys[maybe])
            found = maybe[place[maybe] >= 0]
            p[found] += table.shares[place[found]]
        return p


@dataclass(frozen=True, slots=True, eq=False)
class _Text:
    """Documents one after the other, each between marks; `depth` counts from its first mark, 1."""

    ids: Integers
    depth: Integers

    @classmethod
    def of(cls, documents: Sequence[Integers], vocab_size: int) -> _Text:
        begin, end = np.array([vocab_size]), np.array([vocab_size + 1])
        parts = [part for document in documents for part in (begin, document, end)]
        sizes = np.array([len(document) + 2 for document in documents], dtype=np.int64)
        ids = np.concatenate([*parts, np.empty(0, dtype=np.int64)]).astype(np.int64)
        starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
        return cls(ids, np.arange(len(ids)) - starts + 1)


def _longer(keys: Hashes, ids: Integers, length: int) -> Hashes:
    """Return hashes of the runs of `length` tokens that end at each place, from those one shorter.

    A run's hash mixes its history's with its last token (splitmix64's finalizer).
    """
    mixed = ids.astype(np.uint64) + np.uint64(length << 40)
    if length > 1:
        mixed[1:] += keys[:-1] * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _no_hashes(text: _Text) -> Hashes:
    return np.zeros(len(text.ids), dtype=np.uint64)


def fit_ngrams(documents: Sequence[Integers], *, vocab_size: int, order: int) -> NgramModel:
    """Return the model of documents of token ids below `vocab_size`, each int64 [tokens].

    Takes about 180 bytes of memory for each token at order 5 while it is fitted. Raises ValueError
    where there is no document.
    """
    if not documents:
        raise ValueError("an n-gram model needs text")
    text = _Text.of(documents, vocab_size)
    keys = [_longer(_no_hashes(text), text.ids, 1)]
    for length in range(2, order + 1):
        keys.append(_longer(keys[-1], text.ids, length))
    counted = _count(text, keys)
    tables: list[_Table] = []
    backoff = 1.0
    for length, runs in enumerate(counted, start=1):
        counts = runs.counts
        if length == 1:
            history = np.zeros(len(counts), dtype=np.int64)
            num_histories = 1
            counts = np.where(text.ids[runs.last] == vocab_size, 0, counts)  # never predicted
        else:
            history = tables[-1].find(keys[length - 2][runs.last - 1])
            num_histories = len(tables[-1].keys)
        shares, backoffs = _discounted(counts, history, num_histories)
        if length == 1:
            backoff = float(backoffs[0])
        else:
            tables[-1].backoffs[:] = backoffs
        ones = np.ones(len(counts), dtype=np.float32)
        tables.append(_Table(runs.keys, shares.astype(np.float32), ones))
    return NgramModel(vocab_size, backoff, tuple(tables))


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """The different runs of one length, by rising hash, with a place where each ends."""

    keys: Hashes
    last: Integers
    counts: Integers

    @classmethod
    def at(cls, keys: Hashes, places: Integers) -> _Runs:
        found, first, counts = np.unique(keys[places], return_index=True, return_counts=True)
        return cls(found, places[first], counts)


def _count(text: _Text, keys: Sequence[Hashes]) -> list[_Runs]:
    """Return the runs of every length with their counts, the shortest first.

    Of the longest, occurrences are counted; of shorter ones, the different runs one longer that end
    in them (what stands before them), or where they begin a document their occurrences.
    """
    order = len(keys)
    counted = [_Runs.at(keys[-1], np.flatnonzero(text.depth >= order))]
    for length in range(order - 1, 0, -1):
        begin_a_document = np.flatnonzero(text.depth == length)
        places = np.concatenate((counted[0].last, begin_a_document))
        counted.insert(0, _Runs.at(keys[length - 1], places))
    return counted


def _discounted(
    counts: Integers, history: Integers, num_histories: int
) -> tuple[Floats, NDArray[np.float64]]:
    """Return each run's discounted share of its history, and γ of every history (1: none)."""
    discounts = _discounts(counts)
    level = np.minimum(counts, 3)
    taken = np.array([0.0, *discounts])[level]
    total = np.bincount(history, weights=counts, minlength=num_histories)
    left = np.bincount(history, weights=taken, minlength=num_histories)
    seen = total > 0
    backoffs = np.ones(num_histories)
    backoffs[seen] = left[seen] / total[seen]
    shares = (counts - taken) / np.where(seen, total, 1.0)[history]
    return shares, backoffs


def _discounts(counts: Integers) -> tuple[float, float, float]:
    """Return D₁, D₂, D₃ from how many runs have a count of 1, 2, 3, 4."""
    n1, n2, n3, n4 = (int((counts == count).sum()) for count in (1, 2, 3, 4))
    if not (n1 and n2 and n3 and n4):
        return _NOTHING_KNOWN
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    if not all(0 <= value <= count for count, value in enumerate(found, start=1)):
        return _NOTHING_KNOWN
    return found
