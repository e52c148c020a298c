"""Our loss against the one that transformers computes from the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rewarm.model.loss import IGNORED, sum_of_token_losses, token_losses
from tests.support.tiny_models import FAMILIES, family_model

BATCH, TIME, VOCAB_SIZE = 3, 17, 61


@pytest.fixture(scope="module")
def windows() -> Tensor:
    """Token ids [batch, time + 1]: inputs and, one to the right, labels."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(VOCAB_SIZE, (BATCH, TIME + 1), generator=generator)


def tiny(family: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    return family_model(family, vocab_size=VOCAB_SIZE, **changes).eval().to(dtype)


def gradients(model: Any) -> dict[str, Tensor]:
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradient_are_those_of_transformers(
    family: str, dtype: torch.dtype, windows: Tensor
) -> None:
    model = tiny(family, dtype)
    # It shifts labels itself and takes the mean over what is left.
    theirs = model(input_ids=windows, labels=windows).loss
    theirs.backward()
    their_gradients = gradients(model)

    nats, num_valid = sum_of_token_losses(model, windows[:, :-1], windows[:, 1:])
    ours = nats / num_valid
    ours.backward()  # type: ignore[no-untyped-call]

    assert int(num_valid) == BATCH * TIME
    # In both types: it computes the loss in float32.
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, their_gradients[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_ignored_labels_are_left_out_of_sum_and_count(family: str, windows: Tensor) -> None:
    labels = windows.clone()
    labels[0, :5] = labels[2] = IGNORED
    model = tiny(family)
    nats, num_valid = sum_of_token_losses(model, windows[:, :-1], labels[:, 1:])
    theirs = model(input_ids=windows, labels=labels).loss
    assert int(num_valid) == 2 * TIME - 4
    assert (nats / num_valid).item() == pytest.approx(theirs.item(), abs=1e-6)


def test_soft_capping_is_in_the_loss(windows: Tensor) -> None:
    capped = tiny("gemma2", final_logit_softcapping=0.8)
    plain = tiny("gemma2", final_logit_softcapping=None)
    plain.load_state_dict(capped.state_dict())
    losses = token_losses(plain, windows[:, :-1], windows[:, 1:])
    logits = plain(input_ids=windows[:, :-1]).logits
    by_hand = F.cross_entropy(
        (0.8 * torch.tanh(logits / 0.8)).flatten(0, 1), windows[:, 1:].flatten(), reduction="none"
    )
    found = token_losses(capped, windows[:, :-1], windows[:, 1:])
    torch.testing.assert_close(found.flatten(), by_hand, atol=1e-6, rtol=0)
    assert not torch.allclose(found, losses, atol=1e-2)


def test_token_losses_are_the_summands(windows: Tensor) -> None:
    model = tiny("llama", torch.float64)
    labels = windows[:, 1:].clone()
    labels[1, 3:9] = IGNORED
    losses = token_losses(model, windows[:, :-1], labels)
    nats, _ = sum_of_token_losses(model, windows[:, :-1], labels)
    log_p = torch.log_softmax(model(input_ids=windows[:, :-1]).logits, dim=-1)
    expected = -log_p.gather(2, windows[:, 1:, None]).squeeze(2).masked_fill(labels == IGNORED, 0.0)
    assert losses.shape == (BATCH, TIME)
    torch.testing.assert_close(losses, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(nats, losses.sum(), atol=1e-10, rtol=0)
    assert not losses[1, 3:9].any()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_labels_that_are_all_masked_give_zero_loss_and_zero_gradient(
    family: str, windows: Tensor
) -> None:
    model = tiny(family)
    labels = torch.full((BATCH, TIME), IGNORED)
    nats, num_valid = sum_of_token_losses(model, windows[:, :-1], labels)
    nats.backward()  # type: ignore[no-untyped-call]
    assert nats.item() == 0.0
    assert int(num_valid) == 0
    assert all(not gradient.any() for gradient in gradients(model).values())
    assert not token_losses(model, windows[:, :-1], labels).any()


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_the_softmax_of_narrow_logits_is_taken_in_float32(
    weights: torch.dtype, windows: Tensor
) -> None:
    model = tiny("llama", weights)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=weights == torch.float32):
        logits = model(input_ids=windows[:, :-1]).logits
        nats, _ = sum_of_token_losses(model, windows[:, :-1], windows[:, 1:])
        losses = token_losses(model, windows[:, :-1], windows[:, 1:])
    assert logits.dtype == torch.bfloat16
    assert nats.dtype == losses.dtype == torch.float32
    exact = F.cross_entropy(
        logits.double().flatten(0, 1), windows[:, 1:].flatten(), reduction="sum"
    )
    assert nats.item() == pytest.approx(exact.item(), rel=1e-6)
    assert losses.sum().item() == pytest.approx(exact.item(), rel=1e-6)
