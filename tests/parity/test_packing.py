"""Documents of one sequence against the same documents run alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from rewarm.errors import BaseModelError
from rewarm.model.loss import sum_of_token_losses
from rewarm.model.packing import check_documents_apart
from tests.support.tiny_models import FAMILIES, family_model
from tests.support.tiny_plans import VOCAB_SIZE, new_tiny_model

LENGTHS = (1, 7, 13, 1, 10)


@pytest.fixture(scope="module")
def packed() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two sequences of documents of uneven lengths: inputs, labels, positions."""
    generator = torch.Generator().manual_seed(3)
    windows = torch.randint(0, 320, (2, sum(LENGTHS) + 1), generator=generator)
    positions = torch.cat([torch.arange(length) for length in LENGTHS]).repeat(2, 1)
    return windows[:, :-1], windows[:, 1:], positions


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_documents_of_a_sequence_are_as_if_alone(
    family: str, implementation: str, packed: tuple[torch.Tensor, ...]
) -> None:
    inputs, labels, positions = packed
    model = family_model(family).eval()
    model.set_attn_implementation("eager" if family == "gemma2" else implementation)
    found, _ = sum_of_token_losses(model, inputs, labels, positions)
    found.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    alone: Any = 0.0
    for row in range(2):
        start = 0
        for length in LENGTHS:
            span = slice(start, start + length)
            nats, _ = sum_of_token_losses(
                model, inputs[row : row + 1, span], labels[row : row + 1, span]
            )
            alone = alone + nats
            start += length
    alone.backward()
    assert found.item() == pytest.approx(alone.item(), rel=2e-6)
    for one, two in zip(
        gradients, (p.grad for p in model.parameters() if p.grad is not None), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=2e-4, atol=2e-5)
    together, _ = sum_of_token_losses(model, inputs, labels)
    assert abs(together.item() - alone.item()) > 1e-3, "the documents matter to each other"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_passes_the_check(family: str) -> None:
    model = family_model(family).train()
    check_documents_apart(model, vocab_size=320)
    assert all(module.training for module in model.modules())


def test_a_model_that_carries_a_state_along_is_refused() -> None:
    class Running(nn.Module):
        """Sums up all that came before, whatever the positions."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = new_tiny_model()

        def forward(
            self, input_ids: torch.Tensor, position_ids: torch.Tensor, use_cache: bool
        ) -> Any:
            return self.inner(input_ids, use_cache)

    with pytest.raises(BaseModelError, match="depend on the one before it") as caught:
        check_documents_apart(Running(), vocab_size=VOCAB_SIZE)
    assert "mask_documents = false" in str(caught.value)
