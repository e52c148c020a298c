"""Scores of documents by their likeness to a reference: n-gram perplexity, linear classifier.

Neither is asked of a document by a model that saw it. The reference and the source are dealt into
folds by the hash of their texts, so that copies of one text fall together:

* perplexity: a document that the reference has too (the same text) is scored by a model of the
  reference without that fold, all others by one of the whole reference;
* classifier: documents of a fold are scored by a classifier of the other folds' documents.

Of the reference its training documents alone are read, of the source likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.classifier import LinearClassifier, fit_classifier
from rewarm.corpus.draws import drawing_order, spread
from rewarm.corpus.ngram import NgramModel, fit_ngrams
from rewarm.corpus.scores import DocumentScorer, Scoring
from rewarm.corpus.tokenize import body_span
from rewarm.corpus.views import View, kept_documents, open_view, text_hashes
from rewarm.errors import CorpusError
from rewarm.records.facts import CorpusFacts
from rewarm.units import format_count

__all__ = ["NUM_FOLDS", "ClassifierScorer", "PerplexityScorer", "reference_scorer"]

NUM_FOLDS = 5
# Enough that a model or classifier is about more than a few texts.
_LEAST_DOCUMENTS = 10
_TOKENS_PER_PIECE = 2**22
_TOKENS_AT_ONCE = 2**19

Integers = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Floats = NDArray[np.float64]


class Bodies:
    """The documents of a training view without their frames, each known by its text's hash."""

    def __init__(self, facts: CorpusFacts, view: View) -> None:
        self.view = view
        self.hashes: Hashes = text_hashes(Path(facts.folder))[kept_documents(facts)]
        self._frame = facts.begin_token_ids, facts.end_token_ids

    def __getitem__(self, index: int) -> Integers:
        """Return the tokens of one document, int64 [tokens]."""
        document = self.view.document(index)
        start, stop = body_span(document, *self._frame)
        return document[start:stop]

    def drawn(self, indices: Integers, num_tokens: int) -> Integers:
        """Return the first of documents in an order that their hashes alone give, as few as hold
        `num_tokens`; all where they hold less."""
        order = indices[drawing_order(self.hashes[indices])]
        held = np.cumsum(self.view.document_tokens[order])
        return order[: int(np.searchsorted(held, num_tokens, side="left")) + 1]


def fold_of(hashes: Hashes) -> Integers:
    """Return the fold of texts by their hashes, int64 [texts]."""
    return (spread(hashes) % np.uint64(NUM_FOLDS)).astype(np.int64)


class Reference(NamedTuple):
    """The drawn documents of a reference, and the hash of each one's text."""

    name: str
    documents: list[Integers]
    hashes: Hashes

    @classmethod
    def of(cls, scoring: Scoring) -> Reference:
        """Return the reference of a source; raises CorpusError where it is too small."""
        facts = scoring.reference
        assert facts is not None
        bodies = Bodies(facts, open_view(facts))
        everything = np.arange(bodies.view.num_documents)
        chosen = bodies.drawn(everything, scoring.keep.reference_tokens)
        if len(chosen) < _LEAST_DOCUMENTS:
            raise CorpusError.one(
                f"sources.{scoring.source.name}.keep.reference",
                f"{facts.name!r} gives {len(chosen)} training documents; "
                f"{_LEAST_DOCUMENTS} are the least that a reference is taken from",
                "name a larger reference, or raise keep.reference_tokens",
            )
        return cls(facts.name, [bodies[int(index)] for index in chosen], bodies.hashes[chosen])

    def without(self, fold: int) -> list[Integers]:
        """Return the documents of all other folds."""
        return [
            document
            for document, other in zip(self.documents, fold_of(self.hashes), strict=True)
            if other != fold
        ]

    @property
    def num_tokens(self) -> int:
        """Tokens of the drawn documents."""
        return sum(map(len, self.documents))


@dataclass(frozen=True, slots=True, eq=False)
class PerplexityScorer:
    """exp of the mean nats of a document's tokens and its end; `known` has the scores of documents
    that the reference has too, by their numbers."""

    bodies: Bodies
    model: NgramModel
    known: dict[int, float]

    @classmethod
    def fit(cls, scoring: Scoring, view: View, say: Callable[[str], None]) -> PerplexityScorer:
        """Return the scorer of a source's view."""
        reference = Reference.of(scoring)
        bodies = Bodies(scoring.source, view)

        def model_of(documents: list[Integers]) -> NgramModel:
            order = scoring.keep.ngram_order
            return fit_ngrams(documents, vocab_size=scoring.vocab_size, order=order)

        say(
            f"counting runs of up to {scoring.keep.ngram_order} tokens in "
            f"{format_count(reference.num_tokens)} tokens of {reference.name}"
        )
        shared = np.flatnonzero(np.isin(bodies.hashes, reference.hashes))
        folds = fold_of(bodies.hashes[shared])
        known: dict[int, float] = {}
        for fold in np.unique(folds):
            say(f"{reference.name} has some of its documents: counting without fold {fold + 1}")
            indices = shared[folds == fold].tolist()
            found = _in_batches(bodies, indices, model_of(reference.without(int(fold))).mean_nats)
            known |= dict(zip(indices, found.tolist(), strict=True))
        return cls(bodies, model_of(reference.documents), known)

    @property
    def tokens_per_piece(self) -> int:
        """Tokens between one look at the disk and the next."""
        return _TOKENS_PER_PIECE

    def scores(self, first: int, last: int, /) -> Floats:
        """Return the perplexities of documents [first, last)."""
        indices = range(first, last)
        unseen = [index for index in indices if index not in self.known]
        nats = np.array([self.known.get(index, np.nan) for index in indices])
        nats[np.array(unseen, dtype=np.int64) - first] = _in_batches(
            self.bodies, unseen, self.model.mean_nats
        )
        found: Floats = np.exp(nats)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class ClassifierScorer:
    """Log-odds of being the reference's, each document's by the classifier of the other folds."""

    bodies: Bodies
    classifiers: tuple[LinearClassifier, ...]

    @classmethod
    def fit(cls, scoring: Scoring, view: View, say: Callable[[str], None]) -> ClassifierScorer:
        """Return the scorer of a source's view."""
        reference = Reference.of(scoring)
        bodies = Bodies(scoring.source, view)
        others = np.flatnonzero(~np.isin(bodies.hashes, reference.hashes))
        if len(others) < _LEAST_DOCUMENTS:
            raise CorpusError.one(
                f"sources.{scoring.source.name}.keep",
                f"{len(others)} of its documents are not the reference's; a classifier needs "
                f"{_LEAST_DOCUMENTS}",
                "name another reference, or leave keep out",
            )
        drawn = bodies.drawn(others, scoring.keep.reference_tokens)
        own = Reference(
            scoring.source.name, [bodies[int(index)] for index in drawn], bodies.hashes[drawn]
        )
        classifiers = []
        for fold in range(NUM_FOLDS):
            say(f"telling it from {reference.name}, fold {fold + 1} of {NUM_FOLDS}")
            theirs, ours = reference.without(fold), own.without(fold)
            if not (theirs and ours):
                raise CorpusError.one(
                    f"sources.{scoring.source.name}.keep",
                    "too few different texts: all that a classifier would read fall into one fold",
                    "name a larger reference, or keep by perplexity",
                )
            classifiers.append(fit_classifier(theirs, ours))
        return cls(bodies, tuple(classifiers))

    @property
    def tokens_per_piece(self) -> int:
        """Tokens between one look at the disk and the next."""
        return _TOKENS_PER_PIECE

    def scores(self, first: int, last: int, /) -> Floats:
        """Return the log-odds of documents [first, last)."""
        indices = np.arange(first, last)
        folds = fold_of(self.bodies.hashes[first:last])
        found = np.full(last - first, np.nan)
        for fold in np.unique(folds):
            chosen = indices[folds == fold].tolist()
            found[folds == fold] = _in_batches(self.bodies, chosen, self.classifiers[fold].log_odds)
        return found


def _in_batches(
    bodies: Bodies, indices: Sequence[int], score: Callable[[Sequence[Integers]], Floats]
) -> Floats:
    """Return the scores of some documents, read and scored in batches of bounded size."""
    found: list[Floats] = [np.empty(0)]
    batch: list[Integers] = []
    size = 0
    for index in indices:
        batch.append(bodies[index])
        size += len(batch[-1])
        if size >= _TOKENS_AT_ONCE:
            found.append(score(batch))
            batch, size = [], 0
    if batch:
        found.append(score(batch))
    return np.concatenate(found)


def reference_scorer(
    scoring: Scoring, view: View, say: Callable[[str], None] = lambda message: None
) -> DocumentScorer:
    """Return the scorer of a source whose documents are scored by their likeness to a reference.

    `say` is told what is done before the first score. Raises CorpusError where reference or source
    are too small.
    """
    if scoring.keep.score == "classifier":
        return ClassifierScorer.fit(scoring, view, say)
    return PerplexityScorer.fit(scoring, view, say)
