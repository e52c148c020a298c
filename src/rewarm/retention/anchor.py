"""Pulls of the weights to their values in the base: L2-SP and EWC.

    L2-SP    λ/2 · Σ(θ − θ*)²         adds λ(θ − θ*) to the gradient
    EWC      λ/2 · ΣF(θ − θ*)²        adds λF(θ − θ*)

Each rank adds what belongs to its own part of a weight, after gradients were reduced and before
they are clipped: nothing is summed over the ranks, so no number of them can enter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rewarm.distributed.fsdp import local

__all__ = ["Anchor"]


@dataclass(frozen=True, slots=True, eq=False)
class Anchor:
    """The base's weights, this rank's parts, and how strongly others are pulled to them.

    `fisher`, of the same names and shapes, is there where `ewc` is not 0.
    """

    base: Mapping[str, Tensor]
    fisher: Mapping[str, Tensor]
    l2sp: float = 0.0
    ewc: float = 0.0

    @classmethod
    def at(
        cls,
        parameters: Iterable[tuple[str, nn.Parameter]],
        *,
        l2sp: float,
        ewc: float,
        fisher: Mapping[str, Tensor],
    ) -> Anchor:
        """Return an anchor where these parameters are now; `fisher` may be whole or sharded."""
        base = {name: local(parameter).detach().clone() for name, parameter in parameters}
        of_parts = {name: local(fisher[name]) for name in base} if ewc else {}
        return cls(base, of_parts, l2sp, ewc)

    @torch.no_grad()
    def pull(
        self, parameters: Iterable[tuple[str, nn.Parameter]], shares: Mapping[str, float]
    ) -> Tensor:
        """Add each pull to the gradients of those that have one.

        Returns the two penalties over this rank's parts, float64 [2]: L2-SP's and EWC's, of which
        `shares` says how much counts, by name: a part that n ranks have counts 1/n on each.
        """
        device = next(iter(self.base.values())).device
        penalties = torch.zeros(2, dtype=torch.float64, device=device)
        for name, parameter in parameters:
            if parameter.grad is None:
                continue
            gradient, away = local(parameter.grad), local(parameter) - self.base[name]
            if self.l2sp:
                penalties[0] += (away * away).sum(dtype=torch.float64) * (
                    shares[name] * self.l2sp / 2
                )
                gradient.add_(away, alpha=self.l2sp)
            if self.ewc:
                weighed = away * self.fisher[name]
                penalties[1] += (weighed * away).sum(dtype=torch.float64) * (
                    shares[name] * self.ewc / 2
                )
                gradient.add_(weighed, alpha=self.ewc)
        return penalties
