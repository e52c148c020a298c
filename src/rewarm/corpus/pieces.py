"""A long work over documents in pieces, so that a kill costs at most one of them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewarm.artifacts import write_atomically

__all__ = ["load_arrays", "pieces_of", "save_arrays"]


def pieces_of(ends: NDArray[np.int64], tokens_per_piece: int) -> Iterator[tuple[int, int]]:
    """Yield [first, last) documents of each piece, by the lengths of documents alone.

    `ends` are the tokens up to and with each document, int64 [documents].
    """
    first = 0
    for number in np.unique((ends - 1) // tokens_per_piece):
        last = int(np.searchsorted(ends, (number + 1) * tokens_per_piece, side="right"))
        if last > first:
            yield first, last
            first = last


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays, so that whoever reads them finds all or none."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


def load_arrays(path: Path, names: Iterable[str]) -> dict[str, NDArray[Any]] | None:
    """Return arrays that `save_arrays` has written; None where they are not there as it was."""
    try:
        # numpy leaves a file open that it cannot make sense of.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile):
        return None
