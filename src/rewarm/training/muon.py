"""Muon for the matrices of blocks, AdamW for all else.

The update of a matrix is its momentum with every singular value brought near 1 (Jordan et al.
2024), times 0.2 √(larger side), so that its root mean square is what AdamW's is and rates and
decay mean what they mean there (Liu et al. 2025, arXiv 2502.16982, section 2.2):

    B ← μ B + (1 − μ) G,   U = μ B + (1 − μ) G
    W ← (1 − η λ) W − η · 0.2 √max(m, n) · orthogonal(U)

`tests/parity/test_muon.py` holds it against torch's Muon to the bit. That one is not taken because
it orthogonalises what a rank has of a matrix, in bf16 whatever the rest computes in, and knows
no mask. Here ranks gather one matrix at a time and each makes the whole update of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer

from rewarm.distributed.fsdp import local, local_box
from rewarm.planning.muon import NUM_ITERATIONS
from rewarm.recipe.steps import OptimizerRecipe

__all__ = ["MOMENTUM", "MuonWithAdamW", "orthogonalised"]

MOMENTUM = "momentum_buffer"
"""Name of Muon's one moment, as torch has it."""

_DECAY_OF_MOMENTUM = 0.95
# Of the quintic a x + b x³ + c x⁵, which is steep at 0 and keeps [0, 1] within about [0, 1.2].
_A, _B, _C = 3.4445, -4.7750, 2.0315
_LEAST_NORM = 1e-7
_LIKE_ADAMW = 0.2

Groups = list[dict[str, Any]]


class MuonWithAdamW(Optimizer):
    """One optimizer over both kinds of groups; states of all parameters stand in `state`."""

    def __init__(self, matrices: Groups, others: Groups, recipe: OptimizerRecipe) -> None:
        super().__init__(matrices, {"lr": 0.0})
        self._matrices = list(self.param_groups)
        self._others: Optimizer | None = None
        for group in self._matrices:
            for parameter in group["params"]:
                self.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    MOMENTUM: torch.zeros_like(parameter),
                }
        if others:
            self._others = AdamW(others, lr=0.0, betas=recipe.betas, eps=recipe.eps, fused=True)
            self._others.state = self.state
            # The same dictionaries: a rate that is set in one is set in both.
            self.param_groups += self._others.param_groups

    @property
    def others(self) -> Iterable[nn.Parameter]:
        """What AdamW updates."""
        return () if self._others is None else _parameters(self._others.param_groups)

    @torch.no_grad()
    def masked_step(self, *, skip: Tensor, product_dtype: torch.dtype | None) -> None:
        """Update the weights unless `skip` (boolean, shape []) is true; then nothing changes.

        Products are computed in `product_dtype` (None: as the weights are). The host waits for
        nothing. Of many ranks collective.
        """
        for group in self._matrices:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group, skip, product_dtype)
        if self._others is not None:
            self._others.found_inf = skip.to(torch.float32)  # type: ignore[attr-defined]
            try:
                self._others.step()
            finally:
                del self._others.found_inf  # type: ignore[attr-defined]

    def _update(
        self,
        parameter: nn.Parameter,
        group: dict[str, Any],
        skip: Tensor,
        product_dtype: torch.dtype | None,
    ) -> None:
        assert parameter.grad is not None
        state = self.state[parameter]
        gradient, momentum = local(parameter.grad), local(state[MOMENTUM])
        moved = momentum.lerp(gradient, 1 - _DECAY_OF_MOMENTUM)
        direction = orthogonalised(
            _whole(gradient.lerp(moved, _DECAY_OF_MOMENTUM), parameter),
            product_dtype or parameter.dtype,
        )[local_box(parameter)]
        lr = float(group["lr"])
        scale = _LIKE_ADAMW * math.sqrt(max(parameter.shape))
        weights = local(parameter.detach())
        updated = weights * (1 - lr * group["weight_decay"])
        updated.add_(direction, alpha=-lr * scale)
        momentum.copy_(torch.where(skip, momentum, moved))
        weights.copy_(torch.where(skip, weights, updated))
        state["step"] += (~skip).to(torch.float32)


def orthogonalised(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a matrix with its singular vectors, and values between about 0.7 and 1.2.

    By five Newton-Schulz iterations in `dtype`; values far below the largest one stay smaller.
    """
    found = matrix.to(dtype)
    is_tall = matrix.shape[0] > matrix.shape[1]
    if is_tall:
        found = found.T
    found = found / found.norm().clamp(min=_LEAST_NORM)
    for _ in range(NUM_ITERATIONS):
        gram = found @ found.T
        gram = torch.addmm(gram, gram, gram, beta=_B, alpha=_C)
        found = torch.addmm(found, gram, found, beta=_A)
    return found.T if is_tall else found


def _whole(part: Tensor, parameter: nn.Parameter) -> Tensor:
    """Return all of what this rank has a part of, cut as a parameter is; collective."""
    if not isinstance(parameter, DTensor):
        return part
    return DTensor.from_local(
        part,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    ).full_tensor()


def _parameters(groups: Groups) -> Iterable[nn.Parameter]:
    return (parameter for group in groups for parameter in group["params"])
