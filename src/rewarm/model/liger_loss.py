"""The loss by Liger's fused kernel, where the package liger-kernel and a GPU are there."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from rewarm.errors import EnvironmentFault
from rewarm.model.chunked_loss import LogitShape
from rewarm.model.loss import IGNORED

__all__ = ["check_liger", "liger_nats"]

_PACKAGE = "liger_kernel"


def check_liger(device: torch.device) -> None:
    """Raise EnvironmentFault where Liger's kernel cannot run; nothing is imported."""
    if importlib.util.find_spec(_PACKAGE) is None:
        raise EnvironmentFault(
            'training.loss = "liger" needs the package liger-kernel, which is not installed',
            "pip install 'rewarm[liger]', or set training.loss = \"auto\"",
        )
    if device.type != "cuda":
        raise EnvironmentFault(
            f'training.loss = "liger", but its kernel needs a GPU and the device is {device}',
            'set training.loss = "auto"',
        )


def liger_nats(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    /,
    *,
    shape: LogitShape,
) -> Tensor:
    """Return Σ −log p(label) in nats, a scalar with gradient; shapes as in `chunked_nats`."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    if shape.scale != 1.0:  # scale · (W h + b), which is what the kernel then caps
        hidden = hidden * shape.scale
        bias = None if bias is None else bias * shape.scale
    total: Tensor = liger_fused_linear_cross_entropy(
        hidden,
        weight,
        labels,
        bias=bias,
        ignore_index=IGNORED,
        reduction="sum",
        softcap=shape.cap,
        accum_dtype=torch.float32,
    )
    return total
