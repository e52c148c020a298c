"""torch's random state (dropout draws from it), captured, restored, and left alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["RandomState", "undisturbed"]


@dataclass(frozen=True, slots=True, eq=False)
class RandomState:
    """The generators of the CPU and of the device in use (None on a CPU), as byte tensors."""

    cpu: Tensor
    cuda: Tensor | None

    @classmethod
    def capture(cls, device: torch.device) -> RandomState:
        """Return copies of the present state."""
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(torch.get_rng_state(), cuda)

    def restore(self, device: torch.device) -> None:
        """Set the generators back; one that this state does not know is left alone."""
        torch.set_rng_state(self.cpu)
        if self.cuda is not None and device.type == "cuda":
            torch.cuda.set_rng_state(self.cuda, device)


@contextlib.contextmanager
def undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Run a block in evaluation mode without gradients; leave no trace of it in the training.

    Every submodule's own mode is restored, and the random state: a run with evaluations has the
    same weights as one without.
    """
    modes = [(module, module.training) for module in model.modules()]
    random_state = RandomState.capture(device)
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        random_state.restore(device)
        for module, training in modes:
            module.training = training
