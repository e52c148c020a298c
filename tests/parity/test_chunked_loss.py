"""The loss in chunks against the model's own logits, and what is done where they disagree."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from rewarm.model import chunked_loss
from rewarm.model.chunked_loss import LogitShape, chunked_nats
from rewarm.model.head_loss import HeadLoss
from rewarm.model.loss import IGNORED, sum_of_token_losses, token_losses
from tests.support.largest import Largest
from tests.support.tiny_models import family_model

VOCAB = 97
CASES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "olmo2": {},
    "gemma2": {"final_logit_softcapping": 0.8},
    "gpt_neox": {},
    "gpt2": {},
    "granite": {"logits_scaling": 3.0},
    "cohere": {"logit_scale": 0.25},
    "phi": {},
}


def inputs() -> tuple[Tensor, Tensor]:
    ids = (torch.arange(3 * 11) * 7 % VOCAB).view(3, 11)
    labels = (ids + 5) % VOCAB
    labels[0, 4:] = IGNORED
    labels[2, ::2] = IGNORED
    return ids, labels


def gradients(model: Any, loss: Any, labels: Tensor, factor: float = 0.37) -> dict[str, Tensor]:
    model.zero_grad()
    nats, _ = loss(model, inputs()[0], labels)
    (nats * factor).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return found | {"": nats.detach()}


def chunked(rows: int = 7) -> HeadLoss:
    """Return the loss in chunks of so many tokens."""
    return HeadLoss(chunk_bytes=4 * VOCAB * rows)


@pytest.mark.parametrize("rows", [1, 7, 1000], ids=lambda rows: f"{rows} tokens a chunk")
@pytest.mark.parametrize("family", CASES)
def test_chunks_are_the_models_own_loss(family: str, rows: int) -> None:
    """Loss and every gradient in float64: caps, scales, tied heads, heads with a bias."""
    model = family_model(family, vocab_size=VOCAB, **CASES[family]).double().eval()
    if family == "phi":
        torch.nn.init.normal_(model.get_output_embeddings().bias)
    loss = chunked(rows)
    assert loss.settle(model) is None
    labels = inputs()[1]
    expected = gradients(model, sum_of_token_losses, labels)
    found = gradients(model, loss, labels)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        scale = float(tensor.abs().max()) or 1.0
        assert (found[name] - tensor).abs().max() <= 1e-12 * max(1.0, scale), name
    with torch.no_grad():
        ids = inputs()[0]
        each, own = loss.token_losses(model, ids, labels), token_losses(model, ids, labels)
    assert each.dtype == own.dtype
    assert (each - own).abs().max() <= 1e-12


def test_a_softmax_of_some_tokens_at_a_time_is_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a chunk, the last one shorter: loss, gradients and the losses of single tokens."""
    monkeypatch.setattr(chunked_loss, "BLOCK_BYTES", 4 * VOCAB * 3)
    test_chunks_are_the_models_own_loss("gemma2", 7)
    sizes: list[int] = []
    log_softmax = Tensor.log_softmax

    def noted(logits: Tensor, dim: int) -> Tensor:
        sizes.append(len(logits))
        return log_softmax(logits, dim)

    monkeypatch.setattr(Tensor, "log_softmax", noted)
    hidden, weight = torch.randn(12, 4, requires_grad=True), torch.randn(VOCAB, 4)
    chunked_nats(hidden, weight, None, torch.arange(12), chunk_bytes=4 * VOCAB * 4)
    assert sizes == [3, 3, 2, 3, 1]


def test_without_a_valid_label_all_is_zero() -> None:
    model = family_model("llama", vocab_size=VOCAB).double()
    loss = chunked()
    assert loss.settle(model) is None
    found = gradients(model, loss, torch.full((3, 11), IGNORED))
    assert all(float(tensor.abs().max()) == 0 for tensor in found.values())


def test_a_frozen_head_gets_no_gradient_and_no_grad_costs_none() -> None:
    model = family_model("llama", vocab_size=VOCAB).double()
    model.get_output_embeddings().weight.requires_grad_(False)
    loss = chunked()
    assert loss.settle(model) is None
    labels = inputs()[1]
    expected = gradients(model, sum_of_token_losses, labels)
    found = gradients(model, loss, labels)
    assert "lm_head.weight" not in found
    assert found.keys() == expected.keys()
    with torch.no_grad():
        nats, count = loss(model, *inputs())
    assert not nats.requires_grad
    assert float(nats) == pytest.approx(float(expected[""]), rel=1e-12)
    assert int(count) == int((labels != IGNORED).sum())


def test_under_autocast_it_is_as_near_as_the_plain_loss() -> None:
    model = family_model("llama", vocab_size=VOCAB).eval()
    labels = inputs()[1]
    exact = gradients(model.double(), sum_of_token_losses, labels)
    model.float()
    loss = chunked()
    assert loss.settle(model) is None

    def cast(objective: Any) -> dict[str, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return gradients(model, objective, labels)

    plain, ours = cast(sum_of_token_losses), cast(loss)
    for name, tensor in exact.items():
        errors = [float((found[name] - tensor).norm()) for found in (plain, ours)]
        assert errors[1] <= 1.5 * errors[0] + 1e-3 * float(tensor.norm()), name


def test_memory_does_not_grow_with_tokens_times_vocabulary() -> None:
    """Four times the tokens: the largest tensor stays the chunk's logits."""
    vocab, width = 4096, 8
    weight = torch.randn(vocab, width, requires_grad=True)
    largest = []
    for num_tokens in (256, 1024):
        hidden = torch.randn(num_tokens, width, requires_grad=True)
        labels = torch.arange(num_tokens) % vocab
        with Largest() as seen:
            nats = chunked_nats(hidden, weight, None, labels, chunk_bytes=4 * vocab * 64)
            nats.backward()  # type: ignore[no-untyped-call]
        largest.append(seen.num_elements)
    assert largest == [128 * vocab, 128 * vocab]  # as many bytes as two float32 arrays of 64


class _Other(torch.nn.Module):
    """Logits that no configuration tells of."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner = model
        self.config = model.config
        self.base_model_prefix = "body"
        self.body = model.model
        self.scale = 1.01
        self.get_output_embeddings = model.get_output_embeddings

    def forward(self, **inputs: Any) -> Any:
        output = self.inner(**inputs)
        output.logits = output.logits * self.scale
        return output


def test_where_the_logits_are_others_the_plain_loss_stays() -> None:
    model = _Other(family_model("llama", vocab_size=VOCAB))
    loss = chunked()
    why = loss.settle(model)
    assert why is not None
    assert "its own logits give" in why
    ids, labels = inputs()
    assert torch.equal(loss.token_losses(model, ids, labels), token_losses(model, ids, labels))
    assert torch.equal(loss(model, *inputs())[0], sum_of_token_losses(model, *inputs())[0])


def twice_the_gradient(of: str) -> Any:
    """Return the loss in chunks with the right value and twice one of its gradients."""

    def nats(
        hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, /, **more: Any
    ) -> Tensor:
        total = chunked_nats(hidden, weight, bias, labels, **more)
        part = {"hidden": hidden, "weight": weight}[of]
        (gradient,) = torch.autograd.grad(total, part, retain_graph=True)
        extra = (gradient.clone() * part).sum()
        total = chunked_nats(hidden, weight, bias, labels, **more)
        return total + extra - extra.detach()

    return nats


@pytest.mark.parametrize(("of", "said"), [("hidden", "hidden states"), ("weight", "weight")])
def test_where_a_gradient_is_another_the_plain_loss_stays(of: str, said: str) -> None:
    """Its values are the model's own: only the comparison of gradients can tell."""
    model = family_model("llama", vocab_size=VOCAB)
    loss = HeadLoss(twice_the_gradient(of))
    assert loss.settle(model) == f"its own logits give another gradient of the {said}"
    assert torch.equal(loss(model, *inputs())[0], sum_of_token_losses(model, *inputs())[0])
    assert loss.settle(model, trains=False) is None


@pytest.mark.parametrize("family", CASES)
def test_settling_leaves_a_model_as_it_was(family: str) -> None:
    model = family_model(family, vocab_size=VOCAB, **CASES[family]).train()
    for dtype in (torch.float32, torch.bfloat16):
        model.to(dtype)
        assert chunked().settle(model) is None
        assert all(parameter.grad is None for parameter in model.parameters())
        assert all(module.training for module in model.modules())
        assert not any(module._forward_hooks for module in model.modules())
        assert torch.is_grad_enabled()


def test_a_model_whose_logits_come_from_elsewhere_keeps_the_plain_loss() -> None:
    """Its head is fed by a copy of its body: what is replaced there does not reach the logits."""
    model = family_model("llama", vocab_size=VOCAB)
    other = _Other(family_model("llama", vocab_size=VOCAB))
    other.body, other.scale = model.model, 1.0
    why = chunked().settle(other)
    assert why is not None
    assert "not made from them" in why


def test_a_model_of_another_make_keeps_the_plain_loss() -> None:
    model = _Other(family_model("llama", vocab_size=VOCAB))
    model.base_model_prefix = "elsewhere"
    why = chunked().settle(model)
    assert why is not None
    assert "not where they are looked for" in why


def test_a_cap_by_hand() -> None:
    """cap 2, scale 3: 2 · tanh(3 · 0.5 / 2) = 2 · tanh(0.75)."""
    assert LogitShape(3.0, 2.0).apply_(torch.tensor([0.5])).item() == pytest.approx(1.2702980)


def test_the_gradient_of_a_chunk_is_gone_before_the_next_ones_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A compiled chunk's is an array of its own, of a quarter of a GiB with many entries."""
    before: list[weakref.ref[Tensor]] = []

    def of_chunk(*arguments: Any) -> tuple[Tensor, Tensor]:
        assert not [gradient for gradient in before if gradient() is not None]
        nats, gradient = chunked_loss._fused_chunk(*arguments)
        assert gradient is not None
        before.append(weakref.ref(gradient))
        return nats, gradient

    monkeypatch.setattr(chunked_loss, "_compiled_chunk", lambda: of_chunk)
    hidden, weight = (torch.randn(rows, 8, requires_grad=True) for rows in (20, VOCAB))
    labels = torch.arange(20)
    nats = chunked_nats(hidden, weight, None, labels, chunk_bytes=4 * VOCAB * 3, compiled=True)
    torch.autograd.backward(nats)
    assert len(before) == 4
