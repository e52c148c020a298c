"""Which training documents of a source hold text that is measured on: found piece by piece.

The text is what the shards say, so token shards and conversations are looked through like any other
text. What was looked through before a kill stays. `corpus/contamination.py` has the rules.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rewarm.artifacts import fingerprint
from rewarm.corpus.contamination import (
    Copy,
    HeldOutMatcher,
    Matches,
    TaskHit,
    common_runs,
    copies_of_held_out,
)
from rewarm.corpus.contamination_index import Indexes, MeasuredText, load_indexes
from rewarm.corpus.drops import drop_folder, drop_of, load_drop, save_drop
from rewarm.corpus.executors import Executor
from rewarm.corpus.pieces import load_arrays, pieces_of, save_arrays
from rewarm.corpus.records import Rejections
from rewarm.corpus.sealed import alone
from rewarm.corpus.texts import texts_of
from rewarm.corpus.tokenize import Encoder, open_encoder
from rewarm.corpus.views import View, kept_documents, open_view, text_hashes
from rewarm.corpus.words import hash_words, spell_words
from rewarm.errors import EnvironmentFault
from rewarm.recipe.base import TokenizerRecipe
from rewarm.records.facts import CorpusFacts, DropFacts

__all__ = ["BY_HELD_OUT", "BY_TASK", "CurateProgress", "Decontamination", "decontaminate"]

FORMAT = 1
BY_TASK = "contaminated:tasks"
BY_HELD_OUT = "contaminated:held-out"
_PIECES, _TASKS = "pieces", "tasks"
_TOKENS_PER_PIECE = 2**22
_MANY_DROPPED = 0.05

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CurateProgress:
    """How far the documents of one source are looked through."""

    source: str
    documents: int
    tokens: int
    total_tokens: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Decontamination:
    """One source, what its documents are held against, and what turns its tokens into text."""

    source: CorpusFacts
    measured: MeasuredText
    tokenizer_folder: Path
    tokenizer_recipe: TokenizerRecipe
    vocab_size: int

    @property
    def key(self) -> str:
        """Return the fingerprint of everything that decides what is dropped."""
        return fingerprint(
            {"format": FORMAT, "text": self.source.tokens, "measured": self.measured.key}
        )

    @property
    def folder(self) -> Path:
        """Where what is dropped is, or will be, listed."""
        return drop_folder(self.source, "contaminated", self.key)

    def load(self) -> DropFacts | None:
        """Return what is dropped, if that is known; no text is read."""
        return load_drop(self.folder, self.key)


def decontaminate(
    wanted: Decontamination,
    index_folder: Callable[[], Path],
    executor: Executor,
    *,
    progress: Callable[[CurateProgress], None],
) -> DropFacts:
    """Return which training documents of a source are dropped, looking only where nobody has.

    `index_folder` returns where the index of what is measured on lies; it is called only where
    there is something to look through. Raises CorpusError where the text cannot be read,
    EnvironmentFault where the disk refuses.
    """
    folder = wanted.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder):
            found = wanted.load()
            found = found or _find(wanted, index_folder(), executor, progress)
            for leftover in (_PIECES, _TASKS):
                shutil.rmtree(folder / leftover, ignore_errors=True)
            return found
    except OSError as error:
        raise EnvironmentFault(
            f"{folder} cannot be written ({error.strerror or error})",
            "free some space or set prepared_folder elsewhere; the same command then goes on",
        ) from error


def _find(
    wanted: Decontamination,
    index_folder: Path,
    executor: Executor,
    progress: Callable[[CurateProgress], None],
) -> DropFacts:
    task = _Search(wanted, index_folder, progress)
    executor.run(task, range(len(task.pieces)), wanted.folder / _TASKS, wanted.source.name)
    documents, rejections, by, warnings = _decided(task)
    drop = drop_of(
        wanted.source,
        "contaminated",
        wanted.folder,
        wanted.key,
        documents,
        task.view,
        reasons=rejections.counts,
        by=by,
        warnings=warnings,
    )
    dropped = task.view.kept[documents]
    save_drop(drop, dropped, rejections.kept, wanted.source.tokenizer_fingerprint)
    return drop


class _Piece(NamedTuple):
    """What was found in documents [first, last) of the view, numbered from `first` on."""

    hits: list[TaskHit]
    matches: Matches


@dataclass
class _Search:
    """Looks through pieces of a source's training documents; can be sent to other processes."""

    wanted: Decontamination
    index_folder: Path
    progress: Callable[[CurateProgress], None] | None

    def __post_init__(self) -> None:
        self.started = time.monotonic()

    def __getstate__(self) -> dict[str, object]:
        # Elsewhere, files are opened anew, and nobody looks at a bar.
        fields = ("wanted", "index_folder", "started", "pieces")
        return {name: getattr(self, name) for name in fields} | {"progress": None}

    @cached_property
    def view(self) -> View:
        return open_view(self.wanted.source)

    @cached_property
    def ends(self) -> Integers:
        return self.view.offsets[1:]

    @cached_property
    def pieces(self) -> list[tuple[int, int]]:
        return list(pieces_of(self.ends, _TOKENS_PER_PIECE))

    @cached_property
    def _encoder(self) -> Encoder:
        wanted = self.wanted
        return open_encoder(
            wanted.tokenizer_folder, wanted.tokenizer_recipe, vocab_size=wanted.vocab_size
        )

    @cached_property
    def indexes(self) -> Indexes:
        return load_indexes(self.index_folder)

    @cached_property
    def _matcher(self) -> HeldOutMatcher:
        return HeldOutMatcher(self.indexes.held_out)

    def path(self, number: int) -> Path:
        return self.wanted.folder / _PIECES / f"{number:06d}.npz"

    def __call__(self, number: int) -> None:
        """Look through one piece, unless that is done."""
        first, last = self.pieces[number]
        if self.read(number) is None:
            save_arrays(self.path(number), _arrays(self._found(first, last)))
        if self.progress is not None:
            self.progress(
                CurateProgress(
                    source=self.wanted.source.name,
                    documents=last,
                    tokens=int(self.ends[last - 1]),
                    total_tokens=self.view.num_tokens,
                    elapsed_s=time.monotonic() - self.started,
                )
            )

    def read(self, number: int) -> _Piece | None:
        """Return what was found in a piece; None where it is not there, or damaged."""
        first, last = self.pieces[number]
        arrays = load_arrays(self.path(number), _NAMES)
        if arrays is None or len(arrays["num_runs"]) != last - first:
            return None
        hits = [TaskHit(*row) for row in arrays.pop("hits").reshape(-1, 4).tolist()]
        return _Piece(hits, Matches(**arrays))

    def _found(self, first: int, last: int) -> _Piece:
        hits: list[TaskHit] = []
        parts: list[Matches] = []
        for batch in texts_of(self.view, self._encoder, first, last):
            words = hash_words(batch.texts)
            at = batch.first - first
            hits += [
                hit._replace(document=hit.document + at) for hit in self.indexes.tasks.hits(words)
            ]
            found = self._matcher.matches(words)
            parts.append(found.moved(at))
        return _Piece(hits, Matches.joined(parts))

    def excerpt(self, document: int, words: slice | None = None) -> str:
        """Return some words of a document of the view, or how it begins."""
        (batch,) = texts_of(self.view, self._encoder, document, document + 1)
        return batch.texts[0] if words is None else " ".join(spell_words(batch.texts[0])[words])


_NAMES = ("hits", *Matches.__slots__)


def _arrays(piece: _Piece) -> dict[str, NDArray[np.int64]]:
    arrays = {name: getattr(piece.matches, name) for name in Matches.__slots__}
    return arrays | {"hits": np.array(piece.hits, dtype=np.int64).reshape(-1, 4)}


class _Decided(NamedTuple):
    documents: Integers  # of the view, in order
    rejections: Rejections
    by: Counter[str]
    warnings: tuple[str, ...]


def _pieces_found(task: _Search) -> Iterator[tuple[int, _Piece]]:
    for number, (first, _) in enumerate(task.pieces):
        piece = task.read(number)
        if piece is None:  # damaged since it was written
            task(number)
            piece = task.read(number)
        assert piece is not None
        yield first, piece


def _decided(task: _Search) -> _Decided:
    """Return which documents are dropped. Pieces are read twice, one at a time: what is common has
    to be known first."""
    indexes, facts = task.indexes, task.wanted.source
    common = common_runs(
        indexes.held_out, (piece.matches for _, piece in _pieces_found(task)), facts.num_documents
    )
    own_hashes = text_hashes(Path(facts.folder))[kept_documents(facts)]
    exact = np.isin(own_hashes, indexes.texts)
    documents: list[int] = []
    rejections, by = Rejections(), Counter[str]()
    for first, piece in _pieces_found(task):
        by_task = {first + hit.document: hit for hit in piece.hits}
        copies = {
            first + copy.text: copy
            for copy in copies_of_held_out(indexes.held_out, piece.matches, common)
        }
        last = first + len(piece.matches.num_runs)
        same = (first + np.flatnonzero(exact[first:last])).tolist()
        for document in sorted({*by_task, *copies, *same}):
            documents.append(document)
            hit, copy = by_task.get(document), copies.get(document)
            reason = BY_HELD_OUT if hit is None else BY_TASK
            if hit is not None:
                by[indexes.tasks.names[hit.task]] += 1
            elif copy is not None:
                by[indexes.source_of(copy.document)] += 1
            rejections.add_told(
                reason,
                partial(task.view.document_id, document),
                partial(_told, task, document, hit, copy),
            )
    return _Decided(
        np.array(documents, dtype=np.int64),
        rejections,
        by,
        _warnings(facts, len(documents), by, indexes),
    )


def _told(task: _Search, document: int, hit: TaskHit | None, copy: Copy | None) -> str:
    """Return what a person is shown of a dropped document."""
    if hit is not None:
        shared = task.excerpt(document, slice(hit.first, hit.last))
        return f"has text of task {task.indexes.tasks.names[hit.task]}: {shared}"
    whose = "a held-out document"
    if copy is not None:
        whose = f"a document that {task.indexes.source_of(copy.document)} holds out"
    return f"a copy of {whose}: {task.excerpt(document)}"


def _warnings(
    facts: CorpusFacts, num_dropped: int, by: Mapping[str, int], indexes: Indexes
) -> tuple[str, ...]:
    told = list(indexes.warnings)
    share = num_dropped / max(facts.num_documents, 1)
    if share > _MANY_DROPPED:
        most = max(by, key=lambda name: (by[name], name), default="")
        told.append(
            f"{share:.0%} of its training documents hold text that is measured on"
            + (f", most of them of {most}" if most else "")
            + ": look at them (dropped/contaminated-*/rejects.jsonl)"
        )
    return tuple(told)
