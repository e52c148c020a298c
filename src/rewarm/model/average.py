"""Averages of models, tensor by tensor.

    linear, average, task arithmetic, chat vector    Σ w_i θ_i / d
    spherical (SLERP)                                (sin((1 − t)ω) θ_0 + sin(tω) θ_1) / sin ω

ω is the angle between the two tensors. Sums are taken in float64 and rounded once, to the type
that the result is stored in. A model of weight 0 leaves no trace and one of weight 1 alone comes
out bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rewarm.errors import Problems, UserError
from rewarm.model.weight_stream import Header, StoredFile, Weights, stretches, write_weights

__all__ = [
    "Linear",
    "Merge",
    "Spherical",
    "fill_merged",
    "slerp_weights",
    "weighted_sum",
    "write_merged",
]

_PARALLEL_WITHIN = 1e-8
"""1 − |cos ω| below which a great circle is a straight line to nine decimals."""


@dataclass(frozen=True, slots=True)
class Linear:
    """Σ w_i θ_i / d, one weight per model.

    Whole weights and a divisor keep an average exact where fractions would not: (a + b + c) / 3.
    """

    weights: tuple[float, ...]
    divisor: float = 1.0


@dataclass(frozen=True, slots=True)
class Spherical:
    """The point at `weight` in [0, 1] of the great circle from the first of two models."""

    weight: float


@dataclass(frozen=True, slots=True)
class Merge:
    """Models that agree in names and shapes, and how they become one."""

    models: tuple[Weights, ...]
    rule: Linear | Spherical


class _Combination(NamedTuple):
    weights: tuple[float, ...]
    divisor: float


def write_merged(merge: Merge, folder: Path, layout: Sequence[StoredFile]) -> dict[str, str]:
    """Write the merged tensors in files of this layout; return each tensor's digest by name.

    Of each model one stretch is in memory at a time. Raises UserError naming every tensor of every
    model that is not finite, and every one that its type cannot hold; the files are then of no use.
    An OSError: the disk refuses.
    """
    problems = Problems()
    digests = write_weights(
        folder, layout, lambda name, header: _merged(merge, name, header, problems)
    )
    problems.raise_as(UserError)
    return digests


def fill_merged(merge: Merge, model: nn.Module, headers: Mapping[str, Header]) -> None:
    """Set a model's tensors to the merged ones, rounded as `headers` would store them.

    Raises UserError as `write_merged` does.
    """
    problems = Problems()
    tensors = model.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, header in headers.items():
            flat = tensors[name].detach().view(-1)
            made = _merged(merge, name, header, problems)
            for (start, stop), stretch in zip(stretches(header.size), made, strict=True):
                flat[start:stop].copy_(stretch)
    problems.raise_as(UserError)


def weighted_sum(parts: Sequence[Tensor], weights: Sequence[float], divisor: float = 1.0) -> Tensor:
    """Return Σ w_i x_i / d in float64; parts of weight 0 are left out.

    Raises ValueError where no part has a weight.
    """
    total: Tensor | None = None
    for part, weight in zip(parts, weights, strict=True):
        if weight != 0.0:
            term = part.to(torch.float64) * weight
            total = term if total is None else total.add_(term)
    if total is None:
        raise ValueError("every weight is 0")
    return total.div_(divisor)


def slerp_weights(weight: float, dot: float, norm: float, other_norm: float) -> tuple[float, float]:
    """Return the weights of two tensors at `weight` of the way along the great circle.

    They are (sin((1 − t)ω), sin(tω)) / sin ω with cos ω = dot / (norm · other norm). Tensors that
    are (anti)parallel to within 1e-8 of their cosine, or zero, lie on no single circle: those are
    taken linearly, (1 − t, t).
    """
    cosine = dot / (norm * other_norm) if norm and other_norm else 1.0
    if 1.0 - abs(cosine) < _PARALLEL_WITHIN:
        return 1.0 - weight, weight
    angle = math.acos(cosine)
    return (
        math.sin((1.0 - weight) * angle) / math.sin(angle),
        math.sin(weight * angle) / math.sin(angle),
    )


def _merged(merge: Merge, name: str, header: Header, problems: Problems) -> Iterator[Tensor]:
    """Yield the merged tensor of a name in stretches of the header's type, noting what is wrong."""
    combination = _combination(merge, name, header)
    too_large = 0.0
    for start, stop in stretches(header.size):
        parts = [model.read(name, start, stop) for model in merge.models]
        finite = [
            _is_finite(model, name, part, problems)
            for model, part in zip(merge.models, parts, strict=True)
        ]
        total = weighted_sum(parts, combination.weights, combination.divisor)
        rounded = total.to(header.dtype)
        if all(finite) and not torch.isfinite(rounded).all():
            too_large = max(too_large, float(total.abs().max()))
        yield rounded
    if too_large:
        dtype = str(header.dtype).removeprefix("torch.")
        problems.add(
            "--dtype",
            f"tensor {name} reaches {too_large:.4g}, which {dtype} cannot hold",
            "use bfloat16 or float32, or smaller weights",
        )


def _combination(merge: Merge, name: str, header: Header) -> _Combination:
    if isinstance(merge.rule, Linear):
        return _Combination(merge.rule.weights, merge.rule.divisor)
    one, other = merge.models
    dot = squares = other_squares = 0.0
    for start, stop in stretches(header.size):
        a = one.read(name, start, stop).to(torch.float64)
        b = other.read(name, start, stop).to(torch.float64)
        dot += float(a @ b)
        squares += float(a @ a)
        other_squares += float(b @ b)
    if not math.isfinite(dot + squares + other_squares):
        return _Combination((1.0, 0.0), 1.0)  # told where the values are read
    weights = slerp_weights(merge.rule.weight, dot, math.sqrt(squares), math.sqrt(other_squares))
    return _Combination(weights, 1.0)


def _is_finite(model: Weights, name: str, part: Tensor, problems: Problems) -> bool:
    if torch.isfinite(part).all():
        return True
    problems.add(
        model.label,
        f"tensor {name} holds values that are not finite",
        "get an intact copy of the model; an average with this one cannot work",
    )
    return False
