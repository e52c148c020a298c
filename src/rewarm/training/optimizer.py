"""AdamW (or Muon with it) over named parameters, with its state as flat named tensors.

The update is torch's fused AdamW on CPU and GPU (five to ten times as fast on a CPU as its loop,
equal to it to rounding, and the same bits after a resume: tests hold both), or torchao's AdamW
whose moments are 8-bit codes (`eight_bit.py`), or Muon for some (`muon.py`). The state exists from
the start, all zeros, so that the key set of a checkpoint follows from the trained parameters alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from rewarm.planning.muon import is_muons
from rewarm.recipe.steps import OptimizerRecipe
from rewarm.training.eight_bit import new_adamw8bit, step_adamw8bit, stored_form
from rewarm.training.muon import MOMENTUM, MuonWithAdamW

__all__ = [
    "MOMENTS",
    "build_optimizer",
    "is_eight_bit",
    "masked_step",
    "moments",
    "named_parameters",
    "set_learning_rate",
    "set_step_counts",
    "step_counts",
    "trainable_parameters",
]

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Names of the two moments, first and second, as torch has them."""

# Muon's matrices have one instead.
_ALL_MOMENTS = (*MOMENTS, MOMENTUM)
# Groups come in this order within a layer.
_MUON, _DECAYED, _PLAIN = 0, 1, 2

NamedParameters = Iterable[tuple[str, nn.Parameter]]


def trainable_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return what of a model is updated, by name: a tied parameter once, no frozen one."""
    return [(name, param) for name, param in model.named_parameters() if param.requires_grad]


def build_optimizer(
    trainable: NamedParameters,
    recipe: OptimizerRecipe,
    *,
    layer_of: Callable[[str], int | None] | None = None,
) -> Optimizer:
    """Return the recipe's kind of optimizer over named parameters, its rate still 0.

    Decay is on everything with two dimensions or more (matrices and embeddings, as in GPT-3, Llama
    and OLMo), not on norms and biases. With `layer_of` each layer has groups of its own, so that
    its rate can be one too. Raises EnvironmentFault where 8 bits are asked for and
    torchao is not installed.
    """
    members: dict[tuple[int | None, int], list[tuple[str, nn.Parameter]]] = {}
    for name, param in trainable:
        layer = None if layer_of is None else layer_of(name)
        members.setdefault((layer, _sort_of(name, param, recipe)), []).append((name, param))
    of_sort: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for (layer, sort), params in sorted(members.items(), key=_decayed_first):
        decay = 0.0 if sort == _PLAIN else recipe.weight_decay
        group = {"params": params, "weight_decay": decay, "layer": layer}
        of_sort[sort == _MUON].append(group)
    matrices, groups = of_sort[True], of_sort[False]
    if recipe.kind == "adamw8bit":
        return new_adamw8bit(groups, recipe)
    optimizer: Optimizer
    if matrices:
        optimizer = muon = MuonWithAdamW(matrices, groups, recipe)
        of_adamw = list(muon.others)
    else:
        optimizer = AdamW(groups, lr=0.0, betas=recipe.betas, eps=recipe.eps, fused=True)
        of_adamw = [parameter for _, parameter in named_parameters(optimizer)]
    for parameter in of_adamw:
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer


def _sort_of(name: str, parameter: nn.Parameter, recipe: OptimizerRecipe) -> int:
    """Return which of the groups within a layer a parameter is in."""
    if recipe.kind == "muon" and is_muons(name, tuple(parameter.shape)):
        return _MUON
    return _PLAIN if parameter.ndim < 2 else _DECAYED


def _decayed_first(group: tuple[tuple[int | None, int], object]) -> tuple[int, int]:
    (layer, sort), _ = group
    return (-1 if layer is None else layer, sort)


def is_eight_bit(optimizer: Optimizer) -> bool:
    """Tell whether the moments are 8-bit codes."""
    return not isinstance(optimizer, AdamW | MuonWithAdamW)


def named_parameters(optimizer: Optimizer) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters that are updated, with their names in the model."""
    for group in optimizer.param_groups:
        yield from zip(group["param_names"], group["params"], strict=True)


def set_learning_rate(
    optimizer: Optimizer, lr: float, *, scale: Callable[[int | None], float] = lambda layer: 1.0
) -> None:
    """Set the rate of the next update: `lr`, times the scale of each group's layer."""
    for group in optimizer.param_groups:
        own = lr * scale(group["layer"])
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own


def masked_step(
    optimizer: Optimizer, *, skip: Tensor, product_dtype: torch.dtype | None = None
) -> None:
    """Update the weights unless `skip` (boolean, shape []) is true; then nothing changes.

    Matrix products of an update (Muon's) are computed in `product_dtype`; None: as weights are.

    In 32 bits the mask is applied by the kernel, on the device: the host need not know it, so need
    not wait. `found_inf` is how torch's own GradScaler tells a fused optimizer the same. torchao's
    has no such mask: there the host waits for it.
    """
    if is_eight_bit(optimizer):
        if not bool(skip):
            step_adamw8bit(optimizer)
        return
    if isinstance(optimizer, MuonWithAdamW):
        optimizer.masked_step(skip=skip, product_dtype=product_dtype)
        return
    optimizer.found_inf = skip.to(torch.float32)  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf  # type: ignore[attr-defined]


def moments(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's own moment tensors as `exp_avg.<name>` and `exp_avg_sq.<name>`;
    of Muon's matrices `momentum_buffer.<name>`.

    In 8 bits codes, scales and tables, of many ranks those of this one's part: see `eight_bit.py`.
    """
    found: dict[str, Tensor] = {}
    for moment in _ALL_MOMENTS:
        for name, parameter in named_parameters(optimizer):
            tensor = optimizer.state[parameter].get(moment)
            if tensor is None:
                continue
            if is_eight_bit(optimizer):
                found |= stored_form(moment, name, tensor)
            else:
                found[f"{moment}.{name}"] = tensor
    return found


def step_counts(optimizer: Optimizer) -> dict[str, int]:
    """Return by parameter how many updates it has had (AdamW's bias correction counts them)."""
    return {
        name: int(optimizer.state[parameter]["step"])
        for name, parameter in named_parameters(optimizer)
    }


def set_step_counts(optimizer: Optimizer, counts: Mapping[str, int]) -> None:
    """Set the counts of exactly the optimizer's parameters."""
    for name, parameter in named_parameters(optimizer):
        optimizer.state[parameter]["step"].fill_(counts[name])
