"""A view against the naive thing: its documents, one after the other, in one list."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewarm.corpus.shards import dtype_for, open_shard, write_shard
from rewarm.corpus.views import View
from rewarm.errors import CorpusError

lengths_of_shards = st.lists(st.lists(st.integers(0, 30), max_size=12), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(lengths_of_shards, st.integers(1, 9), st.data())
def test_a_view_is_its_documents_in_a_row(
    lengths: list[list[int]], sequence_length: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(0)
    documents = [[rng.integers(0, 500, n) for n in shard] for shard in lengths]
    flat = [document for shard in documents for document in shard]
    kept = [index for index in range(len(flat)) if data.draw(st.booleans())]
    with TemporaryDirectory() as folder:
        for number, shard in enumerate(documents):
            write_shard(Path(folder) / f"s{number}", shard, dtype_for(500))
        shards = [open_shard(Path(folder) / f"s{number}") for number in range(len(documents))]
        num_bytes = np.arange(len(flat)) * 10
        view = View(shards, np.array(kept, dtype=np.int64), num_bytes)

        row = np.concatenate([np.empty(0, np.int64)] + [flat[index] for index in kept])
        assert view.num_documents == len(kept)
        assert view.num_tokens == len(row)
        assert view.total_bytes == sum(10 * index for index in kept)
        for position, index in enumerate(kept):
            assert (view.document(position) == flat[index]).all()
            assert view.num_bytes(position) == 10 * index

        num_windows = max(0, (len(row) - 1) // sequence_length)
        windows = rng.permutation(num_windows)
        gathered = view.gather(windows, sequence_length)
        positions = view.positions(windows, sequence_length)
        assert positions.shape == (num_windows, sequence_length)
        for got, places, window in zip(gathered, positions, windows.tolist(), strict=True):
            start = window * sequence_length
            assert (got == row[start : start + sequence_length + 1]).all()
            spans = view.documents_of_window(window, sequence_length)
            pieces = [view.document(index)[first:last] for index, first, last in spans]
            assert (np.concatenate(pieces) == row[start : start + sequence_length]).all()
            assert (places == np.concatenate([np.arange(len(piece)) for piece in pieces])).all()
        with pytest.raises(ValueError, match="a window is outside"):
            view.gather(np.array([num_windows]), sequence_length)


def test_a_shard_cut_under_a_view_is_told(tmp_path: Path) -> None:
    write_shard(tmp_path / "s", [np.arange(50_000) % 90], dtype_for(90))
    view = View([open_shard(tmp_path / "s")], np.array([0]), np.array([1]))
    assert view.gather(np.array([100]), 16).shape == (1, 17)
    with (tmp_path / "s.bin").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(CorpusError, match="while it was in use"):
        view.gather(np.array([1000]), 16)
    with pytest.raises(CorpusError, match="while it was in use"):
        view.document(0)
