"""Tensor parallelism: the matrices of each block are cut over neighbouring ranks, by transformers.

A block's plan is its family's own (`base_model_tp_plan`): which projections are cut by columns and
which by rows. Embedding, norms and head stay whole on the axis, so that tied weights stay tied and
losses see the whole vocabulary; FSDP shards all of it over the other ranks.
"""

from __future__ import annotations

import re

from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from rewarm.errors import EnvironmentFault

__all__ = ["split_blocks"]

_NUMBER = re.compile(r"\.\d+(?=\.)")


def split_blocks(model: nn.Module, mesh: DeviceMesh) -> None:
    """Cut a model's blocks over a one-dimensional mesh, in place; parameters may be on meta.

    Raises EnvironmentFault where transformers is too old for it.
    """
    try:
        from transformers.distributed.tensor_parallel import apply_tensor_parallelism
    except ImportError as error:
        raise EnvironmentFault(
            f"this transformers has no tensor parallelism on DTensors ({error})",
            "pip install transformers==5.23, or leave training.tensor_parallel out",
        ) from error
    apply_tensor_parallelism(model, mesh, _plan_of_blocks(model))


def _plan_of_blocks(model: nn.Module) -> dict[str, str]:
    """Return the style of each parameter to cut and, after them, of each module to hook."""
    rules: dict[str, str] = {
        name: style
        for name, style in model.tp_plan.items()  # type: ignore[operator,union-attr]
        if "*" in name
    }
    of_module = {
        name: style
        for name, _ in model.named_modules()
        if (style := rules.get(_NUMBER.sub(".*", name))) is not None
    }
    of_parameter = {
        f"{module}.{name}": style
        for module, style in of_module.items()
        for name, _ in model.get_submodule(module).named_parameters(recurse=False)
    }
    return of_parameter | of_module
