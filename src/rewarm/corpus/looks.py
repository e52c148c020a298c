"""Looks at one prepared source: its documents, their lengths and scores, and its windows.

Documents are numbered from 0 within the side that is looked at: all training documents, whether a
selection keeps them or not, or the held-out ones. Tokens are read where they are shown alone, from
the mapped shards; of every document the lengths are (some 50 bytes each).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.histogram import Histogram, histogram_of_counts, histogram_of_values
from rewarm.corpus.packed import PackedView
from rewarm.corpus.score_sets import ScoreSet, score_sets_of
from rewarm.corpus.spelling import Piece, Speller
from rewarm.corpus.views import IGNORED_LABEL, View, kept_documents, open_view, shard_prefixes
from rewarm.errors import CorpusError
from rewarm.records.facts import CorpusFacts

__all__ = ["ShownDocument", "ShownSpan", "ShownWindow", "SourceLook"]

_NAMES_SEARCHED = 20_000

Integers = NDArray[np.int64]


class ShownDocument(NamedTuple):
    """A document as far as it is shown; `pieces` are its tokens [first, last).

    `is_kept` tells whether a selection keeps it, None where there is none.
    """

    number: int
    id: str
    num_tokens: int
    num_bytes: int
    first: int
    last: int
    pieces: tuple[Piece, ...]
    scores: tuple[tuple[str, float], ...]
    is_kept: bool | None


class ShownSpan(NamedTuple):
    """A window's piece of a document: its tokens [first, last) of `num_tokens`."""

    number: int
    id: str
    first: int
    last: int
    num_tokens: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class ShownWindow:
    """A window of `sequence_length` inputs, with what lies in it, in order; the rest is padding.

    `num_counted` are the labels that count. `step` and `epoch` say when a plan shows it.
    """

    number: int
    sequence_length: int
    spans: tuple[ShownSpan, ...]
    num_counted: int
    step: int | None = None
    epoch: int | None = None

    @property
    def num_padding(self) -> int:
        """Inputs that are no text."""
        return self.sequence_length - sum(span.last - span.first for span in self.spans)


class SourceLook:
    """One side of a prepared source, opened to be looked at.

    Raises CorpusError where its files cannot be read or do not fit each other.
    """

    def __init__(
        self,
        facts: CorpusFacts,
        *,
        held_out: bool,
        speller: Speller | None,
    ) -> None:
        self.facts = facts
        self.held_out = held_out
        self._speller = speller
        whole = facts.model_copy(update={"selection": None})
        self.view = open_view(whole, held_out=held_out)
        self._numbers = self.view.kept
        # Held-out documents have none.
        self.score_sets: tuple[ScoreSet, ...] = ()
        if not held_out:
            self.score_sets = tuple(score_sets_of(facts, self.view.num_documents))
        self.selected: Integers | None = None
        if facts.selection is not None and not held_out:
            self.selected = np.searchsorted(self._numbers, kept_documents(facts))

    def is_kept(self) -> NDArray[np.bool_] | None:
        """Return which documents a selection keeps, bool [documents]; None without one."""
        if self.selected is None:
            return None
        kept = np.zeros(self.view.num_documents, dtype=np.bool_)
        kept[self.selected] = True
        return kept

    def lengths(self) -> Histogram:
        """Return how long its documents are, in tokens."""
        num_tokens = self.view.document_tokens
        return histogram_of_counts("length", "tokens", num_tokens, num_tokens)

    def density(self) -> Histogram:
        """Return how many tokens its documents have for each byte of their text."""
        num_tokens, num_bytes = self.view.document_tokens, self.view.document_bytes
        return histogram_of_values(
            "tokens per byte", "", num_tokens / np.maximum(num_bytes, 1), num_tokens
        )

    def scored(self) -> list[Histogram]:
        """Return what scores its documents have, with where a selection cuts them."""
        kept, num_tokens = self.is_kept(), self.view.document_tokens
        return [
            histogram_of_values(
                one.name,
                one.unit,
                one.values,
                num_tokens,
                kept=kept if one.is_selection else None,
                cut_at=one.cut_at,
            )
            for one in self.score_sets
        ]

    def sample(self, number: int, seed: int) -> list[int]:
        """Return the numbers of some documents: the same for the same seed."""
        count = self.view.num_documents
        drawn = np.random.default_rng(seed).choice(count, size=min(number, count), replace=False)
        return sorted(drawn.tolist())

    def document(self, number: int, most_tokens: int) -> ShownDocument:
        """Return a document with its first tokens as text; without a tokenizer there is none."""
        size = int(self.view.document_tokens[number])
        shown = min(size, most_tokens) if self._speller is not None else 0
        return ShownDocument(
            number=number,
            id=self.view.document_id(number),
            num_tokens=size,
            num_bytes=self.view.num_bytes(number),
            first=0,
            last=shown,
            pieces=self._pieces(number, 0, shown),
            scores=tuple((one.name, float(one.values[number])) for one in self.score_sets),
            is_kept=None if self.selected is None else bool((self.selected == number).any()),
        )

    def _pieces(self, number: int, first: int, last: int) -> tuple[Piece, ...]:
        if self._speller is None or last <= first:
            return ()
        ids, counted = self.view.stretch(number, first, last)
        return self._speller.pieces(ids, counted)

    def find(self, wanted: str) -> int:
        """Return the number of the document with this number or (where it is none) this id.

        `id:` in front says that it is an id. Raises CorpusError, with near ids, where there is no
        such document on this side.
        """
        count = self.view.num_documents
        is_number = wanted.isascii() and wanted.isdigit()
        if is_number and int(wanted) < count:
            return int(wanted)
        told = f"sources.{self.facts.name}"
        if is_number:
            last = f"give one from 0 to {count - 1}" if count else "there is none"
            raise CorpusError.one(
                told,
                f"it has no {self._side} document {wanted[:40]}; it has {count:,}",
                f"{last} (or id:{wanted[:40]} for a document with that id)",
            )
        name = wanted.removeprefix("id:")
        found = self._number_of(name)
        place = int(np.searchsorted(self._numbers, found)) if found is not None else count
        if place < count and self._numbers[place] == found:
            return place
        if found is not None:
            other = "without --held-out" if self.held_out else "with --held-out"
            raise CorpusError.one(
                told, f"document {name!r} is none of its {self._side} documents", f"look {other}"
            )
        near = self._near(name)
        raise CorpusError.one(
            told,
            f"it has no document {name[:200]!r}",
            f"did you mean {near}?"
            if near
            else f"give an id of its own, or a number below {count}",
        )

    @property
    def _side(self) -> str:
        return "held-out" if self.held_out else "training"

    def _ids(self) -> Iterator[tuple[int, bytes]]:
        """Yield every document's number over all shards and its id as it is stored, on a line."""
        number = 0
        for prefix in shard_prefixes(Path(self.facts.folder)):
            path = Path(f"{prefix}.ids")
            try:
                with path.open("rb") as file:
                    for line in file:
                        yield number, line.rstrip(b"\n")
                        number += 1
            except OSError as error:
                raise CorpusError.one(
                    str(path), f"it cannot be read ({error.strerror})", "run `rewarm prepare` again"
                ) from error

    def _number_of(self, name: str) -> int | None:
        spelled = json.dumps(name).encode()
        return next((number for number, line in self._ids() if line == spelled), None)

    def _near(self, name: str) -> str:
        """Return the nearest ids among the first ones, as words; empty where none is near."""
        known = []
        for number, line in self._ids():
            if number >= _NAMES_SEARCHED:
                break
            known.append(str(json.loads(line)))
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        return " or ".join(repr(one) for one in near)

    def window(
        self,
        windows: View | PackedView,
        number: int,
        sequence_length: int,
        most_tokens: int,
        *,
        step: int | None = None,
        epoch: int | None = None,
    ) -> ShownWindow:
        """Return a window (of the selected documents, where some are) with its documents."""
        spans = []
        for index, first, last in windows.documents_of_window(number, sequence_length):
            document = index if self.selected is None else int(self.selected[index])
            spans.append(
                ShownSpan(
                    number=document,
                    id=self.view.document_id(document),
                    first=first,
                    last=last,
                    num_tokens=int(self.view.document_tokens[document]),
                    pieces=self._pieces(document, first, min(last, first + most_tokens)),
                )
            )
        labels = windows.sequences(np.array([number]), sequence_length).labels
        num_counted = int((labels != IGNORED_LABEL).sum())
        return ShownWindow(number, sequence_length, tuple(spans), num_counted, step, epoch)
