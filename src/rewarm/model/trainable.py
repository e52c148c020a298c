"""Lets a set of a model's parameters train, and no other.

A parameter that does not require a gradient gets none, and where nothing below a layer does,
autograd stops above it: the backward pass of frozen lower layers is not computed at all.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from rewarm.planning.model_facts import EXPANDED_LAYERS
from rewarm.planning.trainable import Names, Stage, layer_of, trained_names
from rewarm.recipe.parameters import ParametersRecipe

__all__ = ["is_adapter", "let_train", "names_in", "trained_in"]

_ADAPTER = ".lora_"


def names_in(model: nn.Module) -> Names:
    """Return a model's parameters by name; a tied one is there once."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    layers = {layer for layer in map(layer_of, shapes) if layer is not None}
    config = getattr(model, "config", None)
    expanded = getattr(config, EXPANDED_LAYERS, None) or ()
    return Names(len(layers), shapes, frozenset(expanded))


def is_adapter(name: str) -> bool:
    """Tell whether a parameter is a low-rank matrix (or magnitude) beside a weight."""
    return _ADAPTER in name


def trained_in(
    model: nn.Module, parameters: ParametersRecipe, stage: Stage, *, seed: int
) -> frozenset[str]:
    """Return the names of the parameters that train in a stage."""
    names = names_in(model)
    if parameters.adapter is not None:
        return frozenset(filter(is_adapter, names.shapes))
    return trained_names(names, parameters, stage, seed=seed)


def let_train(model: nn.Module, names: Collection[str]) -> None:
    """Let exactly these parameters require gradients."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
