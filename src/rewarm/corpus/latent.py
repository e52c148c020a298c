"""Latent semantic analysis (Deerwester et al. 1990): vectors of weighted words, reduced by an SVD.

The components are those of a sample's documents, by scikit-learn's randomised SVD on one thread: on
one machine the same bits whatever it has to spare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.term_vectors import TermWeights

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["LatentEmbedding"]

_NUM_DIMS = 256
_NUM_ITERATIONS = 2
_LEAST_DOCUMENTS = 2  # that have a word of a component

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class LatentEmbedding:
    """Projects weighted words onto components, float32 [columns, dim]; `places` has the row of
    each word's column, −1 where the sample told nothing of it."""

    weights: TermWeights
    places: NDArray[np.int64]
    components: Vectors

    @classmethod
    def fit(cls, weights: TermWeights, sample: csr_matrix) -> LatentEmbedding:
        """Return the embedding of a sample's documents, vectors that `weights` made."""
        from sklearn.decomposition import TruncatedSVD
        from threadpoolctl import threadpool_limits

        having = np.bincount(sample.indices, minlength=sample.shape[1])
        columns = np.flatnonzero(having >= _LEAST_DOCUMENTS)
        places = np.full(sample.shape[1], -1, dtype=np.int64)
        places[columns] = np.arange(len(columns))
        num_dims = max(1, min(_NUM_DIMS, sample.shape[0] - 1, len(columns) - 1))
        svd = TruncatedSVD(num_dims, n_iter=_NUM_ITERATIONS, random_state=0)
        with threadpool_limits(1):
            svd.fit(sample[:, columns].astype(np.float32))
        return cls(weights, places, np.ascontiguousarray(svd.components_.T, dtype=np.float32))

    def documents(self, texts: Sequence[str], /) -> Vectors:
        """Return the vectors of documents, float32 [texts, dim]."""
        return self._projected(self.weights.documents(texts))

    def queries(self, texts: Sequence[str], /) -> Vectors:
        """Return the vectors of queries, float32 [texts, dim]."""
        return self._projected(self.weights.queries(texts))

    def _projected(self, rows: csr_matrix) -> Vectors:
        known = self.places >= 0
        found: Vectors = (rows[:, np.flatnonzero(known)] @ self.components).astype(np.float32)
        return found
