"""Documents that share a sequence, kept apart by their positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rewarm.errors import BaseModelError
from rewarm.model.modes import evaluating

__all__ = ["check_documents_apart"]

_DOCUMENT = 6
# Rounding in another order of summation, relative to the largest logit; a leak is a thousand times
# that even in a model with random weights.
_TOLERANCE = 1e-4


def check_documents_apart(
    model: Any, *, vocab_size: int, within: Callable[..., Any] | None = None
) -> None:
    """Raise BaseModelError where a document's logits depend on the one before it in its sequence.

    `model` is a causal model of transformers, float32. Two short sequences of made-up tokens go
    through it: another first document, the same second one, positions starting again at 0.
    Architectures that carry a state along (recurrent, convolutional) or take no positions fail.
    `within` calls `work(model, *arguments)` where a sharded model's weights are whole.
    """
    device = next(model.parameters()).device
    places = torch.arange(2 * _DOCUMENT, device=device) * 7919
    first = places % vocab_size
    other = first.clone()
    other[:_DOCUMENT] = (first[:_DOCUMENT] + 1) % vocab_size
    positions = torch.arange(_DOCUMENT, device=device).repeat(2)
    tokens = torch.stack((first, other))

    def logits_of(model: Any) -> torch.Tensor:
        output = model(input_ids=tokens, position_ids=positions.expand(2, -1), use_cache=False)
        found: torch.Tensor = output.logits
        return found

    with evaluating(model), torch.no_grad():
        logits = (logits_of(model) if within is None else within(logits_of))[:, _DOCUMENT:].float()
    scale = float(logits.abs().max())
    if float((logits[0] - logits[1]).abs().max()) > _TOLERANCE * scale:
        raise BaseModelError.one(
            "batch.mask_documents",
            f"in {type(model).__name__} a document's predictions depend on the one before it in "
            "its sequence, whatever their positions say",
            "set batch.mask_documents = false: documents of a sequence then see each other",
        )
