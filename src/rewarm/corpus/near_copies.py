"""Near copies among the neighbours of one question: what shares most of its runs with a nearer one.

Two near copies lie at about the same distance from whatever is looked for: so they are compared
within each question's neighbours alone, by their MinHash signatures (`corpus/near_duplicates.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.near_duplicates import NUM_HASHES, Signature
from rewarm.corpus.neighbours import Nearest

__all__ = ["without_near_copies"]

_VALUES_AT_ONCE = 2**22
_QUESTIONS_AT_ONCE = 256

Integers = NDArray[np.int64]


def without_near_copies(
    nearest: Nearest,
    places: Integers,
    signature_of: Callable[[int], Signature],
    *,
    scratch: Path,
    max_similarity: float,
) -> NDArray[np.bool_]:
    """Return which documents stay, bool [documents]: one is dropped where a nearer one that stays
    is more similar to it than `max_similarity`, and is a neighbour of the same question.

    `places` says which of all documents is nearer, the least nearest. Signatures, 512 bytes a
    neighbour, lie in the file `scratch`, which is made.
    """
    stays = np.ones(len(places), dtype=np.bool_)
    mined = np.unique(nearest.documents[nearest.documents >= 0])
    if max_similarity >= 1 or not len(mined):
        return stays
    scratch.parent.mkdir(exist_ok=True)
    signatures = np.lib.format.open_memmap(
        scratch, mode="w+", dtype=np.uint32, shape=(len(mined), NUM_HASHES)
    )
    for index, document in enumerate(mined.tolist()):
        signatures[index] = signature_of(document)
    similar = np.empty((0, 2), dtype=np.int64)
    for first in range(0, len(nearest.documents), _QUESTIONS_AT_ONCE):
        pairs = [similar]
        for row in nearest.documents[first : first + _QUESTIONS_AT_ONCE]:
            documents = row[row >= 0]
            documents = documents[np.argsort(places[documents])]
            own = signatures[np.searchsorted(mined, documents)]
            pairs += [documents[found] for found in _similar(own, max_similarity)]
        similar = np.unique(np.concatenate(pairs), axis=0)
    for nearer, farther in similar[np.argsort(places[similar[:, 1]], kind="stable")].tolist():
        stays[farther] &= not stays[nearer]
    return stays


def _similar(signatures: NDArray[np.uint32], max_similarity: float) -> Iterator[Integers]:
    """Yield pairs, the first before the second, that agree in more of their hashes, [pairs, 2]."""
    step = max(1, _VALUES_AT_ONCE // max(signatures.size, 1))
    for first in range(0, len(signatures), step):
        block = signatures[first : first + step]
        alike = (block[:, None] == signatures[None]).mean(axis=2) > max_similarity
        found = np.argwhere(alike) + np.array([first, 0])
        yield found[found[:, 0] < found[:, 1]]
