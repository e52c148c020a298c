"""Token shards in Megatron's `.bin/.idx` format, written and read.

`.bin` holds token ids, sequence after sequence. `.idx`, little-endian, holds

    9 bytes  magic b"MMIDIDX\\0\\0"        S × i32  tokens of each sequence
    u64      version 1                     S × i64  byte offset of each sequence in `.bin`
    u8       dtype code                    D × i64  first sequence of each document, then S
    u64 S, u64 D

A document is one sequence unless it is longer than a sequence's length can say (2^31 − 1 tokens):
then it spans several, and the document index tells where it begins.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rewarm.errors import CorpusError, EnvironmentFault, UserError

__all__ = ["MAX_SEQUENCE_TOKENS", "TokenShard", "dtype_for", "open_shard", "write_shard"]

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
MAX_SEQUENCE_TOKENS = 2**31 - 1
_HEADER = struct.Struct("<9sQBQQ")
# Megatron's codes; the floating ones are no token ids.
_DTYPES: dict[int, np.dtype[np.integer]] = {
    1: np.dtype(np.uint8),
    2: np.dtype(np.int8),
    3: np.dtype("<i2"),
    4: np.dtype("<i4"),
    5: np.dtype("<i8"),
    8: np.dtype("<u2"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}

Integers = NDArray[np.int64]


def dtype_for(vocab_size: int) -> np.dtype[np.integer]:
    """Return the dtype of a vocabulary's ids: 16 bits up to 65,536 ids, else 32."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<i4")


def write_shard(
    prefix: Path,
    documents: Iterable[NDArray[np.integer]],
    dtype: np.dtype[np.integer],
    *,
    max_sequence_tokens: int = MAX_SEQUENCE_TOKENS,
) -> None:
    """Write `prefix`.bin and `prefix`.idx, both flushed to the disk.

    Each document is an array of ids [tokens]. Raises CorpusError for an id that `dtype` cannot hold
    (it would wrap); what was written until then is the caller's to remove.
    """
    lengths: list[int] = []
    document_indices = [0]
    limits = np.iinfo(dtype)
    with Path(f"{prefix}.bin").open("wb") as file:
        for ids in documents:
            if ids.size and not (limits.min <= int(ids.min()) and int(ids.max()) <= limits.max):
                raise CorpusError.one(
                    f"{prefix}.bin",
                    f"token id {int(ids.max())} does not fit into {dtype.name}",
                    "the vocabulary is larger than it says; use the model's own tokenizer",
                )
            file.write(np.ascontiguousarray(ids, dtype=dtype).tobytes())
            starts = range(0, ids.size, max_sequence_tokens)
            lengths.extend(min(max_sequence_tokens, ids.size - start) for start in starts)
            document_indices.append(len(lengths))
        file.flush()
        os.fsync(file.fileno())
    sizes = np.array(lengths, dtype="<i4")
    offsets = np.zeros(len(lengths), dtype="<i8")
    np.cumsum(sizes[:-1], out=offsets[1:], dtype="<i8")
    with Path(f"{prefix}.idx").open("wb") as file:
        code = _CODES[dtype]
        file.write(_HEADER.pack(MAGIC, VERSION, code, len(lengths), len(document_indices)))
        file.write(sizes.tobytes())
        file.write((offsets * dtype.itemsize).tobytes())
        file.write(np.array(document_indices, dtype="<i8").tobytes())
        file.flush()
        os.fsync(file.fileno())


class TokenShard:
    """A shard that was checked against its index; tokens are memory-mapped.

    `document_starts` (int64 [documents + 1]) says at which token each document begins, in tokens
    from the start of `.bin`.
    """

    def __init__(self, path: Path, dtype: np.dtype[np.integer], document_starts: Integers) -> None:
        self.path = path
        self.document_starts = document_starts
        self._num_tokens = int(document_starts[-1])
        self._num_bytes = self._num_tokens * dtype.itemsize
        self._mapped: mmap.mmap | None = None
        self._tokens: NDArray[np.integer] = np.empty(0, dtype=dtype)
        if self._num_bytes:
            with path.open("rb") as file:
                self._mapped = mmap.mmap(file.fileno(), self._num_bytes, access=mmap.ACCESS_READ)
            self._tokens = np.frombuffer(self._mapped, dtype=dtype)

    @property
    def num_documents(self) -> int:
        """Documents in the shard."""
        return len(self.document_starts) - 1

    @property
    def num_tokens(self) -> int:
        """Tokens in the shard."""
        return self._num_tokens

    def check_whole(self) -> None:
        """Raise CorpusError where the file has become shorter than its index says.

        To touch a page beyond the end of a mapped file ends the process (SIGBUS), so readers ask
        before they gather: one fstat of the mapped file, wherever its name points by now, costs
        under a microsecond. `pread` would close the gap between the question and the copy too, at
        a system call and a second copy for every piece of a window; files are cut by mistakes that
        last (a full disk, a copy that was stopped), not within that millisecond.
        """
        if self._mapped is None:
            return
        size = self._mapped.size()
        if size < self._num_bytes:
            raise CorpusError.one(
                str(self.path),
                f"it was cut to {size} of {self._num_bytes} bytes while it was in use",
                "restore it, or run `rewarm prepare` again",
            )

    def tokens(self, first: int, last: int) -> NDArray[np.integer]:
        """Return tokens [first, last) as a view of the mapped file; `check_whole` comes first."""
        return self._tokens[first:last]


def open_shard(prefix: Path) -> TokenShard:
    """Open `prefix`.bin with `prefix`.idx.

    Raises CorpusError naming the file: bad magic, version or dtype, an index of the wrong size or
    that contradicts itself, a `.bin` shorter than its index.
    """
    index_path, data_path = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
    fix = "write the shard again (`rewarm prepare`), or copy it again from its source"

    def bad(path: Path, what: str) -> UserError:
        return CorpusError.one(str(path), what, fix)

    try:
        dtype, starts = _read_index(index_path, bad)
        wanted_bytes = int(starts[-1]) * dtype.itemsize
        data_bytes = data_path.stat().st_size
        if data_bytes < wanted_bytes:
            raise bad(
                data_path, f"{data_bytes} bytes are fewer than the {wanted_bytes} of its index"
            )
        return TokenShard(data_path, dtype, starts)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise EnvironmentFault(
                f"{data_path} cannot be opened: too many files are open already",
                "allow this process more, e.g. `ulimit -n 65536` (a shard takes one)",
            ) from error
        raise bad(
            Path(error.filename or data_path), f"it cannot be read ({error.strerror or error})"
        ) from error


def _read_index(
    index_path: Path, bad: Callable[[Path, str], UserError]
) -> tuple[np.dtype[np.integer], Integers]:
    """Return an index's dtype and at which token each document begins; `bad` makes its errors."""
    raw = index_path.read_bytes()
    if len(raw) < _HEADER.size:
        raise bad(index_path, f"{len(raw)} bytes are less than an index's header")
    magic, version, code, num_sequences, num_indices = _HEADER.unpack_from(raw)
    if magic != MAGIC:
        raise bad(index_path, f"it begins with {magic!r}: not a Megatron index")
    if version != VERSION:
        raise bad(index_path, f"index version {version} is not known; {VERSION} is")
    dtype = _DTYPES.get(code)
    if dtype is None:
        raise bad(index_path, f"dtype code {code} is none of token ids ({sorted(_DTYPES)})")
    expected = _HEADER.size + num_sequences * 12 + num_indices * 8
    if len(raw) != expected:
        raise bad(index_path, f"{len(raw)} bytes instead of {expected}: cut short or overwritten")
    at = _HEADER.size
    sizes = np.frombuffer(raw, "<i4", num_sequences, at).astype(np.int64)
    offsets = np.frombuffer(raw, "<i8", num_sequences, at + 4 * num_sequences)
    indices = np.frombuffer(raw, "<i8", num_indices, at + 12 * num_sequences)
    starts = np.zeros(num_sequences + 1, dtype=np.int64)
    np.cumsum(sizes, out=starts[1:])
    if (sizes < 0).any() or (offsets != starts[:-1] * dtype.itemsize).any():
        raise bad(index_path, "its lengths and offsets do not follow each other")
    well_formed = num_indices >= 1 and indices[0] == 0 and indices[-1] == num_sequences
    if not well_formed or (np.diff(indices) < 0).any():
        raise bad(index_path, "its document index is out of order or out of range")
    return dtype, starts[indices]
