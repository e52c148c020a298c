"""What a run trains on: the loss as its placement says, held against the model's own logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from rewarm.model.head_loss import HeadLoss
from rewarm.model.liger_loss import liger_nats
from rewarm.planning.plan import Placement

__all__ = ["head_loss", "settle_loss"]


def head_loss(placement: Placement) -> HeadLoss:
    """Return the objective of a placement; it is the plain loss until `settle_loss` was called."""
    return HeadLoss(liger_nats if placement.loss == "liger" else None)


def settle_loss(
    loss: HeadLoss,
    placement: Placement,
    model: nn.Module,
    *,
    within: Callable[..., Any] | None = None,
    trains: bool = True,
) -> list[str]:
    """Use the placement's way where the model's own logits bear it out; return what to tell.

    Collective; `within` as in `HeadLoss.settle`.
    """
    if placement.loss == "plain":
        return []
    why = loss.settle(model, within=within, trains=trains)
    return [] if why is None else [f"the plain loss is used, all logits at once: {why}"]
