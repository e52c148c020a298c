"""The nearest documents of each query, found so far: exact, whatever the pieces and their order.

Nearer first; equal similarities go by the hash of the text. What has a similarity of 0 or below is
no neighbour.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.term_vectors import NUM_COLUMNS, TermWeights

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = [
    "Candidates",
    "DenseSearch",
    "Embedding",
    "Nearest",
    "Search",
    "TermSearch",
    "quantised",
]

_PAIRS_AT_ONCE = 2**24
_QUERIES_AT_ONCE = 4096
_UNIT = 2.0**11
"""Coordinates are whole multiples of 1/_UNIT."""

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Hashes = NDArray[np.uint64]
Vectors = NDArray[np.float32]


class Candidates(NamedTuple):
    """Pairs of a query and a document, with their similarity; each an array over the pairs."""

    queries: Integers
    documents: Integers
    similarities: Floats


class Embedding(Protocol):
    """Turns texts into vectors of one dimension; the inner product of two is their similarity."""

    def documents(self, texts: Sequence[str], /) -> Vectors:
        """Return the vectors of documents, float32 [texts, dim], of length 1."""
        ...

    def queries(self, texts: Sequence[str], /) -> Vectors:
        """Return the vectors of queries, float32 [texts, dim], of length 1."""
        ...


class Search(Protocol):
    """Finds documents near to queries that it knows."""

    def vectors(self, texts: Sequence[str], /) -> Any:
        """Return the vectors of some documents, in a form of its own."""
        ...

    def candidates(self, vectors: Sequence[Any], floors: Floats, /) -> Iterator[Candidates]:
        """Yield every pair that may be among the nearest, its similarity above 0 and no less than
        the query's floor; documents are numbered over all `vectors` from 0 on."""
        ...


class Nearest:
    """The nearest documents of each query so far: numbers of documents (−1: none) and their
    similarities, int64 and float64 [queries, neighbours], nearest first."""

    def __init__(self, documents: Integers, similarities: Floats) -> None:
        self.documents = documents
        self.similarities = similarities

    @classmethod
    def empty(cls, num_queries: int, num_neighbours: int) -> Nearest:
        """Return what is known before any document was looked at."""
        shape = (num_queries, num_neighbours)
        return cls(np.full(shape, -1, dtype=np.int64), np.zeros(shape))

    @property
    def floors(self) -> Floats:
        """The similarity below which a document is no neighbour of a query, [queries]."""
        found: Floats = self.similarities[:, -1]
        return found

    def add(self, found: Candidates, hashes: Hashes) -> None:
        """Take pairs in that no pair before had; `hashes` are those of all documents' texts."""
        near = (found.similarities > 0) & (found.similarities >= self.floors[found.queries])
        if not near.any():
            return
        rows = np.unique(found.queries[near])
        known = self.documents[rows]
        row, place = np.nonzero(known >= 0)
        queries = np.concatenate((rows[row], found.queries[near]))
        documents = np.concatenate((known[row, place], found.documents[near]))
        similarities = np.concatenate(
            (self.similarities[rows][row, place], found.similarities[near])
        )
        order = np.lexsort((hashes[documents], -similarities, queries))
        queries = queries[order]
        first = np.searchsorted(queries, queries, side="left")
        places = np.arange(len(queries)) - first
        kept = places < self.documents.shape[1]
        self.documents[queries[kept], places[kept]] = documents[order][kept]
        self.similarities[queries[kept], places[kept]] = similarities[order][kept]


class TermSearch:
    """Search by weighted words: every document that shares one with a query is compared."""

    def __init__(self, weights: TermWeights, queries: Sequence[str], num_neighbours: int) -> None:
        self._weights = weights
        self._num_neighbours = num_neighbours
        vectors = weights.queries(queries)
        # Words that no query has add nothing: columns are those of the queries' words alone.
        own = np.unique(vectors.indices)
        self._place = np.full(NUM_COLUMNS, -1, dtype=np.int64)
        self._place[own] = np.arange(len(own))
        self._queries = self._of_queries(vectors, len(own))

    def _of_queries(self, vectors: csr_matrix, num_columns: int) -> csr_matrix:
        from scipy.sparse import csr_matrix

        return csr_matrix(
            (vectors.data, self._place[vectors.indices], vectors.indptr),
            shape=(vectors.shape[0], num_columns),
        )

    def vectors(self, texts: Sequence[str], /) -> csr_matrix:
        """Return the vectors of documents, without words that no query has."""
        from scipy.sparse import csr_matrix

        whole = self._weights.documents(texts)
        columns = self._place[whole.indices]
        known = columns >= 0
        counts = np.concatenate(([0], np.cumsum(known)))[whole.indptr]
        return csr_matrix(
            (whole.data[known], columns[known], counts),
            shape=(len(texts), self._queries.shape[1]),
        )

    def candidates(self, vectors: Sequence[csr_matrix], floors: Floats, /) -> Iterator[Candidates]:
        """Yield every pair that shares a word and reaches the query's floor."""
        from scipy.sparse import vstack

        if not vectors:
            return
        by_word = vstack(vectors, format="csr").T.tocsr()
        step = max(1, _PAIRS_AT_ONCE // max(by_word.shape[1], 1))
        for first in range(0, self._queries.shape[0], step):
            found = self._queries[first : first + step] @ by_word
            own = self._own_floors(found, floors[first : first + step])
            queries = np.repeat(np.arange(found.shape[0]), np.diff(found.indptr))
            near = found.data >= own[queries]
            yield Candidates(
                first + queries[near], found.indices[near].astype(np.int64), found.data[near]
            )

    def _own_floors(self, found: csr_matrix, floors: Floats) -> Floats:
        """Return floors that each row's own nearest raise, so that little is left to be sorted."""
        raised = floors.copy()
        for row in np.flatnonzero(np.diff(found.indptr) > self._num_neighbours):
            values = found.data[found.indptr[row] : found.indptr[row + 1]]
            values = values[values >= floors[row]]
            if len(values) > self._num_neighbours:
                last = len(values) - self._num_neighbours
                raised[row] = np.partition(values, last)[last]
        return raised


def quantised(vectors: Vectors) -> Vectors:
    """Return vectors of about length 1 as whole numbers, of which `_UNIT` is 1, float32.

    Every product and partial sum of an inner product is then a whole number below 2²⁴, which
    float32 holds exactly: in whatever order they are added, on however many threads.
    """
    lengths = np.sqrt(np.square(vectors.astype(np.float64)).sum(axis=1, keepdims=True))
    found: Vectors = np.rint(vectors / np.maximum(lengths, 1e-12) * _UNIT).astype(np.float32)
    return found


class DenseSearch:
    """Search by the vectors of an embedding: exact, with faiss's flat index."""

    def __init__(self, embedding: Embedding, queries: Sequence[str], num_neighbours: int) -> None:
        self._embedding = embedding
        self._queries = quantised(embedding.queries(queries))
        self._num_neighbours = num_neighbours

    def vectors(self, texts: Sequence[str], /) -> Vectors:
        """Return the vectors of documents as whole numbers."""
        return quantised(self._embedding.documents(texts))

    def candidates(self, vectors: Sequence[Vectors], floors: Floats, /) -> Iterator[Candidates]:
        """Yield the nearest of each query, and all that are as near as the last of them."""
        if not vectors:
            return
        every = np.ascontiguousarray(np.concatenate(vectors))
        index = _flat_index(every.shape[1])
        index.add(every)
        # One more than wanted tells whether others are as near as the last.
        count = min(self._num_neighbours + 1, len(every))
        for first in range(0, len(self._queries), _QUERIES_AT_ONCE):
            block = np.ascontiguousarray(self._queries[first : first + _QUERIES_AT_ONCE])
            products, documents = index.search(block, count)
            # Of those as near as the last, faiss may have left out any.
            tied = np.zeros(len(block), dtype=np.bool_)
            if count > self._num_neighbours:
                tied = products[:, -1] == products[:, -2]
            last = tied[:, None] & (products == products[:, -1:])
            queries = np.broadcast_to(first + np.arange(len(block))[:, None], products.shape)
            yield _reaching(queries[~last], documents[~last], products[~last], floors)
            for row in np.flatnonzero(tied & (products[:, -1] > 0)):
                as_near = np.flatnonzero(every @ block[row] == products[row, -1])
                queries = np.full(len(as_near), first + row)
                yield _reaching(queries, as_near, np.full(len(as_near), products[row, -1]), floors)


def _reaching(
    queries: Integers, documents: Integers, products: Vectors, floors: Floats
) -> Candidates:
    similarities = products.astype(np.float64) / _UNIT**2
    near = (similarities > 0) & (similarities >= floors[queries])
    return Candidates(queries[near], documents[near], similarities[near])


def _flat_index(dim: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the tool that wraps its C++
        import faiss

    return faiss.IndexFlatIP(dim)
