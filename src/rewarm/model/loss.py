"""Next-token losses of a causal model, through the model's own forward.

Labels are the tokens that follow the inputs (a window carries L inputs and one label more), so
nothing is shifted here. Logits come from the model itself: soft-capping, logit scaling and head
biases are whatever its family does.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from rewarm.model.packing import packed_inputs

__all__ = [
    "IGNORED",
    "CausalModel",
    "logits_of",
    "sum_of_token_losses",
    "token_losses",
    "token_losses_and_misses",
]

IGNORED = -100
"""A label that does not count."""


class CausalModel(Protocol):
    """A model of transformers: a call gives an output with `logits` [batch, time, vocabulary]."""

    def __call__(self, *, input_ids: Tensor, use_cache: bool, **told: Any) -> _Output:
        """Return the output for int64 [batch, time] inputs."""
        ...


class _Output(Protocol):
    logits: Tensor


def token_losses(model: CausalModel, input_ids: Tensor, labels: Tensor) -> Tensor:
    """Return −log p(label) in nats at every position, float32 [batch, time]; 0 where ignored.

    `input_ids` and `labels` are int64 [batch, time].
    """
    logits = logits_of(model, input_ids, None)
    losses = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=IGNORED
    )
    return losses.view_as(labels)


def token_losses_and_misses(model: CausalModel, input_ids: Tensor, labels: Tensor) -> Tensor:
    """Return `token_losses` and, in the same shape, 1 where the label is not the likeliest token.

    float32 [2, batch, time], 0 where ignored. All logits of the batch are in memory at once.
    """
    logits = logits_of(model, input_ids, None)
    flat = labels.flatten()
    losses = F.cross_entropy(logits.flatten(0, 1), flat, reduction="none", ignore_index=IGNORED)
    misses = (logits.flatten(0, 1).argmax(dim=-1) != flat) & (flat != IGNORED)
    return torch.stack([losses, misses.to(losses.dtype)]).view(2, *labels.shape)


def sum_of_token_losses(
    model: CausalModel,
    input_ids: Tensor,
    labels: Tensor,
    position_ids: Tensor | None = None,
    bounds: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the summed loss in nats (a scalar with gradient) and the number of valid labels.

    With `position_ids` that start again at 0 inside a sequence, what stands before the new start
    is another document and is not attended to; `bounds` say the same (`packing.py`).

    A sum, not a mean: the caller divides by the valid labels of the whole step, so that
    micro-batches and ranks of unequal counts weigh every token alike. Without a valid label the
    sum is 0 and so are its gradients. The number is a tensor (int64, shape []), so that nobody
    waits for the device who does not want it.
    """
    logits = logits_of(model, input_ids, position_ids, bounds)
    total = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=IGNORED
    )
    return total, (labels != IGNORED).sum()


def logits_of(
    model: CausalModel,
    input_ids: Tensor,
    position_ids: Tensor | None,
    bounds: Tensor | None = None,
) -> Tensor:
    """Return a model's own logits, [batch, time, vocabulary], in float32 at least.

    A softmax in bfloat16 loses three decimals.
    """
    told = packed_inputs(model, position_ids, bounds)
    logits = model(input_ids=input_ids, use_cache=False, **told).logits
    return logits if logits.dtype == torch.float64 else logits.float()
