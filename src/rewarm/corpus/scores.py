"""Scores of a source's training documents: made piece by piece, stored beside its shards.

A folder of scores is named after the key of all that decides them (scorer, text, reference,
tokenizer or weights). What was scored before a kill stays; `scores.npy` (float64, one a document of
the training view, NaN where nothing could be scored) and the manifest come last. Held-out documents
have no score.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rewarm.artifacts import MANIFEST_NAME, fingerprint, write_atomically
from rewarm.corpus.sealed import alone, changed_files, seal
from rewarm.corpus.selection import SCORES, digest_of, load_scores, rank
from rewarm.corpus.tags import count_tags
from rewarm.corpus.views import (
    View,
    kept_documents,
    label_counts,
    open_view,
    shard_prefixes,
    text_hashes,
)
from rewarm.errors import CorpusError, EnvironmentFault
from rewarm.recipe.keep import KeepRecipe
from rewarm.records.facts import CorpusFacts, SelectionFacts

__all__ = ["DocumentScorer", "ScoreProgress", "Scoring", "load_selected", "score_source"]

FORMAT = 1
_PIECES = "pieces"

Floats = NDArray[np.float64]


class DocumentScorer(Protocol):
    """Gives documents of one view their scores."""

    @property
    def tokens_per_piece(self) -> int:
        """About how many tokens are scored between one look at the disk and the next."""
        ...

    def scores(self, first: int, last: int, /) -> Floats:
        """Return the scores of the view's documents [first, last), NaN where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class ScoreProgress:
    """How far the scores of one source are."""

    source: str
    documents: int
    tokens: int
    total_tokens: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Scoring:
    """What decides the scores of a source; `source` and `reference` are measured, and whole."""

    source: CorpusFacts
    keep: KeepRecipe
    reference: CorpusFacts | None
    base_weights: str
    vocab_size: int
    window_tokens: int

    @property
    def key(self) -> str:
        """Return the fingerprint of everything that decides the scores."""
        return fingerprint({"format": FORMAT, **self.settings()})

    def settings(self) -> dict[str, Any]:
        """Return what decides the scores; a share that is kept does not."""
        found: dict[str, Any] = {
            "score": self.keep.score,
            "text": self.source.tokens,
            "tokenizer": self.source.tokenizer_fingerprint,
        }
        if self.reference is None:
            found |= {"base": self.base_weights, "window_tokens": self.window_tokens}
        else:
            found |= {
                "reference": self.reference.tokens,
                "reference_tokens": self.keep.reference_tokens,
            }
        if self.keep.score == "perplexity":
            found |= {"ngram": self.keep.ngram_order, "vocab_size": self.vocab_size}
        return found

    @property
    def folder(self) -> Path:
        """Where the scores are, or will be."""
        return Path(self.source.folder) / "scores" / f"{self.keep.score}-{self.key[:12]}"


def load_selected(scoring: Scoring) -> CorpusFacts | None:
    """Return the facts of a source whose documents are selected by scores that are there.

    None where they are not, or changed since. No text is read: a selection is a view.
    """
    folder, key = scoring.folder, scoring.key
    if not _is_complete(folder):
        return None
    facts, keep = scoring.source, scoring.keep
    view = open_view(facts)
    num_tokens = view.document_tokens
    scores = load_scores(folder, view.num_documents)
    hashes_of_all = text_hashes(Path(facts.folder))
    hashes = hashes_of_all[view.kept]
    ranking = rank(scores, num_tokens, hashes, lowest=keep.lowest is not None)
    kept = ranking.kept(share=keep.share, tokens=keep.tokens)
    worst = float(scores[ranking.best_first[len(kept) - 1]]) if len(kept) else float("nan")
    digest = digest_of(kept)
    languages, licences = _tags(facts, kept, len(hashes_of_all))
    is_masked = facts.num_label_tokens is not None
    num_labels = int(label_counts(facts)[kept].sum()) if is_masked else None
    return facts.model_copy(
        update={
            "tokens": fingerprint([facts.tokens, digest]),
            "num_documents": len(kept),
            "num_tokens": int(num_tokens[kept].sum()),
            "num_bytes": int(view.document_bytes[kept].sum()),
            "num_label_tokens": num_labels,
            "languages": languages,
            "licences": licences,
            "selection": SelectionFacts(
                score=keep.score,
                lowest=keep.lowest is not None,
                share=keep.share,
                tokens=keep.tokens,
                reference=keep.reference,
                scores=str(folder),
                key=key,
                kept=digest,
                worst=None if np.isnan(worst) else worst,
                of_documents=view.num_documents,
                of_tokens=view.num_tokens,
            ),
            "warnings": (*facts.warnings, *_warnings(facts, keep, scores, kept)),
        }
    )


def _tags(
    facts: CorpusFacts, kept: NDArray[np.int64], num_documents: int
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the kept training documents by language and by licence, where documents say it.

    `num_documents` are those of all shards, held-out ones too.
    """
    if not (facts.languages or facts.licences):
        return {}, {}
    shown = np.zeros(num_documents, dtype=np.bool_)
    shown[kept_documents(facts)[kept]] = True
    return count_tags(shard_prefixes(Path(facts.folder)), shown)


def _warnings(
    facts: CorpusFacts, keep: KeepRecipe, scores: Floats, kept: NDArray[np.int64]
) -> Iterator[str]:
    if keep.tokens is not None and keep.tokens > facts.num_tokens:
        yield (
            f"keep asks for {keep.tokens:,} tokens and it has {facts.num_tokens:,}: all of it is "
            "kept"
        )
    unscored = int(np.isnan(scores[kept]).sum())
    if unscored:
        yield f"{unscored:,} of the documents that are kept have nothing in them to score"


def score_source(
    scoring: Scoring,
    make_scorer: Callable[[View], DocumentScorer],
    *,
    progress: Callable[[ScoreProgress], None],
) -> CorpusFacts:
    """Return the selected facts of a source, scoring only what is not scored yet.

    `make_scorer` is called only where something is left to score. Raises CorpusError where the text
    cannot be read or scored, EnvironmentFault where the disk refuses.
    """
    folder = scoring.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder):
            if not _is_complete(folder):
                _score(scoring, make_scorer, progress)
    except OSError as error:
        raise EnvironmentFault(
            f"{folder} cannot be written ({error.strerror or error})",
            "free some space or set prepared_folder elsewhere; the same command then goes on",
        ) from error
    selected = load_selected(scoring)
    assert selected is not None
    return selected


def _is_complete(folder: Path) -> bool:
    try:
        return (folder / MANIFEST_NAME).is_file() and not changed_files(folder)
    except CorpusError:
        return False


def _score(
    scoring: Scoring,
    make_scorer: Callable[[View], DocumentScorer],
    progress: Callable[[ScoreProgress], None],
) -> None:
    folder, view = scoring.folder, open_view(scoring.source)
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    scorer = make_scorer(view)
    started = time.monotonic()
    found: list[Floats] = [np.empty(0)]
    ends = np.cumsum(view.document_tokens)
    for number, (first, last) in enumerate(_pieces(ends, scorer.tokens_per_piece)):
        path = folder / _PIECES / f"{number:06d}.npy"
        piece = _read_piece(path, last - first)
        if piece is None:
            piece = scorer.scores(first, last)
            _write_array(path, piece)
        found.append(piece)
        told = ScoreProgress(
            source=scoring.source.name,
            documents=last,
            tokens=int(ends[last - 1]),
            total_tokens=view.num_tokens,
            elapsed_s=time.monotonic() - started,
        )
        progress(told)
    _write_array(folder / SCORES, np.concatenate(found))
    about = {
        "key": scoring.key,
        "settings": scoring.settings(),
        "tokenizer_fingerprint": scoring.source.tokenizer_fingerprint,
    }
    seal(folder, [], about)
    shutil.rmtree(folder / _PIECES, ignore_errors=True)


def _pieces(ends: NDArray[np.int64], tokens_per_piece: int) -> Iterator[tuple[int, int]]:
    """Yield [first, last) documents of each piece, by the lengths of documents alone."""
    first = 0
    for number in np.unique((ends - 1) // tokens_per_piece):
        last = int(np.searchsorted(ends, (number + 1) * tokens_per_piece, side="right"))
        if last > first:
            yield first, last
            first = last


def _read_piece(path: Path, num_documents: int) -> Floats | None:
    """Return the scores of a piece that was made before; None where it is not as it was written."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        piece = np.load(path, allow_pickle=False)
        if piece.shape == (num_documents,) and piece.dtype == np.float64:
            found: Floats = piece
            return found
    return None


def _write_array(path: Path, values: Floats) -> None:
    buffer = io.BytesIO()
    np.save(buffer, values.astype(np.float64))
    write_atomically(path, buffer.getvalue())
