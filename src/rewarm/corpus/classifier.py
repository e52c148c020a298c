"""A linear classifier of documents by their tokens: a reference's, or the corpus's own?

Features are counts of single tokens and of pairs, 1 + ln of each, hashed into 2²⁰ columns and
scaled to length 1; the classifier is scikit-learn's logistic regression, classes weighted equally.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["LinearClassifier", "fit_classifier"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_NUM_COLUMNS = 2**20
_MOST_ITERATIONS = 1000
_REGULARISATION = 10.0  # scikit-learn's C: large, for rows of length 1 have small entries


class LinearClassifier:
    """Weights of the hashed features; made by `fit_classifier`."""

    def __init__(self, weights: Floats, bias: float) -> None:
        self._weights = weights
        self._bias = bias

    def log_odds(self, documents: Sequence[Integers]) -> Floats:
        """Return ln(p / (1 − p)) of being the reference's, float64 [documents]."""
        found: Floats = features(documents) @ self._weights + self._bias
        return found


def fit_classifier(positive: Sequence[Integers], negative: Sequence[Integers]) -> LinearClassifier:
    """Return the classifier that tells documents of token ids apart; neither class may be empty."""
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    labels = np.repeat([1, 0], [len(positive), len(negative)])
    found = features([*positive, *negative])
    # The weight of a column that no document has is 0 and stays so; to carry a million of them
    # through each iteration is what takes the time of a small fit.
    seen, columns = np.unique(found.indices, return_inverse=True)
    compact = csr_matrix((found.data, columns, found.indptr), shape=(len(labels), len(seen)))
    model = LogisticRegression(
        C=_REGULARISATION, class_weight="balanced", max_iter=_MOST_ITERATIONS
    ).fit(compact, labels)
    weights = np.zeros(_NUM_COLUMNS)
    weights[seen] = model.coef_[0]
    return LinearClassifier(weights, float(model.intercept_[0]))


def features(documents: Sequence[Integers]) -> csr_matrix:
    """Return the hashed features of documents, float64 [documents, columns]; rows of length 1."""
    from scipy.sparse import csr_matrix

    columns: list[Integers] = []
    values: list[Floats] = []
    for document in documents:
        found, counts = np.unique(_columns(document), return_counts=True)
        weights = 1.0 + np.log(counts)
        columns.append(found)
        values.append(weights / max(float(np.sqrt(np.square(weights).sum())), 1.0))
    sizes = [len(found) for found in columns]
    return csr_matrix(
        (
            np.concatenate([*values, np.empty(0)]),
            np.concatenate([*columns, np.empty(0, dtype=np.int64)]),
            np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))),
        ),
        shape=(len(documents), _NUM_COLUMNS),
    )


def _columns(document: Integers) -> Integers:
    """Return the columns of a document's tokens and pairs, with repeats."""
    ids = document.astype(np.uint64)
    pairs = (ids[:-1] + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + ids[1:]
    mixed = np.concatenate((ids, pairs)) * np.uint64(0xD6E8FEB86659FD93)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    return (mixed >> np.uint64(44)).astype(np.int64)
