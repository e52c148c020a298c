"""torch's random numbers (dropout draws from them): a function of plan, step and rank.

Every attempt at a step seeds the generators anew, so that no random state has to survive a kill,
a replay draws what the first attempt drew, and nothing that happens between steps matters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from rewarm.model.modes import evaluating
from rewarm.order.shuffle import derive_key

__all__ = ["seed_step", "undisturbed"]


def seed_step(seed: int, step: int, rank: int) -> None:
    """Set all of torch's generators to where a rank's step begins."""
    torch.manual_seed(derive_key(seed, "step", step, rank))


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Run a block in evaluation mode without gradients, and put every module's own mode back."""
    with torch.no_grad(), evaluating(model):
        yield
