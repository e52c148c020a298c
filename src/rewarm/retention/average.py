"""A running average of the weights (EMA): e ← decay · e + (1 − decay) · θ after every step.

It begins at the base and lies in the checkpoints beside the weights, in their type.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rewarm.distributed.fsdp import local

__all__ = ["Average"]


@dataclass(frozen=True, slots=True, eq=False)
class Average:
    """The average of some parameters by name, whole or sharded as they are."""

    decay: float
    weights: dict[str, Tensor]

    @classmethod
    def at(cls, parameters: Iterable[tuple[str, nn.Parameter]], *, decay: float) -> Average:
        """Return an average that begins where the parameters are now."""
        return cls(decay, {name: parameter.detach().clone() for name, parameter in parameters})

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights as a step has left them."""
        for name, parameter in self._parameters(model):
            local(self.weights[name]).lerp_(local(parameter), 1 - self.decay)

    @contextlib.contextmanager
    def in_place_of_weights(self, model: nn.Module) -> Iterator[None]:
        """Exchange the model's weights for the average for the length of a block, bit for bit.

        One weight at a time, so that no second copy is needed. The model must not be gathered.
        """
        self._exchange(model)
        try:
            yield
        finally:
            self._exchange(model)

    @torch.no_grad()
    def _exchange(self, model: nn.Module) -> None:
        for name, parameter in self._parameters(model):
            here, kept = local(parameter), local(self.weights[name])
            held = here.clone()
            here.copy_(kept)
            kept.copy_(held)

    def _parameters(self, model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in model.named_parameters():
            if name in self.weights:
                yield name, parameter
