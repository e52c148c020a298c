"""A view: the documents of a source that are kept, as one long row of tokens.

Held-out split and selection by scores are views over the same shards, so none of them needs a
second pass over the text. Window q of length L is the view's tokens [qL, qL + L]: L inputs and one
label more, which is the next window's first input. `corpus/packed.py` has windows that documents
are packed into instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.encoding import TEXT_HASHES
from rewarm.corpus.label_mask import LABEL_COUNTS, LabelMask, open_label_mask
from rewarm.corpus.selection import chosen_documents
from rewarm.corpus.shards import TokenShard, open_shard
from rewarm.errors import CorpusError, UserError
from rewarm.records.facts import CorpusFacts

__all__ = [
    "HELD_OUT",
    "IGNORED_LABEL",
    "TRAIN",
    "Sequences",
    "View",
    "kept_documents",
    "label_counts",
    "open_view",
    "shard_prefixes",
    "text_hashes",
]

TRAIN = "train.view.npy"
HELD_OUT = "held_out.view.npy"
IGNORED_LABEL = -100
"""A label that does not count, as in torch.nn.functional.cross_entropy."""

Integers = NDArray[np.int64]

_NONE: Integers = np.empty(0, dtype=np.int64)


class Sequences(NamedTuple):
    """What a model reads and what it is to say: int64 [windows, sequence_length] each.

    A label is the view's token after the input's, or `IGNORED_LABEL`.
    """

    inputs: Integers
    labels: Integers


class _Runs(NamedTuple):
    """Stretches of the view that lie in one piece in a shard, each an array over the runs."""

    shard: Integers
    start: Integers  # first token, counted from the shard's beginning
    offset: Integers  # first token, counted from the view's beginning
    end: Integers  # token after the last one, counted from the view's beginning


class View:
    """The kept documents of a source's shards.

    `kept` numbers documents over all shards, in increasing order; `num_bytes_of` gives the UTF-8
    bytes of every document of the shards. `label_masks`, one for each shard or none, say which
    tokens are trained on. Memory: 24 bytes per document.
    """

    def __init__(
        self,
        shards: Sequence[TokenShard],
        kept: Integers,
        num_bytes_of: Integers,
        label_masks: Sequence[LabelMask] = (),
    ) -> None:
        self._shards = tuple(shards)
        self._label_masks = tuple(label_masks)
        self._kept = kept
        self._num_bytes_of = num_bytes_of
        counts = np.array([shard.num_documents for shard in shards], dtype=np.int64)
        self._first_document = np.concatenate(([0], np.cumsum(counts)))
        none = np.empty(0, dtype=np.int64)
        starts = np.concatenate([s.document_starts[:-1] for s in shards] or [none])[kept]
        ends = np.concatenate([s.document_starts[1:] for s in shards] or [none])[kept]
        self._offsets = np.concatenate(([0], np.cumsum(ends - starts)))
        self._runs = self._find_runs(starts, ends)
        self._line_ends: dict[int, Integers] = {}

    def _find_runs(self, starts: Integers, ends: Integers) -> _Runs:
        """Merge kept documents that touch within one shard.

        With a few per cent held out a run has dozens of documents, so that a window is mostly one
        copy.
        """
        shard_of = self._shard_of(self._kept)
        begins = np.ones(len(starts), dtype=np.bool_)
        begins[1:] = (shard_of[1:] != shard_of[:-1]) | (starts[1:] != ends[:-1])
        first = np.flatnonzero(begins)
        offsets = self._offsets[:-1][first]
        return _Runs(
            shard_of[first], starts[first], offsets, np.append(offsets[1:], self.num_tokens)
        )

    def _shard_of(self, documents: Integers) -> Integers:
        return np.searchsorted(self._first_document, documents, side="right") - 1

    @property
    def num_documents(self) -> int:
        """Documents that are kept."""
        return len(self._kept)

    @property
    def kept(self) -> Integers:
        """Numbers of the kept documents over all shards, in order, int64 [documents]."""
        return self._kept

    @property
    def num_tokens(self) -> int:
        """Tokens of the kept documents, frames included."""
        return int(self._offsets[-1])

    @property
    def document_tokens(self) -> Integers:
        """Tokens of each kept document, frames included, int64 [documents]."""
        return np.diff(self._offsets)

    @property
    def document_bytes(self) -> Integers:
        """UTF-8 bytes of each kept document's text, int64 [documents]."""
        found: Integers = self._num_bytes_of[self._kept]
        return found

    @property
    def total_bytes(self) -> int:
        """UTF-8 bytes of the kept documents."""
        return int(self._num_bytes_of[self._kept].sum())

    @property
    def offsets(self) -> Integers:
        """At which of the view's tokens each kept document begins, int64 [documents + 1]."""
        return self._offsets

    def num_bytes(self, index: int) -> int:
        """Return the UTF-8 bytes of one kept document's text."""
        return int(self._num_bytes_of[self._kept[index]])

    def document(self, index: int) -> Integers:
        """Return the token ids of one kept document with its frame, int64 [tokens]."""
        first, last = int(self._offsets[index]), int(self._offsets[index + 1])
        return self._read(np.array([first]), last - first)[0]  # type: ignore[no-any-return]

    def head(self, index: int, num_tokens: int) -> Integers:
        """Return the first tokens of one kept document, int64 [at most num_tokens]."""
        first, last = int(self._offsets[index]), int(self._offsets[index + 1])
        return self._read(np.array([first]), min(num_tokens, last - first))[0]  # type: ignore[no-any-return]

    def stretch(
        self, index: int, first: int, last: int
    ) -> tuple[Integers, NDArray[np.bool_] | None]:
        """Return tokens [first, last) of one kept document, int64 [tokens], and which of them the
        loss counts, bool [tokens]; None where it counts all of them.

        Raises CorpusError where a shard or a mask was cut while in use.
        """
        begin = np.array([self._offsets[index] + first])
        ids: Integers = self._read(begin, last - first)[0]
        if not self._label_masks:
            return ids, None
        marked = ids.copy()
        self.drop_uncounted(marked, self.pieces(*_rows(begin, last - first)))
        return ids, marked != IGNORED_LABEL

    def gather(self, windows: NDArray[np.integer], sequence_length: int, /) -> Integers:
        """Return windows, int64 [windows, sequence_length + 1].

        Raises CorpusError where a shard was cut while in use, ValueError for a window outside.
        """
        self._check_windows(windows, sequence_length)
        return self._read(windows.astype(np.int64) * sequence_length, sequence_length + 1)

    def sequences(self, windows: NDArray[np.integer], sequence_length: int, /) -> Sequences:
        """Return inputs and labels of windows; raises as `gather` does."""
        tokens = self.gather(windows, sequence_length)
        labels = np.ascontiguousarray(tokens[:, 1:])
        self.drop_uncounted(labels, self.label_pieces(windows, sequence_length))
        return Sequences(tokens[:, :-1], labels)

    def label_pieces(
        self, windows: NDArray[np.integer], sequence_length: int
    ) -> Iterator[tuple[int, int, int, int]]:
        """Return where the labels of windows lie, as `pieces` does."""
        self._check_windows(windows, sequence_length)
        return self.pieces(*_rows(windows.astype(np.int64) * sequence_length + 1, sequence_length))

    def positions(self, windows: NDArray[np.integer], sequence_length: int, /) -> Integers:
        """Return each input's place in its document, int64 [windows, sequence_length].

        A document that began before the window counts from the window's first token on. Raises
        ValueError for a window outside.
        """
        self._check_windows(windows, sequence_length)
        firsts = windows.astype(np.int64) * sequence_length
        low = np.searchsorted(self._offsets, firsts, side="right")
        high = np.searchsorted(self._offsets, firsts + sequence_length, side="left")
        counts = high - low
        row = np.repeat(np.arange(len(firsts)), counts)
        index = low[row] + np.arange(len(row)) - (np.cumsum(counts) - counts)[row]
        begins = np.zeros((len(firsts), sequence_length), dtype=np.int64)
        place = self._offsets[index] - firsts[row]
        begins[row, place] = place
        np.maximum.accumulate(begins, axis=1, out=begins)
        places: Integers = np.arange(sequence_length) - begins
        return places

    def drop_uncounted(self, labels: Integers, pieces: Iterator[tuple[int, int, int, int]]) -> None:
        """Put IGNORED_LABEL in place of labels that are not trained on, where the source says so.

        `labels` is a contiguous array, `pieces` what `label_pieces` gives for it. Raises
        CorpusError where a mask was cut while in use.
        """
        if not self._label_masks:
            return
        flat = labels.reshape(-1)
        masks: dict[int, NDArray[np.bool_]] = {}
        for shard, start, to, count in pieces:
            if shard not in masks:
                masks[shard] = self._label_masks[shard].counted()
            flat[to : to + count][~masks[shard][start : start + count]] = IGNORED_LABEL

    def _check_windows(self, windows: NDArray[np.integer], sequence_length: int) -> None:
        last = max(0, (self.num_tokens - 1) // sequence_length)
        if windows.size and not (windows.min() >= 0 and windows.max() < last):
            raise ValueError(f"a window is outside of [0, {last})")

    def _read(self, firsts: Integers, length: int) -> Integers:
        """Return the view's tokens [first, first + length) for each `first`, int64 [n, length]."""
        out = np.empty((len(firsts), length), dtype=np.int64)
        self.read_into(out, *_rows(firsts, length))
        return out

    def read_into(
        self, out: Integers, firsts: Integers, counts: Integers, places: Integers
    ) -> None:
        """Write the view's tokens [first, first + count) to places of `out`, a contiguous array.

        Raises CorpusError where a shard was cut while in use.
        """
        flat = out.reshape(-1)
        tokens: dict[int, NDArray[np.integer]] = {}
        for shard, start, to, count in self.pieces(firsts, counts, places):
            if shard not in tokens:
                tokens[shard] = self._whole_tokens(shard)
            flat[to : to + count] = tokens[shard][start : start + count]

    def pieces(
        self, firsts: Integers, counts: Integers, places: Integers
    ) -> Iterator[tuple[int, int, int, int]]:
        """Return where stretches [first, first + count) of the view lie in shards, each stretch
        being wanted at a place of an array: (shard, its first token, place in the array, count).

        Which pieces of which runs make up the stretches is worked out for all at once; a piece is
        then one slice copied onto another, at about a microsecond each.
        """
        if not counts.sum():
            return iter(())
        runs = self._runs
        first_run = np.searchsorted(runs.offset, firsts, side="right") - 1
        last_run = np.searchsorted(runs.offset, firsts + counts - 1, side="right") - 1
        num_pieces = last_run - first_run + 1
        row = np.repeat(np.arange(len(firsts)), num_pieces)
        before = np.cumsum(num_pieces) - num_pieces
        run = first_run[row] + np.arange(len(row)) - before[row]
        begin = np.maximum(runs.offset[run], firsts[row])
        end = np.minimum(runs.end[run], (firsts + counts)[row])
        target = places[row] + begin - firsts[row]
        source = runs.start[run] + begin - runs.offset[run]
        columns = (runs.shard[run], source, target, end - begin)
        return zip(*(column.tolist() for column in columns), strict=True)

    def _whole_tokens(self, shard: int) -> NDArray[np.integer]:
        """Return a shard's tokens, mapped, having made sure that the file is still whole."""
        self._shards[shard].check_whole()
        return self._shards[shard].tokens(0, self._shards[shard].num_tokens)

    def documents_of_window(self, window: int, sequence_length: int) -> list[tuple[int, int, int]]:
        """Return (kept document, first, last) for a window's inputs: its tokens [first, last) of
        each document, in order. The one label beyond the inputs is not counted."""
        self._check_windows(np.array([window]), sequence_length)
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
        """Return the id that the source gave a kept document.

        Raises CorpusError where the ids do not belong to the shard.
        """
        shard = int(self._shard_of(self._kept[index]))
        line = int(self._kept[index] - self._first_document[shard])
        path = self._shards[shard].path.with_suffix(".ids")
        try:
            with path.open("rb") as file:
                if shard not in self._line_ends:
                    raw = np.frombuffer(file.read(), dtype=np.uint8)
                    self._line_ends[shard] = np.flatnonzero(raw == ord("\n"))
                ends = self._line_ends[shard]
                if len(ends) != self._shards[shard].num_documents:
                    raise ValueError(f"{len(ends)} ids")
                start = int(ends[line - 1]) + 1 if line else 0
                file.seek(start)
                return str(json.loads(file.read(int(ends[line]) - start)))
        except (OSError, ValueError) as error:
            raise CorpusError.one(
                str(path),
                f"it does not hold one id for each document of its shard ({error})",
                "run `rewarm prepare` again",
            ) from error


def _rows(firsts: Integers, length: int) -> tuple[Integers, Integers, Integers]:
    """Return firsts, counts and places of stretches of one length that are laid end to end."""
    return firsts, np.full(len(firsts), length), np.arange(len(firsts)) * length


def shard_prefixes(folder: Path) -> list[Path]:
    """Return the prefixes of a prepared folder's shards, in their order."""
    return [path.with_suffix("") for path in sorted(folder.glob("shard-*.idx"))]


def open_view(facts: CorpusFacts, *, held_out: bool = False) -> View:
    """Open the training or held-out view of a prepared source; raises CorpusError.

    Of a source with a selection, the training view holds what is selected.
    """
    folder = Path(facts.folder)
    prefixes = shard_prefixes(folder)
    shards = [open_shard(prefix) for prefix in prefixes]
    num_tokens = np.concatenate([np.diff(shard.document_starts) for shard in shards] or [_NONE])
    kept = _kept(facts, num_tokens, held_out=held_out)
    num_bytes = [_load_integers(Path(f"{prefix}.bytes.npy")) for prefix in prefixes]
    total = np.concatenate([*num_bytes, _NONE])
    if len(total) != len(num_tokens):
        raise _unusable(folder, "its shards and their byte counts disagree")
    masks = [
        mask
        for prefix, shard in zip(prefixes, shards, strict=True)
        if (mask := open_label_mask(prefix, shard.num_tokens)) is not None
    ]
    # The facts tell whether masks belong here: without one, prompts would be trained on unnoticed.
    if (facts.num_label_tokens is not None or masks) and len(masks) != len(shards):
        raise _unusable(folder, f"{len(shards) - len(masks)} of its masks of labels are gone")
    return View(shards, kept, total, masks)


def kept_documents(facts: CorpusFacts, *, held_out: bool = False) -> Integers:
    """Return the numbers of a view's documents over all shards, in order; raises CorpusError.

    Shards are opened only where lengths decide.
    """
    if held_out or facts.selection is None:
        return _load_integers(Path(facts.folder) / (HELD_OUT if held_out else TRAIN))
    shards = [open_shard(prefix) for prefix in shard_prefixes(Path(facts.folder))]
    num_tokens = np.concatenate([np.diff(shard.document_starts) for shard in shards] or [_NONE])
    return _kept(facts, num_tokens, held_out=held_out)


def _kept(facts: CorpusFacts, num_tokens: Integers, *, held_out: bool) -> Integers:
    """Return a view's documents; `num_tokens` are those of every document of the shards."""
    folder, num_documents = Path(facts.folder), len(num_tokens)
    kept = _load_integers(folder / (HELD_OUT if held_out else TRAIN))
    if kept.size and not (kept[0] >= 0 and kept[-1] < num_documents and (np.diff(kept) > 0).all()):
        raise _unusable(folder, "its view does not fit its shards")
    if held_out or facts.selection is None:
        return kept
    hashes = text_hashes(folder)
    if len(hashes) != num_documents:
        raise _unusable(folder, "its shards and their hashes disagree")
    return kept[chosen_documents(facts.selection, num_tokens[kept], hashes[kept])]


def text_hashes(folder: Path) -> NDArray[np.uint64]:
    """Return the 64-bit hash of every document's text, over all shards; raises CorpusError."""
    every: list[NDArray[np.uint64]] = [np.empty(0, dtype=np.uint64)]
    for prefix in shard_prefixes(folder):
        path = Path(f"{prefix}{TEXT_HASHES}")
        every.append(_load_integers(path).view(np.uint64))
    return np.concatenate(every)


def label_counts(facts: CorpusFacts) -> Integers:
    """Return how many tokens of each training document of conversations count as labels, of those
    that are kept; raises CorpusError."""
    folder = Path(facts.folder)
    every = [_load_integers(Path(f"{prefix}{LABEL_COUNTS}")) for prefix in shard_prefixes(folder)]
    counts, kept = np.concatenate([*every, _NONE]), kept_documents(facts)
    if kept.size and kept[-1] >= len(counts):
        raise _unusable(folder, "its shards and their counts of labels disagree")
    found: Integers = counts[kept]
    return found


def _load_integers(path: Path) -> Integers:
    """Return the whole numbers [n] of a `.npy` file; raises CorpusError naming it."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _unusable(path, f"it cannot be read ({error})") from error
    if not (isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iu"):
        raise _unusable(path, "it holds no list of whole numbers")
    return values.astype(np.int64, copy=False)


def _unusable(path: Path, what: str) -> UserError:
    return CorpusError.one(str(path), what, "delete the prepared folder and run `rewarm prepare`")
