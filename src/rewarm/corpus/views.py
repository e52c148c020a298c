"""A view: the documents of a source that are kept, as one long row of tokens.

Held-out split and every later selection are views over the same shards, so none of them needs a
second pass over the text. Window q of length L is the view's tokens [qL, qL + L]: L inputs and one
label more, which is the next window's first input.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.shards import TokenShard, open_shard
from rewarm.errors import CorpusError
from rewarm.records.facts import CorpusFacts

__all__ = ["HELD_OUT", "TRAIN", "View", "open_view", "shard_prefixes"]

TRAIN = "train.view.npy"
HELD_OUT = "held_out.view.npy"

Integers = NDArray[np.int64]


class View:
    """The kept documents of a source's shards.

    `kept` numbers documents over all shards, in increasing order; `num_bytes_of` gives the UTF-8
    bytes of every document of the shards.
    """

    def __init__(
        self, shards: Sequence[TokenShard], kept: Integers, num_bytes_of: Integers
    ) -> None:
        self._shards = tuple(shards)
        self._kept = kept
        self._num_bytes_of = num_bytes_of
        counts = np.array([shard.num_documents for shard in shards], dtype=np.int64)
        self._first_document = np.concatenate(([0], np.cumsum(counts)))
        self._shard_of = np.searchsorted(self._first_document, kept, side="right") - 1
        starts = np.concatenate([s.document_starts[:-1] for s in shards] or [np.empty(0, np.int64)])
        ends = np.concatenate([s.document_starts[1:] for s in shards] or [np.empty(0, np.int64)])
        self._start_in_shard = starts[kept]
        lengths = ends[kept] - self._start_in_shard
        self._offsets = np.concatenate(([0], np.cumsum(lengths)))
        self._run_of = self._runs(lengths)

    def _runs(self, lengths: Integers) -> tuple[Integers, Integers, Integers]:
        """Return runs of kept documents that touch in one shard: shard, first token there, offset.

        With a few per cent held out a run has dozens of documents, so that a window is mostly one
        copy.
        """
        if not len(lengths):
            empty = np.empty(0, dtype=np.int64)
            return empty, empty, empty
        touches = (self._shard_of[1:] == self._shard_of[:-1]) & (
            self._start_in_shard[1:] == self._start_in_shard[:-1] + lengths[:-1]
        )
        first = np.flatnonzero(np.concatenate(([True], ~touches)))
        return self._shard_of[first], self._start_in_shard[first], self._offsets[:-1][first]

    @property
    def num_documents(self) -> int:
        """Documents that are kept."""
        return len(self._kept)

    @property
    def num_tokens(self) -> int:
        """Tokens of the kept documents, frames included."""
        return int(self._offsets[-1])

    @property
    def total_bytes(self) -> int:
        """UTF-8 bytes of the kept documents."""
        return int(self._num_bytes_of[self._kept].sum())

    def num_bytes(self, index: int) -> int:
        """Return the UTF-8 bytes of one kept document's text."""
        return int(self._num_bytes_of[self._kept[index]])

    def document(self, index: int) -> Integers:
        """Return the token ids of one kept document with its frame, int64 [tokens]."""
        first, last = int(self._offsets[index]), int(self._offsets[index + 1])
        out = np.empty(last - first, dtype=np.int64)
        self._check_whole()
        self._copy(first, out)
        return out

    def gather(self, windows: NDArray[np.integer], sequence_length: int, /) -> Integers:
        """Return windows, int64 [windows, sequence_length + 1].

        Raises CorpusError where a shard was cut while in use, ValueError for a window outside.
        """
        last = (self.num_tokens - 1) // sequence_length
        if windows.size and not (windows.min() >= 0 and windows.max() < last):
            raise ValueError(f"a window is outside of [0, {last})")
        self._check_whole()
        out = np.empty((len(windows), sequence_length + 1), dtype=np.int64)
        for row, window in zip(out, windows.tolist(), strict=True):
            self._copy(window * sequence_length, row)
        return out

    def documents_of_window(self, window: int, sequence_length: int) -> list[tuple[int, int, int]]:
        """Return (kept document, first, last) for a window's inputs: its tokens [first, last) of
        each document, in order. The one label beyond the inputs is not counted."""
        first, last = window * sequence_length, (window + 1) * sequence_length
        spans: list[tuple[int, int, int]] = []
        index = int(np.searchsorted(self._offsets, first, side="right")) - 1
        while first < last:
            start, end = int(self._offsets[index]), int(self._offsets[index + 1])
            if end > first:
                spans.append((index, first - start, min(last, end) - start))
                first = min(last, end)
            index += 1
        return spans

    def document_id(self, index: int) -> str:
        """Return the id that the source gave a kept document."""
        shard = int(self._shard_of[index])
        inside = int(self._kept[index] - self._first_document[shard])
        path = self._shards[shard].path.with_suffix(".ids")
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                if number == inside:
                    return str(json.loads(line))
        raise CorpusError.one(str(path), f"it has no line {inside}", "run `rewarm prepare` again")

    def _check_whole(self) -> None:
        for shard in self._shards:
            shard.check_whole()

    def _copy(self, first: int, out: Integers) -> None:
        """Fill `out` with the view's tokens from `first` on."""
        shard_of, start_of, offset_of = self._run_of
        run = int(np.searchsorted(offset_of, first, side="right")) - 1
        filled = 0
        while filled < len(out):
            offset = int(offset_of[run])
            end = int(offset_of[run + 1]) if run + 1 < len(offset_of) else self.num_tokens
            position = first + filled
            count = min(len(out) - filled, end - position)
            begin = int(start_of[run]) + position - offset
            tokens = self._shards[int(shard_of[run])].tokens(begin, begin + count)
            out[filled : filled + count] = tokens
            filled += count
            run += 1


def shard_prefixes(folder: Path) -> list[Path]:
    """Return the prefixes of a prepared folder's shards, in their order."""
    return [path.with_suffix("") for path in sorted(folder.glob("shard-*.idx"))]


def open_view(facts: CorpusFacts, *, held_out: bool = False) -> View:
    """Open the training or held-out view of a prepared source; raises CorpusError."""
    folder = Path(facts.folder)
    prefixes = shard_prefixes(folder)
    shards = [open_shard(prefix) for prefix in prefixes]
    try:
        kept = np.load(folder / (HELD_OUT if held_out else TRAIN), allow_pickle=False)
        num_bytes = [np.load(f"{prefix}.bytes.npy", allow_pickle=False) for prefix in prefixes]
    except (OSError, ValueError) as error:
        raise CorpusError.one(
            str(folder), f"its views cannot be read ({error})", "run `rewarm prepare` again"
        ) from error
    total = np.concatenate(num_bytes).astype(np.int64) if num_bytes else np.empty(0, np.int64)
    if len(total) != sum(shard.num_documents for shard in shards):
        raise CorpusError.one(
            str(folder), "its shards and their byte counts disagree", "run `rewarm prepare` again"
        )
    return View(shards, kept.astype(np.int64), total)
