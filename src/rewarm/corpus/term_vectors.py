"""Texts as vectors of weighted words, whose inner product is their similarity.

A document's word weighs √idf · 2.2 f / (f + 1.2 (0.25 + 0.75 n/n̄)), f its occurrences, n the words
of the document and n̄ their mean; idf = ln(1 + (N − d + ½) / (d + ½)), d of N documents having it.
A query's word weighs √idf times the share of the queries that do not have it: what all of them say
("question", "which") tells none apart. A query is scaled to length 1, a document by the root of its
length. Up to these scales and the share this is BM25 (Robertson et al. 1994).

Words are known by 20 bits of their hash. Sums go by rising column, so that a vector and an inner
product have the same bits whatever stands beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.words import hash_words

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["NUM_COLUMNS", "TermWeights", "term_counts"]

_COLUMN_BITS = 20
NUM_COLUMNS = 2**_COLUMN_BITS
_SATURATION = 1.2  # BM25's k₁
_BY_LENGTH = 0.75  # BM25's b

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


def term_counts(texts: Sequence[str]) -> csr_matrix:
    """Return how often each text has each word, float64 [texts, columns], columns rising."""
    from scipy.sparse import csr_matrix

    words = hash_words(texts)
    columns = (words.hashes >> np.uint64(64 - _COLUMN_BITS)).astype(np.int64)
    rows = np.repeat(np.arange(len(texts)), np.diff(words.starts))
    found, counts = np.unique((rows << _COLUMN_BITS) | columns, return_counts=True)
    starts = np.searchsorted(found, np.arange(len(texts) + 1) << _COLUMN_BITS)
    return csr_matrix(
        (counts.astype(np.float64), found & (NUM_COLUMNS - 1), starts),
        shape=(len(texts), NUM_COLUMNS),
    )


@dataclass(frozen=True, slots=True, eq=False)
class TermWeights:
    """What is known of a corpus's words: how many documents have each, int64 [columns]."""

    document_counts: Integers
    num_documents: int
    mean_words: float

    @classmethod
    def fit(cls, batches: Iterable[Sequence[str]]) -> TermWeights:
        """Return the weights of the documents of some batches."""
        document_counts = np.zeros(NUM_COLUMNS, dtype=np.int64)
        num_documents, num_words = 0, 0
        for texts in batches:
            counts = term_counts(texts)
            document_counts += np.bincount(counts.indices, minlength=NUM_COLUMNS)
            num_documents += len(texts)
            num_words += int(counts.data.sum())
        return cls(document_counts, num_documents, max(num_words, 1) / max(num_documents, 1))

    def _root_idf(self, columns: Integers) -> Floats:
        having = self.document_counts[columns]
        found: Floats = np.sqrt(np.log1p((self.num_documents - having + 0.5) / (having + 0.5)))
        return found

    def documents(self, texts: Sequence[str]) -> csr_matrix:
        """Return the vectors of documents, float64 [texts, columns]."""
        counts = term_counts(texts)
        num_words = np.asarray(counts.sum(axis=1)).ravel()
        room = _SATURATION * (1 - _BY_LENGTH + _BY_LENGTH * num_words / self.mean_words)
        frequency = counts.data
        saturated = (_SATURATION + 1) * frequency / (frequency + _per_entry(counts, room))
        return _scaled(counts, saturated * self._root_idf(counts.indices), by=0.5)

    def queries(self, texts: Sequence[str]) -> csr_matrix:
        """Return the vectors of queries, all of them at a time, float64 [texts, columns]."""
        counts = term_counts(texts)
        having = np.bincount(counts.indices, minlength=NUM_COLUMNS)[counts.indices]
        without = 1 - having / (len(texts) + 1)
        return _scaled(counts, without * self._root_idf(counts.indices), by=1.0)


def _per_entry(rows: csr_matrix, values: Floats) -> Floats:
    found: Floats = np.repeat(values, np.diff(rows.indptr))
    return found


def _scaled(rows: csr_matrix, values: Floats, *, by: float) -> csr_matrix:
    """Return rows with other values, divided by a power of their lengths; a row of nothing stays
    one."""
    from scipy.sparse import csr_matrix

    squares = csr_matrix((np.square(values), rows.indices, rows.indptr), shape=rows.shape)
    lengths = np.sqrt(np.asarray(squares.sum(axis=1)).ravel())
    lengths[lengths == 0] = 1.0
    scaled = values / _per_entry(rows, lengths**by)
    return csr_matrix((scaled, rows.indices, rows.indptr), shape=rows.shape)
