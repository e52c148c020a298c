"""Document mining: the documents of a large source that lie nearest to questions of another.

Each question has its nearest documents, of which none is a copy or near copy of a nearer one. A
document's score is its best place among them, from 0 on, plus 1 / (1 + its similarity there): first
come the documents that are some question's nearest, the most similar first, then the second
nearest, and so on. So every question is served before any is served twice, whatever the similarity
that its wording can reach. What is no question's neighbour has no score.

Of the source the training documents alone are looked at, of the questions likewise; of copies of
one text the first. Beside `scores.npy` stand, of all questions:

neighbours.npy    int64 [questions, neighbours], documents of the training view, −1: none
similarities.npy  float64, likewise; 0: none
questions.npy     int64 [questions], documents of the questions' own training view

Memory: 16 bytes for each question and neighbour, the questions' vectors, one piece of documents
with its vectors and similarities, and some tens of bytes a document; nothing else grows.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewarm.artifacts import write_atomically
from rewarm.corpus.draws import drawing_order
from rewarm.corpus.latent import LatentEmbedding
from rewarm.corpus.near_copies import without_near_copies
from rewarm.corpus.near_duplicates import signature
from rewarm.corpus.neighbours import DenseSearch, Embedding, Nearest, Search, TermSearch
from rewarm.corpus.pieces import load_arrays, pieces_of, save_arrays
from rewarm.corpus.queries import read_queries
from rewarm.corpus.scores import PIECES, Scoring
from rewarm.corpus.term_vectors import TermWeights
from rewarm.corpus.texts import texts_of_some
from rewarm.corpus.tokenize import Encoder, body_span
from rewarm.corpus.views import View, kept_documents, text_hashes
from rewarm.errors import CorpusError
from rewarm.recipe.keep import LSA
from rewarm.units import format_count

__all__ = ["NEIGHBOURS", "QUESTIONS", "SIMILARITIES", "NeighbourScores"]

NEIGHBOURS = "neighbours.npy"
SIMILARITIES = "similarities.npy"
QUESTIONS = "questions.npy"
_SO_FAR = "nearest.npz"
_SIGNATURES = "signatures.npy"
_TOKENS_PER_PIECE = 2**22
_SAMPLE_TOKENS = 2**23
_LATENT_DOCUMENTS = 2**14

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class NeighbourScores:
    """Makes the scores of a source's documents as neighbours of questions.

    `embedding` is a model's, None where words are weighted; `say` is told what is done before the
    first document.
    """

    scoring: Scoring
    encoder: Encoder
    embedding: Embedding | None
    say: Callable[[str], None]
    tokens_per_piece: int = _TOKENS_PER_PIECE

    def make(self, folder: Path, view: View, done: Callable[[int], None], /) -> Floats:
        """Return the score of every document, NaN for one that is no neighbour.

        Raises CorpusError where there is no question.
        """
        keep, questions = self.scoring.keep, self.scoring.reference
        assert questions is not None
        queries = read_queries(
            questions, self.encoder, which=keep.queries, max_queries=keep.max_queries
        )
        if not queries.texts:
            raise CorpusError.one(
                f"sources.{self.scoring.source.name}.keep.nearest",
                f"{questions.name!r} has no training documents to look for",
                f"name another source, or lower sources.{questions.name}.held_out",
            )
        source = _Source.of(self.scoring, view)
        nearest = self._nearest(folder, source, queries.texts, done)
        self.say(f"telling near copies apart among {format_count(len(_mined(nearest)))} documents")
        scores = _best_places(nearest, view.num_documents)
        kept = without_near_copies(
            nearest,
            _nearest_first(scores, source.hashes),
            lambda document: signature(_body(view, document, self.encoder)),
            scratch=folder / PIECES / _SIGNATURES,
            max_similarity=keep.max_similarity,
        )
        _write(folder / NEIGHBOURS, nearest.documents)
        _write(folder / SIMILARITIES, nearest.similarities)
        _write(folder / QUESTIONS, queries.documents)
        scores[~kept] = np.nan
        return scores

    def _nearest(
        self, folder: Path, source: _Source, texts: Sequence[str], done: Callable[[int], None]
    ) -> Nearest:
        """Return the nearest documents of each query, going on from what a kill left."""
        path = folder / PIECES / _SO_FAR
        num_done, nearest = _load(path, len(texts), self.scoring.keep.neighbours)
        pieces = list(pieces_of(source.view.offsets[1:], self.tokens_per_piece))
        if num_done == len(pieces):
            return nearest
        search = self._search(source, texts)
        for number, (first, last) in enumerate(pieces[num_done:], start=num_done):
            documents = np.flatnonzero(source.is_first[first:last]) + first
            batches = source.texts(documents, self.encoder)
            vectors = [search.vectors(batch) for batch in batches]
            for found in search.candidates(vectors, nearest.floors):
                there = found._replace(documents=documents[found.documents])
                nearest.add(there, source.hashes)
            _save(path, number + 1, nearest)
            done(last)
        return nearest

    def _search(self, source: _Source, queries: Sequence[str]) -> Search:
        keep = self.scoring.keep
        if self.embedding is not None:
            self.say(f"embedding {format_count(len(queries))} questions")
            return DenseSearch(self.embedding, queries, keep.neighbours)
        sample = source.sample()
        self.say(f"counting the words of {format_count(len(sample))} documents")
        weights = TermWeights.fit(source.texts(sample, self.encoder))
        if keep.embedding != LSA:
            return TermSearch(weights, queries, keep.neighbours)
        self.say("reducing weighted words to their main components")
        few = chain.from_iterable(source.texts(sample[:_LATENT_DOCUMENTS], self.encoder))
        latent = LatentEmbedding.fit(weights, weights.documents(list(few)))
        return DenseSearch(latent, queries, keep.neighbours)


@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """The documents to choose from; `is_first` is False for a copy of an earlier one."""

    view: View
    hashes: Hashes
    is_first: NDArray[np.bool_]

    @classmethod
    def of(cls, scoring: Scoring, view: View) -> _Source:
        hashes = text_hashes(Path(scoring.source.folder))[kept_documents(scoring.source)]
        is_first = np.zeros(len(hashes), dtype=np.bool_)
        is_first[np.unique(hashes, return_index=True)[1]] = True
        return cls(view, hashes, is_first)

    def sample(self) -> Integers:
        """Return documents that hold about `_SAMPLE_TOKENS`, in the order of their draw."""
        firsts = np.flatnonzero(self.is_first)
        order = firsts[drawing_order(self.hashes[firsts])]
        held = np.cumsum(self.view.document_tokens[order])
        return order[: int(np.searchsorted(held, _SAMPLE_TOKENS, side="left")) + 1]

    def texts(self, documents: Integers, encoder: Encoder) -> Iterator[list[str]]:
        """Yield the texts of some documents in batches of bounded size, in their order."""
        return texts_of_some(self.view, encoder, documents)


def _body(view: View, document: int, encoder: Encoder) -> Integers:
    tokens = view.document(document)
    start, stop = body_span(tokens, encoder.frame.begin, encoder.frame.end)
    return tokens[start:stop]


def _best_places(nearest: Nearest, num_documents: int) -> Floats:
    """Return each document's best place and, as a fraction, how unlike it is there; NaN: none."""
    places = np.broadcast_to(np.arange(nearest.documents.shape[1]), nearest.documents.shape)
    # Similarities are above 0, so the fraction is below 1.
    scores = places + 1 / (1 + nearest.similarities)
    found = np.full(num_documents, np.inf)
    there = nearest.documents >= 0
    np.minimum.at(found, nearest.documents[there], scores[there])
    found[np.isinf(found)] = np.nan
    return found


def _nearest_first(scores: Floats, hashes: Hashes) -> Integers:
    """Return the place of every document by its score, copies of none among them: NaN come last."""
    places = np.empty(len(scores), dtype=np.int64)
    places[np.lexsort((hashes, scores))] = np.arange(len(scores))
    return places


def _load(path: Path, num_queries: int, num_neighbours: int) -> tuple[int, Nearest]:
    """Return how many pieces are done, and what was found in them; nothing where it is damaged."""
    found = load_arrays(path, ("done", "documents", "similarities"))
    if found is None or found["documents"].shape != (num_queries, num_neighbours):
        return 0, Nearest.empty(num_queries, num_neighbours)
    return int(found["done"][0]), Nearest(found["documents"], found["similarities"])


def _save(path: Path, num_done: int, nearest: Nearest) -> None:
    path.parent.mkdir(exist_ok=True)
    arrays = {
        "done": np.array([num_done]),
        "documents": nearest.documents,
        "similarities": nearest.similarities,
    }
    save_arrays(path, arrays)


def _write(path: Path, values: NDArray[Any]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, values)
    write_atomically(path, buffer.getvalue())


def _mined(nearest: Nearest) -> Integers:
    found: Integers = np.unique(nearest.documents[nearest.documents >= 0])
    return found
