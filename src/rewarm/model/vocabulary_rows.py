"""Rows of new tokens: the mean of the rows of the old ones that each stands for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewarm.errors import BaseModelError, Problems
from rewarm.model.weight_folder import WeightFolder
from rewarm.model.weight_stream import Header, StoredFile, Weights, stretches, write_weights

__all__ = ["Growth", "grow", "grown_layout", "write_grown"]

_LARGEST_MULTIPLE = 256


@dataclass(frozen=True, slots=True)
class Growth:
    """How a vocabulary grows: new token i gets id `first_id` + i and stands for `old_ids[i]`.

    `names` are the tensors with a row for each token: the embedding, and a head of its own with
    its bias.
    """

    first_id: int
    old_ids: tuple[tuple[int, ...], ...]
    num_old_rows: int
    num_rows: int
    names: frozenset[str]


def grow(base: WeightFolder, first_id: int, old_ids: Sequence[tuple[int, ...]]) -> Growth:
    """Return how a base's rows grow.

    Rows that the base has in reserve are used first; their number stays a multiple of the power of
    two (up to 256) that the base's is one of.
    """
    rows = base.facts.vocab_size
    multiple = min(rows & -rows, _LARGEST_MULTIPLE)
    wanted = first_id + len(old_ids)
    num_rows = max(rows, -(-wanted // multiple) * multiple)
    return Growth(first_id, tuple(old_ids), rows, num_rows, _names_of_rows(base))


def _names_of_rows(base: WeightFolder) -> frozenset[str]:
    model: Any = base.skeleton
    modules = [model.get_input_embeddings(), model.get_output_embeddings()]
    owned = {id(tensor) for module in modules for tensor in module.parameters(recurse=False)}
    tensors = model.state_dict(keep_vars=True)
    return frozenset(name for name in base.places if id(tensors[name]) in owned)


def grown_layout(base: WeightFolder, growth: Growth) -> tuple[StoredFile, ...]:
    """Return the base's files with the new number of rows."""
    return tuple(
        StoredFile(
            file.file_name,
            tuple(
                tensor._replace(
                    header=Header(tensor.header.dtype, (growth.num_rows, *tensor.header.shape[1:]))
                )
                if tensor.name in growth.names
                else tensor
                for tensor in file.tensors
            ),
        )
        for file in base.layout()
    )


def write_grown(
    base: WeightFolder, weights: Weights, growth: Growth, folder: Path
) -> dict[str, str]:
    """Write the files with the new rows; return each tensor's digest by its name.

    One stretch is in memory at a time. Raises BaseModelError naming every tensor that is not
    finite; the files are then of no use. An OSError: the disk refuses.
    """
    spoilt: dict[str, None] = {}

    def read(name: str, start: int, stop: int) -> Tensor:
        stretch = weights.read(name, start, stop)
        if not torch.isfinite(stretch).all():
            spoilt[name] = None
        return stretch

    def make(name: str, header: Header) -> Iterator[Tensor]:
        if name not in growth.names:
            for start, stop in stretches(header.size):
                yield read(name, start, stop)
            return
        width = header.size // growth.num_rows
        total = torch.zeros(width, dtype=torch.float64)
        rows_at_once = max(1, 2**17 // width)
        for first in range(0, growth.first_id, rows_at_once):
            last = min(first + rows_at_once, growth.first_id)
            rows = read(name, first * width, last * width)
            total += rows.view(last - first, width).double().sum(dim=0)
            yield rows
        for old_ids in growth.old_ids:
            rows = torch.stack([read(name, i * width, (i + 1) * width) for i in old_ids])
            yield rows.double().mean(dim=0).to(header.dtype)
        reserve = growth.first_id + len(growth.old_ids)
        if reserve < growth.num_old_rows:
            yield read(name, reserve * width, growth.num_old_rows * width)
        # Never the likeliest: the logit of a mean row is the mean of the logits.
        mean = (total / growth.first_id).to(header.dtype)
        for _ in range(max(reserve, growth.num_old_rows), growth.num_rows):
            yield mean

    digests = write_weights(folder, grown_layout(base, growth), make)
    problems = Problems()
    for name in spoilt:
        problems.add(
            str(base.folder),
            f"tensor {name} holds values that are not finite",
            "get an intact copy of the base; nothing can be trained from this one",
        )
    problems.raise_as(BaseModelError)
    return digests
