"""Scores of a source's training documents: made piece by piece, stored beside its shards.

A folder of scores is named after the key of all that decides them (scorer, text, reference,
tokenizer or weights). What was scored before a kill stays; `scores.npy` (float64, one a document of
the training view, NaN where nothing could be scored) and the manifest come last. Held-out documents
have no score. `corpus/mining.py` has the scores of neighbours, which no document has alone.
"""

from __future__ import annotations

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
from rewarm.corpus.pieces import load_arrays, pieces_of, save_arrays
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

__all__ = [
    "PIECES",
    "DocumentScorer",
    "EachAlone",
    "ScoreProgress",
    "ScoresMaker",
    "Scoring",
    "load_selected",
    "score_source",
]

FORMAT = 2
PIECES = "pieces"
"""Folder, within that of the scores, of what a kill must not cost; gone once they are complete."""

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


class ScoresMaker(Protocol):
    """Makes the scores of all documents of one view."""

    def make(self, folder: Path, view: View, done: Callable[[int], None], /) -> Floats:
        """Return the score of every document, float64; NaN where there is none.

        Files that belong to the scores go into `folder`, what is done so far into its `PIECES`;
        `done` is told up to which document that is.
        """
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
    embedding: str | None = None  # fingerprint of the model's weights, where one embeds

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
        elif self.keep.nearest is not None:
            keep = self.keep
            found |= {
                "queries": [self.reference.tokens, keep.queries, keep.max_queries],
                "neighbours": keep.neighbours,
                "embedding": self.embedding or keep.embedding,
                "max_similarity": keep.max_similarity,
            }
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
    ranking = rank(
        scores,
        num_tokens,
        hashes,
        lowest=keep.keeps_lowest,
        scored_alone=keep.nearest is not None,
    )
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
                lowest=keep.keeps_lowest,
                share=keep.share,
                tokens=keep.tokens,
                reference=keep.compared_with,
                scores=str(folder),
                key=key,
                kept=digest,
                worst=None if np.isnan(worst) else worst,
                of_documents=view.num_documents,
                of_tokens=view.num_tokens,
            ),
            "warnings": (
                *facts.warnings,
                *_warnings(keep, facts.num_tokens, int(num_tokens[kept].sum()), scores[kept]),
            ),
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
    keep: KeepRecipe, num_tokens: int, num_kept_tokens: int, kept_scores: Floats
) -> Iterator[str]:
    wanted = keep.tokens or round((keep.share or 0) * num_tokens)
    if keep.nearest is not None and num_kept_tokens < wanted:
        yield (
            f"keep asks for {wanted:,} tokens, and the {keep.neighbours} neighbours of each "
            f"question of {keep.nearest} hold {num_kept_tokens:,}: those are kept; raise "
            "keep.neighbours for more"
        )
    elif keep.tokens is not None and keep.tokens > num_tokens:
        yield f"keep asks for {keep.tokens:,} tokens and it has {num_tokens:,}: all of it is kept"
    unscored = int(np.isnan(kept_scores).sum())
    if unscored:
        yield f"{unscored:,} of the documents that are kept have nothing in them to score"


def score_source(
    scoring: Scoring,
    make_scorer: Callable[[View], ScoresMaker],
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
    make_scorer: Callable[[View], ScoresMaker],
    progress: Callable[[ScoreProgress], None],
) -> None:
    folder, view = scoring.folder, open_view(scoring.source)
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    maker = make_scorer(view)
    started = time.monotonic()
    ends = view.offsets[1:]

    def done(last: int) -> None:
        told = ScoreProgress(
            source=scoring.source.name,
            documents=last,
            tokens=int(ends[last - 1]),
            total_tokens=view.num_tokens,
            elapsed_s=time.monotonic() - started,
        )
        progress(told)

    _write_array(folder / SCORES, maker.make(folder, view, done))
    about = {
        "key": scoring.key,
        "settings": scoring.settings(),
        "tokenizer_fingerprint": scoring.source.tokenizer_fingerprint,
    }
    seal(folder, [], about)
    shutil.rmtree(folder / PIECES, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class EachAlone:
    """Makes scores that each document has by itself, in pieces."""

    scorer: DocumentScorer

    def make(self, folder: Path, view: View, done: Callable[[int], None], /) -> Floats:
        """Return the score of every document, those of stored pieces as they are."""
        found: list[Floats] = [np.empty(0)]
        pieces = pieces_of(view.offsets[1:], self.scorer.tokens_per_piece)
        for number, (first, last) in enumerate(pieces):
            path = folder / PIECES / f"{number:06d}.npz"
            piece = _read_piece(path, last - first)
            if piece is None:
                piece = self.scorer.scores(first, last).astype(np.float64)
                save_arrays(path, {"scores": piece})
            found.append(piece)
            done(last)
        return np.concatenate(found)


def _read_piece(path: Path, num_documents: int) -> Floats | None:
    """Return the scores of a piece that was made before; None where it is not as it was written."""
    # The archive's checksum tells damage that leaves shape and type as they were.
    arrays = load_arrays(path, ["scores"])
    if arrays is None:
        return None
    piece = arrays["scores"]
    return piece if piece.shape == (num_documents,) and piece.dtype == np.float64 else None


def _write_array(path: Path, values: Floats) -> None:
    buffer = io.BytesIO()
    np.save(buffer, values.astype(np.float64))
    write_atomically(path, buffer.getvalue())
