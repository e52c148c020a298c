"""Packing against packers that look at every bin, against the best there is, and token by token."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rewarm.corpus.best_fit import best_fit_decreasing
from rewarm.corpus.bins import Bins, pack
from rewarm.corpus.packed import PADDING_INPUT, PackedView
from rewarm.corpus.shards import open_shard, write_shard
from rewarm.corpus.views import IGNORED_LABEL, View

windows = st.integers(1, 40)


@st.composite
def pieces(draw: st.DrawFn, *, most: int = 80) -> tuple[list[int], int]:
    capacity = draw(windows)
    return draw(st.lists(st.integers(1, capacity), max_size=most)), capacity


def rooms_of_slow_packer(lengths: list[int], capacity: int) -> list[int]:
    """Return what every bin has left: the longest first, each where least is left after it."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [index for index, room in enumerate(rooms) if room >= length]
        if not fitting:
            rooms.append(capacity - length)
        else:
            rooms[min(fitting, key=lambda index: rooms[index])] -= length
    return sorted(rooms)


def fewest_bins(lengths: list[int], capacity: int) -> int:
    """Return the fewest bins there can be, by trying every one for every piece."""
    best = len(lengths)

    def search(left: list[int], rooms: tuple[int, ...]) -> None:
        nonlocal best
        if len(rooms) >= best:
            return
        if not left:
            best = len(rooms)
            return
        for index in {room: i for i, room in enumerate(rooms) if room >= left[0]}.values():
            changed = (*rooms[:index], rooms[index] - left[0], *rooms[index + 1 :])
            search(left[1:], changed)
        search(left[1:], (*rooms, capacity - left[0]))

    search(sorted(lengths, reverse=True), ())
    return best


@settings(max_examples=300, deadline=None)
@given(pieces())
def test_the_bins_are_those_of_a_packer_that_looks_at_all(case: tuple[list[int], int]) -> None:
    lengths, capacity = case
    bin_of, num_bins = best_fit_decreasing(np.array(lengths, dtype=np.int64), capacity)
    filled = np.zeros(num_bins, dtype=np.int64)
    np.add.at(filled, bin_of, np.array(lengths, dtype=np.int64))
    assert sorted((capacity - filled).tolist()) == rooms_of_slow_packer(lengths, capacity)
    firsts = [bin_of.tolist().index(number) for number in range(num_bins)]
    assert firsts == sorted(firsts), "bins are numbered by their first piece"


@settings(max_examples=150, deadline=None)
@given(pieces(most=9))
def test_no_packing_has_many_fewer_bins(case: tuple[list[int], int]) -> None:
    """At most 11/9 of the fewest, as is proven for many pieces (Johnson et al. 1974), and of so few
    pieces 6/9 more, the constant that is proven for first-fit decreasing (Dósa 2007)."""
    lengths, capacity = case
    _, num_bins = best_fit_decreasing(np.array(lengths, dtype=np.int64), capacity)
    fewest = fewest_bins(lengths, capacity)
    assert math.ceil(sum(lengths) / capacity) <= fewest <= num_bins
    assert num_bins <= 11 / 9 * fewest + 6 / 9


documents = st.lists(st.integers(0, 70), max_size=40)


@settings(max_examples=150, deadline=None)
@given(documents, windows, st.sampled_from([1, 3, 10, 2**22]), st.data())
def test_no_token_is_lost_or_doubled(
    lengths: list[int], length: int, lot_pieces: int, data: st.DataObject
) -> None:
    """Every token of the row is an input once, with the label that the row gives it."""
    num_tokens = sum(lengths)
    # Each token says where it stands, so that a place in a window names its token.
    row = np.arange(7, 7 + num_tokens)
    offsets = np.concatenate(([0], np.cumsum(np.array(lengths, dtype=np.int64))))
    bins = pack(offsets, length, lot_pieces=lot_pieces)
    with TemporaryDirectory() as folder:
        parts = [row[a:b] for a, b in itertools.pairwise(offsets)]
        write_shard(Path(folder) / "s", parts, np.dtype("<i4"))
        shard = open_shard(Path(folder) / "s")
        zeros = np.zeros(len(lengths), dtype=np.int64)
        packed = PackedView(View([shard], np.arange(len(lengths)), zeros), bins)
        order = np.array(data.draw(st.permutations(range(packed.num_windows))), dtype=np.int64)
        inputs, labels = packed.sequences(order, length)
        positions = packed.positions(order, length)
        is_text = labels != IGNORED_LABEL
        assert sorted(inputs[is_text].tolist()) == row[:-1].tolist()
        assert (labels[is_text] == inputs[is_text] + 1).all()
        assert (inputs[~is_text] == PADDING_INPUT).all()
        assert (is_text[:, :-1] >= is_text[:, 1:]).all(), "padding comes last"
        cut: Counter[int] = Counter()
        for index, window in enumerate(order.tolist()):
            places: list[int] = []
            tokens: list[int] = []
            for document, first, last in packed.documents_of_window(window, length):
                cut[document] += 1
                places += range(last - first)
                tokens += range(offsets[document] + first + 7, offsets[document] + last + 7)
            padding = length - len(places)
            assert tokens == inputs[index][: length - padding].tolist()
            assert positions[index].tolist() == [*places, *range(padding)]
    inputs_of = [min(int(end), num_tokens - 1) - int(start) for start, end in pairs(offsets)]
    for document, count in cut.items():
        assert count == -(-inputs_of[document] // length), "cut only as far as it must be"


def pairs(offsets: np.ndarray) -> list[tuple[int, int]]:
    return list(itertools.pairwise(offsets.tolist()))


@settings(max_examples=60, deadline=None)
@given(documents, windows, st.integers(1, 12))
def test_bins_follow_the_text(lengths: list[int], length: int, lot_pieces: int) -> None:
    offsets = np.concatenate(([0], np.cumsum(np.array(lengths, dtype=np.int64))))
    bins = pack(offsets, length, lot_pieces=lot_pieces)
    same(bins, pack(offsets, length, lot_pieces=lot_pieces))
    first_of_bins = bins.firsts[bins.starts[:-1]]
    assert (np.diff(first_of_bins) > 0).all()
    for start, end in pairs(bins.starts):
        assert (np.diff(bins.firsts[start:end]) > 0).all()
    # Lots waste at most what the last bins of each leave, beside packing all at once.
    whole = pack(offsets, length)
    assert bins.counts.sum() == whole.counts.sum() == max(0, sum(lengths) - 1)


def same(one: Bins, other: Bins) -> None:
    for name in ("firsts", "counts", "starts"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes()
