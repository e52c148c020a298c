"""How much a text's likelihood hangs on each weight: the diagonal of its Fisher information.

    F = Σ_sequences (∂ nats of the sequence / ∂θ)² / tokens

That is the mean of squared gradients of single sequences (never the square of a mean, in which they
cancel), per token: under the base, a change δ moves its distribution by about ½ΣFδ² nats a token.
Labels are the text's own (the "empirical" Fisher information).

Sequences come one at a time, so that memory is two copies of the weights. Many ranks take every
sequence together, and one share of the data alone lets its labels count: a gradient that is summed
over the ranks is then still that of one sequence. It takes as long as on one device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from rewarm.batches.loader import IGNORED_LABEL, Batch
from rewarm.distributed.fsdp import Root, local, reduce_gradients
from rewarm.model.modes import evaluating

__all__ = ["fisher_diagonal"]

SummedLoss = Callable[..., tuple[Tensor, object]]
"""`loss(model, input_ids, labels, position_ids, bounds)` → (Σ nats, a count), as in training."""


def fisher_diagonal(
    root: Root,
    parameters: Sequence[tuple[str, nn.Parameter]],
    sequences: Iterable[Batch],
    loss: SummedLoss,
    *,
    labels_count: bool = True,
    autocast: Callable[[], AbstractContextManager[object]],
) -> dict[str, Tensor]:
    """Return F by name, each in the shape and in the parts of its parameter; collective.

    `labels_count` is true for exactly one share of the data. The model is in evaluation mode: no
    dropout.
    """
    found = {name: torch.zeros_like(parameter).detach() for name, parameter in parameters}
    device = parameters[0][1].device
    num_tokens = 0
    with evaluating(root.model):
        for batch in sequences:
            assert len(batch.input_ids) == 1, "one sequence at a time"
            here = batch.to(device)
            labels = here.labels if labels_count else torch.full_like(here.labels, IGNORED_LABEL)
            reduce_gradients(root, now=True, keep_whole=False)
            with autocast():
                nats, _ = root(loss, here.input_ids, labels, here.position_ids, here.bounds())
            nats.backward()
            num_tokens += batch.num_valid_tokens
            _add_squares(found, parameters)
    for tensor in found.values():
        local(tensor).div_(max(num_tokens, 1))
    return found


@torch.no_grad()
def _add_squares(found: dict[str, Tensor], parameters: Sequence[tuple[str, nn.Parameter]]) -> None:
    """Add the squares of the gradients, which are then gone."""
    for name, parameter in parameters:
        if parameter.grad is not None:
            gradient = local(parameter.grad)
            local(found[name]).addcmul_(gradient, gradient)
            parameter.grad = None
