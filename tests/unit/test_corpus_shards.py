"""The shard format against bytes packed by hand, and every damage told with its file."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from rewarm.corpus.shards import dtype_for, open_shard, write_shard
from rewarm.errors import CorpusError

DOCUMENTS = [np.array([1, 2, 3]), np.array([], dtype=np.int64), np.array([70, 65_535])]


def test_the_index_is_megatrons_byte_for_byte(tmp_path: Path) -> None:
    write_shard(tmp_path / "s", DOCUMENTS, dtype_for(65_536))
    by_hand = (
        b"MMIDIDX\x00\x00"
        + struct.pack("<Q", 1)  # version
        + struct.pack("<B", 8)  # uint16
        + struct.pack("<Q", 2)  # sequences: the empty document has none
        + struct.pack("<Q", 4)  # document indices: three documents and the end
        + struct.pack("<2i", 3, 2)
        + struct.pack("<2q", 0, 6)
        + struct.pack("<4q", 0, 1, 1, 2)
    )
    assert (tmp_path / "s.idx").read_bytes() == by_hand
    assert (tmp_path / "s.bin").read_bytes() == struct.pack("<5H", 1, 2, 3, 70, 65_535)


def test_a_large_vocabulary_takes_32_bits(tmp_path: Path) -> None:
    write_shard(tmp_path / "s", [np.array([65_536])], dtype_for(65_537))
    assert (tmp_path / "s.bin").read_bytes() == struct.pack("<i", 65_536)
    assert open_shard(tmp_path / "s").tokens(0, 1).tolist() == [65_536]


def test_an_id_is_never_wrapped(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="token id 65536 does not fit into uint16"):
        write_shard(tmp_path / "s", [np.array([65_536])], dtype_for(65_536))


def test_a_document_beyond_a_sequence_spans_several(tmp_path: Path) -> None:
    documents = [np.arange(7), np.arange(3)]
    write_shard(tmp_path / "s", documents, dtype_for(100), max_sequence_tokens=3)
    shard = open_shard(tmp_path / "s")
    assert shard.document_starts.tolist() == [0, 7, 10]
    header = struct.calcsize("<9sQBQQ")
    raw = (tmp_path / "s.idx").read_bytes()
    assert struct.unpack_from("<4i", raw, header) == (3, 3, 1, 3)


def test_more_than_two_billion_tokens_are_addressed(tmp_path: Path) -> None:
    """A sparse file of 2^31 + 10 one-byte tokens; the document is two sequences."""
    first, rest = 2**31 - 1, 11
    (tmp_path / "s.idx").write_bytes(
        struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, 1, 2, 2)
        + struct.pack("<2i2q2q", first, rest, 0, first, 0, 2)
    )
    with (tmp_path / "s.bin").open("wb") as file:
        file.seek(2**31 + 5)
        file.write(b"\x07")
        file.truncate(first + rest)
    shard = open_shard(tmp_path / "s")
    assert shard.num_documents == 1
    assert shard.num_tokens == 2**31 + 10
    assert shard.tokens(2**31 + 4, 2**31 + 7).tolist() == [0, 7, 0]


def test_an_empty_shard_is_empty(tmp_path: Path) -> None:
    write_shard(tmp_path / "s", [], dtype_for(10))
    shard = open_shard(tmp_path / "s")
    assert (shard.num_documents, shard.num_tokens) == (0, 0)


@pytest.mark.parametrize(
    ("offset", "content", "told"),
    [
        (0, b"XXXXXXX", "not a Megatron index"),
        (9, b"\x02", "index version 2 is not known"),
        (17, b"\x06", "dtype code 6 is none of token ids"),
        (18, b"\x09", "cut short or overwritten"),
        (34, b"\xff\xff\xff\xff", "its lengths and offsets do not follow each other"),
        (50, b"\x01", "its lengths and offsets do not follow each other"),
        (58, b"\x01", "its document index is out of order or out of range"),
    ],
)
def test_a_damaged_index_is_told(tmp_path: Path, offset: int, content: bytes, told: str) -> None:
    write_shard(tmp_path / "s", DOCUMENTS, dtype_for(10**5 // 2))
    raw = bytearray((tmp_path / "s.idx").read_bytes())
    raw[offset : offset + len(content)] = content
    (tmp_path / "s.idx").write_bytes(raw)
    with pytest.raises(CorpusError, match=told) as caught:
        open_shard(tmp_path / "s")
    assert str(tmp_path / "s.idx") in str(caught.value)


def test_files_that_are_short_or_missing_are_told(tmp_path: Path) -> None:
    write_shard(tmp_path / "s", DOCUMENTS, dtype_for(100))
    whole = (tmp_path / "s.bin").read_bytes()
    (tmp_path / "s.bin").write_bytes(whole[:-1])
    with pytest.raises(CorpusError, match=r"s\.bin: 9 bytes are fewer than the 10 of its index"):
        open_shard(tmp_path / "s")
    (tmp_path / "s.idx").write_bytes(b"MMID")
    with pytest.raises(CorpusError, match="4 bytes are less than an index's header"):
        open_shard(tmp_path / "s")
    (tmp_path / "s.idx").unlink()
    with pytest.raises(CorpusError, match=r"s\.idx: it cannot be read \(No such file"):
        open_shard(tmp_path / "s")


def test_a_file_cut_while_mapped_is_an_error_and_no_signal(tmp_path: Path) -> None:
    write_shard(tmp_path / "s", [np.arange(100_000) % 100], dtype_for(100))
    shard = open_shard(tmp_path / "s")
    shard.check_whole()
    with (tmp_path / "s.bin").open("r+b") as file:
        file.truncate(10)
    with pytest.raises(CorpusError, match="cut to 10 of 200000 bytes while it was in use"):
        shard.check_whole()
