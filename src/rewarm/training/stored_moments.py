"""Moments in files of several forms, read as plain numbers into whole or sharded tensors.

A `StoredMoments` is what a form comes to: the header of each `exp_avg.<parameter>` and
`exp_avg_sq.<parameter>`, and a way to copy them, of which each rank reads its own rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

from rewarm.distributed.fsdp import Part, local, local_box, local_rows, rows_of_part
from rewarm.distributed.tensor_files import (
    Header,
    fill,
    fill_from_safetensors,
    read_headers,
    read_safetensors_headers,
)
from rewarm.distributed.world import ALONE, World
from rewarm.errors import CheckpointError, Problem, Problems
from rewarm.training.eight_bit import StoredKey, dequantised, parse_key
from rewarm.training.optimizer import MOMENTS, is_eight_bit, named_parameters

__all__ = [
    "StoredMoments",
    "copy_moments",
    "moments_in_checkpoint",
    "moments_in_files",
    "num_parts",
]

_GROUP = "optimizer"


@dataclass(frozen=True, slots=True)
class StoredMoments:
    """Moments at `place`; `fill` copies stored ones into tensors of the same names; collective."""

    place: Path
    headers: Mapping[str, Header]
    fill: Callable[[Mapping[str, Tensor]], None]


def moments_in_files(place: Path, paths: Iterable[Path]) -> StoredMoments:
    """Return the moments in safetensors files; raises CheckpointError where one cannot be read."""
    path_of: dict[str, Path] = {}
    headers: dict[str, Header] = {}
    for path in paths:
        for name, header in read_safetensors_headers(path).items():
            if name.partition(".")[0] in MOMENTS:
                path_of[name], headers[name] = path, header

    def fill_moments(wanted: Mapping[str, Tensor]) -> None:
        for name, tensor in wanted.items():
            fill_from_safetensors(path_of[name], {name: tensor})

    return StoredMoments(place, headers, fill_moments)


def moments_in_checkpoint(folder: Path, world: World) -> StoredMoments:
    """Return the moments of a rewarm checkpoint, of whatever kind and number of ranks.

    Raises CheckpointError where parts of 8-bit moments do not fit together.
    """
    headers = read_headers(folder, _GROUP)
    if not _in_pieces(headers):
        return StoredMoments(folder, headers, lambda wanted: fill(folder, {_GROUP: wanted}, world))
    pieces = _pieces_of(headers, folder)

    def fill_from_pieces(wanted: Mapping[str, Tensor]) -> None:
        for name, tensor in wanted.items():
            rows = local_rows(tensor)
            found = _rows_of_pieces(folder, pieces[name], headers, rows, len(tensor))
            found = found.view(-1, *tensor.shape[1:])[:, *local_box(tensor)[1:]]
            local(tensor).copy_(found.reshape(local(tensor).shape))

    whole = {name: _whole_header(parts, headers) for name, parts in pieces.items()}
    return StoredMoments(folder, whole, fill_from_pieces)


def copy_moments(stored: StoredMoments, optimizer: Optimizer) -> list[str]:
    """Bring an optimizer's moments to stored ones of the same names and shapes; collective.

    Returns the names of those whose numbers, of this rank's rows, are no moments: not finite, or a
    second moment below zero. 8-bit moments are quantised one after the other, so that they are
    never all there in full.
    """
    own = {
        f"{moment}.{name}": (parameter, optimizer.state[parameter][moment])
        for moment in MOMENTS
        for name, parameter in named_parameters(optimizer)
    }
    if not is_eight_bit(optimizer):
        stored.fill({name: tensor for name, (_, tensor) in own.items()})
        return [name for name, (_, tensor) in own.items() if _is_damaged(name, local(tensor))]
    damaged = []
    with torch.no_grad():
        for name, (parameter, tensor) in own.items():
            numbers = torch.zeros_like(parameter)
            stored.fill({name: numbers})
            local(tensor).copy_(local(numbers))
            if _is_damaged(name, local(numbers)):
                damaged.append(name)
    return damaged


def _is_damaged(name: str, numbers: Tensor) -> bool:
    least = 0.0 if name.startswith("exp_avg_sq.") else -math.inf
    return not bool((numbers.isfinite() & (numbers >= least)).all())


def num_parts(keys: Iterable[str]) -> int:
    """Return into how many parts moments of these names are cut."""
    return max((key.part.count for text in keys if (key := parse_key(text))), default=1)


def _in_pieces(headers: Mapping[str, Header]) -> bool:
    keys = [key for text in headers if (key := parse_key(text)) is not None]
    return any(key.field or key.part.count > 1 for key in keys)


_Pieces = Mapping[Part, tuple[StoredKey, ...]]
"""By part, the tensors of which a moment's part consists: one, or codes, scale and qmap."""


def _pieces_of(headers: Mapping[str, Header], folder: Path) -> dict[str, _Pieces]:
    """Return by moment its parts; raises CheckpointError where they are not all there once."""
    found: dict[str, dict[Part, list[StoredKey]]] = {}
    problems = Problems()
    for text in headers:
        key = parse_key(text)
        if key is None:
            problems.extend([_foreign(folder, f"{text} is unexpected")])
            continue
        found.setdefault(f"{key.moment}.{key.name}", {}).setdefault(key.part, []).append(key)
    counts = num_parts(headers)
    for name, parts in found.items():
        fields = [sorted(key.field for key in keys) for keys in parts.values()]
        fitting = all(names in ([""], ["codes", "qmap", "scale"]) for names in fields)
        # The last parts of a tensor of few rows are empty, and not stored.
        indices = sorted(part.index for part in parts)
        if (
            not fitting
            or indices != list(range(len(parts)))
            or {c.count for c in parts} != {counts}
        ):
            problems.extend([_foreign(folder, f"the parts of {name} do not fit together")])
    problems.raise_as(CheckpointError)
    return {
        name: {part: tuple(keys) for part, keys in sorted(parts.items())}
        for name, parts in found.items()
    }


def _numbers_key(keys: Iterable[StoredKey]) -> StoredKey:
    """Return the tensor that has a part's shape: the codes, or the numbers themselves."""
    return next(key for key in keys if key.field in ("", "codes"))


def _whole_header(parts: _Pieces, headers: Mapping[str, Header]) -> Header:
    found = [headers[str(_numbers_key(keys))] for keys in parts.values()]
    dtype = torch.float32 if found[0].dtype is torch.uint8 else found[0].dtype
    shape = found[0].shape
    return Header(dtype, shape and (sum(part.shape[0] for part in found), *shape[1:]))


def _rows_of_pieces(
    folder: Path, parts: _Pieces, headers: Mapping[str, Header], rows: slice, num_rows: int
) -> Tensor:
    """Return rows of a moment, put together from the parts that they are in."""
    found = []
    for part, keys in parts.items():
        there = rows_of_part(part, num_rows)
        first, last = max(rows.start, there.start), min(rows.stop, there.stop)
        if first < last:
            read = {
                str(key): torch.empty(headers[str(key)].shape, dtype=headers[str(key)].dtype)
                for key in keys
            }
            fill(folder, {_GROUP: read}, ALONE)
            numbers = dequantised({key.field: read[str(key)] for key in keys})
            found.append(numbers[first - there.start : last - there.start])
    return torch.cat(found) if found else torch.empty(0)


def _foreign(place: Path, what: str) -> Problem:
    return Problem(
        str(place), what, "the checkpoint is damaged or another's; use one that is whole"
    )
