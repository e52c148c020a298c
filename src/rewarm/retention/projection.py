"""A-GEM: a step whose gradient points against that of a memory of old text is turned aside.

    g·m < 0:    g ← g − (g·m / m·m) m        so that g·m = 0, the loss on the memory does not rise

to first order, for steps along the gradient. g is the gradient of all that is trained on, m that of
the memory's mean loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["turn_aside"]


@torch.no_grad()
def turn_aside(
    gradients: Sequence[Tensor],
    memory: Sequence[Tensor],
    *,
    shares: Sequence[float],
    total: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> Tensor:
    """Project gradients in place; return the cosine between both before, float64 [].

    Both hold this rank's parts, aligned, and `shares` how much of each counts here: 1/n of what n
    ranks have. `total` adds up over all ranks. The host waits for nothing. A memory without a
    gradient changes nothing, its cosine is 0.
    """
    of_each = [
        share * torch.stack(((g * m).sum(dtype=torch.float64), _square(g), _square(m)))
        for g, m, share in zip(gradients, memory, shares, strict=True)
    ]
    product, square, square_of_memory = total(torch.stack(of_each).sum(0))
    nothing = torch.zeros_like(product)
    against = ~(product >= 0) & (square_of_memory > 0)
    factor = torch.where(against, product / square_of_memory, nothing)
    for g, m in zip(gradients, memory, strict=True):
        g.sub_(m * factor.to(g.dtype))
    norms = (square * square_of_memory).sqrt()
    return torch.where(norms > 0, product / norms, nothing)


def _square(tensor: Tensor) -> Tensor:
    return (tensor * tensor).sum(dtype=torch.float64)
