"""A batch of samples on the disk: a file of its own that is whole or not there.

A part is a pure function of base, settings and batch number, so one that is lost or damaged (the
archive's own checksums tell) is made again, and nothing else is.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewarm.artifacts import write_atomically

__all__ = ["Part", "part_path", "read_part", "write_part"]

Integers = NDArray[np.integer]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The documents of a batch, laid end to end.

    `tokens` int32 [tokens], `lengths` int64 [documents]; of each document `prompt_lengths`,
    whether the base `ended` it, the `nats` of its sampled tokens (how many: `num_sampled`), why it
    is dropped (`reasons`, an index) and its MinHash signature. `top_ids` and `top_log_probs`
    [tokens, k] are aligned with `tokens`.
    """

    tokens: Integers
    lengths: Integers
    prompt_lengths: Integers
    num_sampled: Integers
    ended: NDArray[np.bool_]
    nats: NDArray[np.float64]
    reasons: Integers
    signatures: NDArray[np.uint32]
    top_ids: Integers
    top_log_probs: NDArray[np.float16]
    elapsed_s: NDArray[np.float64]
    placement: NDArray[np.str_]

    @property
    def starts(self) -> Integers:
        """Where each document begins, and where the last one ends, int64 [documents + 1]."""
        ends: Integers = np.concatenate([[0], np.cumsum(self.lengths)])
        return ends

    def documents(self, rows: Sequence[int]) -> list[Integers]:
        """Return the tokens of some of its documents."""
        starts = self.starts
        return [self.tokens[starts[row] : starts[row + 1]] for row in rows]


def part_path(folder: Path, batch: int) -> Path:
    """Return where the part of a batch lies."""
    return folder / "parts" / f"batch-{batch:08d}.npz"


def write_part(path: Path, part: Part) -> None:
    """Write a part, on the disk when this returns; raises EnvironmentFault."""
    content = io.BytesIO()
    arrays: dict[str, Any] = {field.name: getattr(part, field.name) for field in fields(Part)}
    np.savez(content, **arrays)
    write_atomically(path, content.getvalue())


def read_part(path: Path) -> Part | None:
    """Return a part; None where there is none that is whole."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Part(**{field.name: arrays[field.name] for field in fields(Part)})
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile):
        return None
