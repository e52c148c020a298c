"""Which tokens of a shard are trained on, where not all are: a byte for each beside `shard.bin`.

1: the token counts as a label. 0: it is read, and nothing is learned from predicting it.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rewarm.errors import CorpusError, UserError

__all__ = ["LABEL_COUNTS", "LABEL_MASK", "LabelMask", "open_label_mask"]

LABEL_MASK = ".labels.bin"
LABEL_COUNTS = ".label_counts.npy"
"""Of each document, how many of its tokens count; u64 [documents]."""


class LabelMask:
    """The bytes of one shard, memory-mapped; readers ask whether the file is still whole."""

    def __init__(self, path: Path, num_tokens: int) -> None:
        self._path = path
        self._num_tokens = num_tokens
        self._map: mmap.mmap | None = None
        self._bytes: NDArray[np.uint8] = np.empty(0, dtype=np.uint8)
        if num_tokens:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), num_tokens, access=mmap.ACCESS_READ)
            self._bytes = np.frombuffer(self._map, dtype=np.uint8)

    def counted(self) -> NDArray[np.bool_]:
        """Return which tokens count, bool [tokens], as a view of the mapped file.

        Raises CorpusError where the file was cut while in use.
        """
        if self._map is not None and self._map.size() < self._num_tokens:
            raise _unfit(self._path, "it was cut while it was in use")
        return self._bytes.view(np.bool_)


def open_label_mask(prefix: Path, num_tokens: int) -> LabelMask | None:
    """Return the mask beside a shard; None where all of its tokens count.

    Raises CorpusError for one that does not fit the shard.
    """
    path = Path(f"{prefix}{LABEL_MASK}")
    try:
        size = os.path.getsize(path)
        if size != num_tokens:
            raise _unfit(path, f"{size} bytes do not fit {num_tokens} tokens")
        return LabelMask(path, num_tokens)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unfit(path, f"it cannot be read ({error.strerror})") from error


def _unfit(path: Path, what: str) -> UserError:
    return CorpusError.one(str(path), what, "delete the prepared folder and run `rewarm prepare`")
