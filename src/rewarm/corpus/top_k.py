"""The base's likeliest tokens at every place of a shard, for a loss against its distribution.

Beside `shard.bin` lie two arrays [tokens, k], aligned with its tokens: `.top_k.ids.npy` (u16 up to
65,536 ids, else u32) and `.top_k.logp.npy` (float16, natural logarithms under the base itself at
temperature 1). Row t is what the base said of token t before it knew it, likeliest first; −inf
where nothing stands before it in its document. What the k leave of 1 is the rest's probability.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.packed import PackedView
from rewarm.corpus.shards import open_shard
from rewarm.corpus.views import View, shard_prefixes
from rewarm.errors import CorpusError, UserError
from rewarm.records.facts import CorpusFacts

__all__ = ["SourceTopK", "TopK", "TopKRows", "TopKWriter", "check_top_k", "open_top_k"]

IDS = ".top_k.ids.npy"
LOG_PROBS = ".top_k.logp.npy"
_ROWS_AT_ONCE = 2**16

Integers = NDArray[np.int64]


class TopKWriter:
    """Writes both arrays of a shard whose number of tokens is known."""

    def __init__(self, prefix: Path, num_tokens: int, num_top: int, vocab_size: int) -> None:
        self._files: list[BinaryIO] = []
        id_type = np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")
        self._types = (id_type, np.dtype("<f2"))
        for ending, dtype in zip((IDS, LOG_PROBS), self._types, strict=True):
            file = Path(f"{prefix}{ending}").open("wb")  # noqa: SIM115 - closed by __exit__
            self._files.append(file)
            header = np.lib.format.header_data_from_array_1_0(np.empty(0, dtype))
            header["shape"] = (num_tokens, num_top)
            np.lib.format.write_array_header_1_0(file, header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files:
            file.close()

    def add(self, ids: NDArray[np.integer], log_probs: NDArray[np.floating]) -> None:
        """Append the rows of a document, both [tokens, k]."""
        for file, dtype, rows in zip(self._files, self._types, (ids, log_probs), strict=True):
            file.write(np.ascontiguousarray(rows, dtype=dtype).tobytes())


class TopK(NamedTuple):
    """The likeliest tokens at each label of windows: ids int64 and log-probabilities float32, both
    [windows, length, k]."""

    ids: Integers
    log_probs: NDArray[np.float32]


class TopKRows:
    """The rows of a source's shards, memory-mapped; made by `open_top_k`."""

    def __init__(self, ids: Sequence[_Mapped], log_probs: Sequence[_Mapped]) -> None:
        self._ids = tuple(ids)
        self._log_probs = tuple(log_probs)

    @property
    def num_top(self) -> int:
        """Tokens that are kept at each place."""
        return int(self._ids[0].rows.shape[1])

    def gather(
        self, view: View | PackedView, windows: NDArray[np.integer], sequence_length: int
    ) -> TopK:
        """Return the rows of the labels of a view's windows, the view being of this source; of no
        label (padding), that nothing was said.

        Raises CorpusError where a file was cut while in use.
        """
        for mapped in (*self._ids, *self._log_probs):
            mapped.check_whole()
        shape = (len(windows) * sequence_length, self.num_top)
        ids, log_probs = np.zeros(shape, np.int64), np.full(shape, -np.inf, np.float32)
        for shard, source, target, count in view.label_pieces(windows, sequence_length):
            ids[target : target + count] = self._ids[shard].rows[source : source + count]
            log_probs[target : target + count] = self._log_probs[shard].rows[
                source : source + count
            ]
        whole = (len(windows), sequence_length, self.num_top)
        return TopK(ids.reshape(whole), log_probs.reshape(whole))


class SourceTopK:
    """What was stored of one source, by the windows of its training view."""

    def __init__(self, rows: TopKRows, view: View | PackedView) -> None:
        self._rows = rows
        self._view = view

    @property
    def num_top(self) -> int:
        """Tokens that are kept at each place."""
        return self._rows.num_top

    def gather(self, windows: Integers, sequence_length: int, /) -> TopK:
        """Return what was stored of the labels of windows; raises as `TopKRows` does."""
        return self._rows.gather(self._view, windows, sequence_length)


class _Mapped:
    """A two-dimensional `.npy` file, mapped; as with tokens, readers ask whether it is whole."""

    def __init__(self, path: Path) -> None:
        """Raises OSError or ValueError for what is no such file."""
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"version {version} of the format")
            shape, in_columns, dtype = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
            self._num_bytes = start + math.prod(shape) * dtype.itemsize
            if len(shape) != 2 or in_columns or dtype.kind not in "uf":
                raise ValueError(f"an array {shape} of {dtype.name}")
            if os.fstat(file.fileno()).st_size != self._num_bytes:
                raise ValueError("its size is not what its header says")
            self._map = mmap.mmap(file.fileno(), self._num_bytes, access=mmap.ACCESS_READ)
        self._path = path
        self.rows = np.frombuffer(self._map, dtype=dtype, offset=start).reshape(shape)

    def check_whole(self) -> None:
        """Raise CorpusError where the file has become shorter since it was mapped."""
        if self._map.size() < self._num_bytes:
            raise _unfit(self._path, "it was cut while it was in use")


def open_top_k(facts: CorpusFacts) -> TopKRows | None:
    """Return the stored distributions of a prepared source; None where it has none.

    Raises CorpusError for files that do not fit their shards.
    """
    prefixes = shard_prefixes(Path(facts.folder))
    if not prefixes or not Path(f"{prefixes[0]}{IDS}").exists():
        return None
    ids: list[_Mapped] = []
    log_probs: list[_Mapped] = []
    for prefix in prefixes:
        num_tokens = open_shard(prefix).num_tokens
        ids.append(_mapped(Path(f"{prefix}{IDS}"), num_tokens))
        log_probs.append(_mapped(Path(f"{prefix}{LOG_PROBS}"), num_tokens))
    widths = {mapped.rows.shape[1] for mapped in (*ids, *log_probs)}
    if len(widths) > 1:
        raise _unfit(Path(facts.folder), f"its shards keep {sorted(widths)} tokens a place")
    return TopKRows(ids, log_probs)


def check_top_k(prefix: Path, vocab_size: int) -> None:
    """Raise CorpusError where the distributions beside a shard name an id that the model has no
    row for; nothing where there are none."""
    path = Path(f"{prefix}{IDS}")
    if not path.exists():
        return
    rows = _mapped(path, open_shard(prefix).num_tokens).rows
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        largest = int(rows[first : first + _ROWS_AT_ONCE].max(initial=0))
        if largest >= vocab_size:
            raise _unfit(
                path, f"it names id {largest}, but the model's vocabulary has {vocab_size} entries"
            )


def _mapped(path: Path, num_tokens: int) -> _Mapped:
    try:
        mapped = _Mapped(path)
    except (OSError, ValueError, EOFError) as error:
        raise _unfit(path, f"it cannot be read ({error})") from error
    if len(mapped.rows) != num_tokens:
        raise _unfit(path, f"{len(mapped.rows)} rows do not fit {num_tokens} tokens")
    return mapped


def _unfit(path: Path, what: str) -> UserError:
    return CorpusError.one(
        str(path), what, "delete the folder of the sampled text, then `rewarm rehearse`"
    )
