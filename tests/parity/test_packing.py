"""Documents of one sequence against the same documents run alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from rewarm.corpus.packed import PADDING_INPUT
from rewarm.corpus.views import IGNORED_LABEL
from rewarm.errors import BaseModelError
from rewarm.model.document_attention import WHOLE_NAME, Road
from rewarm.model.loss import sum_of_token_losses
from rewarm.model.packing import DocumentAttention, check_documents_apart
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


WINDOWED = {"mistral": {"sliding_window": 8}, "gemma3_text": {"sliding_window": 8, "head_dim": 8}}


@pytest.mark.parametrize("way", ["sdpa", "eager", "split"])
@pytest.mark.parametrize("family", [*FAMILIES, "gemma3_text"])
def test_documents_of_a_sequence_are_as_if_alone(
    family: str, way: str, packed: tuple[torch.Tensor, ...]
) -> None:
    """Losses and gradients by each road of a CPU, against the documents run by themselves."""
    inputs, labels, positions = packed
    model = family_model(family, **WINDOWED.get(family, {})).eval()
    attention = DocumentAttention(("split",), sequence_length=32)
    if way == "split":
        assert attention.settle(model) == []
    else:
        model.set_attn_implementation("eager" if family == "gemma2" else way)
    found, _ = sum_of_token_losses(model, inputs, labels, positions)
    found.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    alone: Any = 0.0
    for row in range(2):
        start = 0
        for length in LENGTHS:
            span = slice(start, start + length)
            with attention.as_loaded(model):
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


@pytest.mark.parametrize("way", ["sdpa", "split", "together"])
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_is_neither_seen_nor_learned_from(
    family: str, way: str, packed: tuple[torch.Tensor, ...]
) -> None:
    """Whatever ids stand in the padding of a bin, what is learned from its text is the same; and it
    is what the text alone gives."""
    inputs, labels, positions = (part.clone() for part in packed)
    end = sum(LENGTHS[:3])
    labels[1, end:] = IGNORED_LABEL
    positions[1, end:] = torch.arange(sum(LENGTHS) - end)
    model = family_model(family).eval()
    attention = DocumentAttention(("split",), sequence_length=32)
    if way == "split":
        assert attention.settle(model) == []
    told = None if way == "together" else positions

    def learned(inputs: torch.Tensor) -> tuple[float, list[torch.Tensor]]:
        model.zero_grad()
        nats, count = sum_of_token_losses(model, inputs, labels, told)
        assert count == labels.shape[1] + end
        nats.backward()  # type: ignore[no-untyped-call]
        return nats.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    padded = [inputs.clone(), inputs.clone()]
    padded[0][1, end:] = PADDING_INPUT
    padded[1][1, end:] = torch.arange(sum(LENGTHS) - end) + 5
    (one, gradients), (other, same) = learned(padded[0]), learned(padded[1])
    assert one == other
    for first, second in zip(gradients, same, strict=True):
        assert torch.equal(first, second)
    alone = 0.0
    with torch.no_grad(), attention.as_loaded(model):
        for row, stop in ((0, sum(LENGTHS)), (1, end)):
            places = None if told is None else told[row, None, :stop]
            ids, wanted = inputs[row, None, :stop], labels[row, None, :stop]
            alone += sum_of_token_losses(model, ids, wanted, places)[0].item()
    assert one == pytest.approx(alone, rel=2e-6)


@pytest.mark.parametrize("roads", [("mask",), ("split",)])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_passes_the_check_in_half_precision(
    family: str, roads: tuple[Road, ...]
) -> None:
    """As on ranks, whose weights are gathered in bf16: rounding is not taken for a leak."""
    model = family_model(family).train().to(torch.bfloat16)
    DocumentAttention(roads, sequence_length=32).settle(model)
    check_documents_apart(model, vocab_size=320)


@pytest.mark.parametrize("roads", [("mask",), ("split",)])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_passes_the_check(family: str, roads: tuple[Road, ...]) -> None:
    model = family_model(family).train()
    assert DocumentAttention(roads, sequence_length=32).settle(model) == []
    check_documents_apart(model, vocab_size=320)
    assert all(module.training for module in model.modules())


# Soft-capping, and windows, are not in it.
NOT_WHOLE = {"gemma2": "softcap", "mistral": "a window of 8", "gemma3_text": "a window of 8"}


@pytest.mark.parametrize("family", [*FAMILIES, "gemma3_text"])
def test_whole_windows_need_no_mask_where_causal_attention_is_all(
    family: str, packed: tuple[torch.Tensor, ...]
) -> None:
    inputs, labels, _ = packed
    model = family_model(family, **WINDOWED.get(family, {})).eval()
    own = model.config._attn_implementation
    expected = gradients_of(model, inputs, labels)
    attention = DocumentAttention((), sequence_length=32)
    why = attention.settle_whole(model)
    if family in NOT_WHOLE:
        assert NOT_WHOLE[family] in str(why)
        assert model.config._attn_implementation == own
    else:
        assert why is None
        assert model.config._attn_implementation == WHOLE_NAME
    found = gradients_of(model, inputs, labels)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)
    with attention.as_loaded(model):
        assert model.config._attn_implementation == own


def gradients_of(model: Any, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    nats, _ = sum_of_token_losses(model, inputs, labels)
    nats.backward()  # type: ignore[no-untyped-call]
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_a_model_that_carries_a_state_along_is_refused() -> None:
    class Running(nn.Module):
        """Sums up all that came before, whatever the positions."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = new_tiny_model()
            self.config = SimpleNamespace(_attn_implementation="eager")

        def forward(
            self, input_ids: torch.Tensor, position_ids: torch.Tensor, use_cache: bool
        ) -> Any:
            return self.inner(input_ids, use_cache)

    with pytest.raises(BaseModelError, match="depend on the one before it") as caught:
        check_documents_apart(Running(), vocab_size=VOCAB_SIZE)
    assert "mask_documents = false" in str(caught.value)


@pytest.mark.parametrize("family", [*FAMILIES, "gemma3_text"])
def test_rounding_in_half_precision_is_no_leak(family: str) -> None:
    """Neighbours that share a call are rounded otherwise at another place in it: 1 %, no leak."""
    model = family_model(family, **WINDOWED.get(family, {})).eval()
    attention = DocumentAttention(("split",), sequence_length=32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert attention.settle(model) == []
        check_documents_apart(model, vocab_size=320)


def test_a_leak_shows_in_half_precision_too() -> None:
    model = family_model("llama").eval()
    own = model.forward

    def without_positions(*given: Any, position_ids: Any = None, **more: Any) -> Any:
        return own(*given, **more)

    model.forward = without_positions
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(BaseModelError, match="depend on the one before it"),
    ):
        check_documents_apart(model, vocab_size=320)
