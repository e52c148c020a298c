"""The peer of tests that take over an optimizer's state: torch's own AdamW loop, its own files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import AdamW

from rewarm.distributed.world import ALONE, World
from rewarm.recipe.steps import OptimizerRecipe
from rewarm.records.facts import OptimizerStateFacts
from rewarm.training.base_moments import TakenOver, take_over_moments
from rewarm.training.optimizer import build_optimizer, masked_step, set_learning_rate
from rewarm.training.optimizer import trainable_parameters as trainable_of
from tests.support.tiny_models import family_model

LR = 1e-2
NUM_LEFT_STEPS = 5
"""Steps that the peer takes before it leaves its state."""

RECIPE = OptimizerRecipe(betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)


def new_model(family: str, *, dtype: torch.dtype = torch.float64) -> nn.Module:
    model: nn.Module = family_model(family)
    return model.to(dtype).train()


def gradient_of(name: str, parameter: Tensor, step: int) -> Tensor:
    """Return a gradient that name and step alone determine."""
    generator = torch.Generator().manual_seed(step * 7919 + sum(name.encode()))
    drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return (10.0 ** -(step % 3) * drawn).to(parameter.dtype)


def give_gradients(model: nn.Module, step: int) -> None:
    for name, parameter in model.named_parameters():
        parameter.grad = gradient_of(name, parameter, step)


def peer_over(groups: list[dict[str, Any]]) -> AdamW:
    """Return torch's AdamW, neither fused nor by lists: another code path than ours."""
    return AdamW(groups, lr=LR, betas=RECIPE.betas, eps=RECIPE.eps, foreach=False, fused=False)


def groups_of(model: nn.Module, decayed: list[str], *, named: bool = False) -> list[dict[str, Any]]:
    """Return two groups, decayed parameters first, in the order of the model."""
    found = list(model.named_parameters())
    return [
        {
            "params": [(n, p) if named else p for n, p in found if (n in decayed) is decays],
            "weight_decay": RECIPE.weight_decay if decays else 0.0,
        }
        for decays in (True, False)
    ]


def peer_steps(model: nn.Module, optimizer: AdamW, steps: range) -> None:
    for step in steps:
        give_gradients(model, step)
        optimizer.step()


def take_over(
    kind: str, path: Path, model: nn.Module, recipe: OptimizerRecipe = RECIPE, world: World = ALONE
) -> tuple[Any, TakenOver]:
    """Return our optimizer with the state in a file, and what was said of it."""
    optimizer = build_optimizer(trainable_of(model), recipe)
    facts = OptimizerStateFacts.model_validate(
        {"path": str(path), "kind": kind, "fingerprint": "f"}
    )
    return optimizer, take_over_moments(facts, model, optimizer, world)


def our_step(model: nn.Module, optimizer: Any, step: int) -> None:
    give_gradients(model, step)
    set_learning_rate(optimizer, LR)
    masked_step(optimizer, skip=torch.tensor(False))


def step_on_ranks(model: nn.Module, optimizer: Any, step: int) -> None:
    """Take our step where parameters are sharded: each rank has its rows of the gradient."""
    for name, parameter in model.named_parameters():
        assert isinstance(parameter, DTensor)
        gradient = gradient_of(name, parameter, step)
        parameter.grad = distribute_tensor(gradient, parameter.device_mesh, parameter.placements)
    set_learning_rate(optimizer, LR)
    masked_step(optimizer, skip=torch.tensor(False))


def largest_difference(first: nn.Module, second: nn.Module) -> float:
    """Return the largest difference of two models' weights; inf where their names differ."""
    one, other = dict(first.named_parameters()), dict(second.named_parameters())
    if one.keys() != other.keys():
        return math.inf
    return max(float((one[name] - other[name]).detach().abs().max()) for name in one)


def moments_by_name(model: nn.Module, optimizer: AdamW) -> dict[str, Tensor]:
    """Return a peer's moments under the names that our files have."""
    return {
        f"{moment}.{name}": optimizer.state[parameter][moment]
        for name, parameter in model.named_parameters()
        for moment in ("exp_avg", "exp_avg_sq")
    }


def save_moments(path: Path, moments: Mapping[str, Tensor], step: int | None = 5) -> Path:
    """Write moments by name, and how many updates they have had."""
    more = {} if step is None else {"step": torch.tensor(step)}
    save_file({name: tensor.contiguous() for name, tensor in moments.items()} | more, path)
    return path
