"""Low-rank matrices beside frozen weights (LoRA and its kin), by peft, and their merging.

The matrices are put into the model in place: it stays the class that it was, so that its head, its
blocks and its forward are found as before. The second matrix is zero at the start: the model's
output is the base's until the first update.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from rewarm.errors import EnvironmentFault, RecipeError
from rewarm.planning.trainable import is_adapter_target
from rewarm.recipe.parameters import AdapterRecipe

__all__ = ["adapters_can_be_had", "add_adapters", "merge_adapters"]


def adapters_can_be_had() -> bool:
    """Tell whether peft is installed (it is not imported for that)."""
    return find_spec("peft") is not None


def add_adapters(model: nn.Module, recipe: AdapterRecipe, *, seed: int) -> None:
    """Put low-rank matrices beside the weights that a recipe names; only they require gradients.

    Their values follow from `seed` alone. Raises RecipeError where a target names no matrix of the
    model, EnvironmentFault where peft is not installed.
    """
    if not adapters_can_be_had():
        raise EnvironmentFault(
            "parameters.adapter needs the package peft, which is not installed",
            "pip install 'rewarm[adapters]', or leave parameters.adapter out",
        )
    targets = _targets(model, recipe)
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=targets,
        use_rslora=recipe.kind == "rslora",
        use_dora=recipe.kind == "dora",
        bias="none",
    )
    training = model.training
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Conv1D, whose weights lie the other way round
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    model.train(training)


def merge_adapters(model: nn.Module) -> None:
    """Add every adapter to its weight and take it away: the model is the base's class and names.

    Raises ValueError where a sum is not finite.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer)
    ]
    for name, module in found:
        layer: Any = module
        layer.merge(safe_merge=True)
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, layer.get_base_layer())


def _targets(model: nn.Module, recipe: AdapterRecipe) -> list[str]:
    """Return the full names of the matrices that get an adapter."""
    matrices = [
        name
        for name, module in model.named_modules()
        if "." in name and _is_matrix(module) and not _is_head(model, module)
    ]
    found: list[str] = []
    for index, target in enumerate(recipe.targets):
        members = [name for name in matrices if is_adapter_target(name, target)]
        if not members:
            own = sorted({name.rpartition(".")[2] for name in matrices})
            raise RecipeError.one(
                f"parameters.adapter.targets[{index}]",
                f"{target!r} names no matrix of the base",
                f"use attention, mlp, or some of: {', '.join(own)}",
            )
        found += members
    return sorted(set(found))


def _is_matrix(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _is_head(model: Any, module: nn.Module) -> bool:
    return model.get_output_embeddings() is module
