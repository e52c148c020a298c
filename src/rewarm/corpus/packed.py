"""A view whose windows are bins: whole documents side by side, and padding where none fits.

What is learned from a token does not depend on the windows: as in contiguous ones, the label of
each of the view's tokens is the view's next token. So the label of a document's last token is the
first token of the document that is stored after it, whichever lies beside it, and that of the last
token before a cut is the first one after it, in another window. Each token but the first is a label
once, none twice; contiguous windows leave out the row's tail, these do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.bins import Bins, open_bins
from rewarm.corpus.views import IGNORED_LABEL, Sequences, View, open_view
from rewarm.records.facts import CorpusFacts

__all__ = ["PADDING_INPUT", "PackedView", "open_windows"]

PADDING_INPUT = 0
"""What stands where a bin has no text: any id does, for no text attends to it and no label counts.
"""

Integers = NDArray[np.int64]


class _Layout(NamedTuple):
    """Where the pieces of windows lie, each an array over the pieces."""

    row: Integers  # which of the windows
    at: Integers  # first place in the window
    first: Integers  # first token in the view
    size: Integers


class PackedView:
    """A view's documents in the windows that a bin index makes of them."""

    def __init__(self, view: View, bins: Bins) -> None:
        self._view = view
        self._bins = bins

    @property
    def num_windows(self) -> int:
        """Windows that there are."""
        return self._bins.num_bins

    def sequences(self, windows: NDArray[np.integer], sequence_length: int, /) -> Sequences:
        """Return inputs and labels of windows, padded with PADDING_INPUT and IGNORED_LABEL.

        Raises CorpusError where a shard was cut while in use, ValueError for a window outside.
        """
        layout = self._layout(windows, sequence_length)
        shape = (len(windows), sequence_length)
        inputs, labels = np.full(shape, PADDING_INPUT), np.full(shape, IGNORED_LABEL)
        places = layout.row * sequence_length + layout.at
        self._view.read_into(inputs, layout.first, layout.size, places)
        self._view.read_into(labels, layout.first + 1, layout.size, places)
        self._view.drop_uncounted(labels, self.label_pieces(windows, sequence_length))
        return Sequences(inputs, labels)

    def positions(self, windows: NDArray[np.integer], sequence_length: int, /) -> Integers:
        """Return each input's place in its piece of a document, int64 [windows, sequence_length].

        Padding counts as a document of its own. Raises ValueError for a window outside.
        """
        layout = self._layout(windows, sequence_length)
        begins = np.zeros((len(windows), sequence_length), dtype=np.int64)
        begins[layout.row, layout.at] = layout.at
        ends = layout.at + layout.size
        is_inside = ends < sequence_length  # where the next piece, or the padding, begins
        begins[layout.row[is_inside], ends[is_inside]] = ends[is_inside]
        np.maximum.accumulate(begins, axis=1, out=begins)
        places: Integers = np.arange(sequence_length) - begins
        return places

    def label_pieces(
        self, windows: NDArray[np.integer], sequence_length: int
    ) -> Iterator[tuple[int, int, int, int]]:
        """Return where the labels of windows lie, as `View.pieces` does."""
        layout = self._layout(windows, sequence_length)
        places = layout.row * sequence_length + layout.at
        return self._view.pieces(layout.first + 1, layout.size, places)

    def documents_of_window(self, window: int, sequence_length: int) -> list[tuple[int, int, int]]:
        """Return (kept document, first, last) for a window's inputs: its tokens [first, last) of
        each document, in order."""
        layout = self._layout(np.array([window]), sequence_length)
        document = np.searchsorted(self._view.offsets, layout.first, side="right") - 1
        first = layout.first - self._view.offsets[document]
        columns = (document, first, first + layout.size)
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def document_id(self, index: int) -> str:
        """Return the id that the source gave a kept document; raises as `View.document_id`."""
        return self._view.document_id(index)

    def _layout(self, windows: NDArray[np.integer], sequence_length: int) -> _Layout:
        bins = self._bins
        if sequence_length != bins.sequence_length:
            raise ValueError(f"the bins are {bins.sequence_length} tokens, not {sequence_length}")
        if windows.size and not (windows.min() >= 0 and windows.max() < bins.num_bins):
            raise ValueError(f"a window is outside of [0, {bins.num_bins})")
        start = bins.starts[windows]
        number = bins.starts[windows + 1] - start
        before = np.cumsum(number) - number
        row = np.repeat(np.arange(len(windows)), number)
        piece = start[row] + np.arange(len(row)) - before[row]
        count = bins.counts[piece].astype(np.int64)
        end = np.cumsum(count)
        at = end - count
        return _Layout(row, at - at[before[row]], bins.firsts[piece], count)


def open_windows(
    facts: CorpusFacts, sequence_length: int, planned_bins: str | None
) -> View | PackedView:
    """Open the windows that a plan's source is shown in: contiguous ones, or those of the bin
    index whose fingerprint is `planned_bins`. Raises CorpusError."""
    view = open_view(facts)
    if planned_bins is None:
        return view
    return PackedView(view, open_bins(facts, sequence_length, planned_bins))
