"""How far a model's weights have gone from its base's, layer by layer."""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import Tensor, nn

from rewarm.model.weight_stream import Weights, stretches
from rewarm.planning.trainable import layer_of
from rewarm.records.against import LayerChange, WeightChange

__all__ = ["weight_change"]


def weight_change(model: nn.Module, base: Weights, *, step: int) -> WeightChange:
    """Return ‖θ − θ₀‖ / ‖θ₀‖ (Frobenius norms, in float64) of each layer and of what has none.

    `base` is read in stretches, so that it is never in memory whole. Parameters that the base does
    not have (adapters) are left out. A layer whose base is all zeros counts as 0 where it is still
    so, else as infinite far: as 1.
    """
    moved: dict[int | None, float] = defaultdict(float)
    size: dict[int | None, float] = defaultdict(float)
    headers = base.headers
    for name, parameter in model.named_parameters():
        if name not in headers:
            continue
        layer = layer_of(name)
        flat = parameter.detach().reshape(-1)
        for start, stop in stretches(flat.numel()):
            before = base.read(name, start, stop).to(torch.float64)
            after = flat[start:stop].to("cpu", torch.float64)
            moved[layer] += _square(after - before)
            size[layer] += _square(before)
    ordered = sorted(size, key=lambda layer: (layer is None, layer or 0))
    return WeightChange(
        step=step,
        layers=tuple(
            LayerChange(layer=layer, relative=_relative(moved[layer], size[layer]))
            for layer in ordered
        ),
    )


def _square(tensor: Tensor) -> float:
    return float(tensor.square().sum())


def _relative(moved: float, size: float) -> float:
    if size == 0:
        return 0.0 if moved == 0 else 1.0
    return math.sqrt(moved / size)
