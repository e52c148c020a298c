"""The loss in chunks against the model's own logits, and what is done where they disagree."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rewarm.model import chunked_loss
from rewarm.model.chunked_loss import ChunkedLoss, LogitShape, chunked_nats
from rewarm.model.loss import IGNORED, sum_of_token_losses
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


@pytest.fixture(params=[1, 7, 1000], ids=lambda rows: f"{rows} tokens a chunk")
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: int = request.param

    def fixed(*arguments: Any, **options: Any) -> Tensor:
        return chunked_nats(*arguments, **options, chunk_bytes=4 * VOCAB * rows)

    monkeypatch.setattr(chunked_loss, "chunked_nats", fixed)


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("family", CASES)
def test_chunks_are_the_models_own_loss(family: str) -> None:
    """Loss and every gradient in float64: caps, scales, tied heads, heads with a bias."""
    model = family_model(family, vocab_size=VOCAB, **CASES[family]).double().eval()
    if family == "phi":
        torch.nn.init.normal_(model.get_output_embeddings().bias)
    loss = ChunkedLoss()
    assert loss.settle(model) is None
    labels = inputs()[1]
    expected = gradients(model, sum_of_token_losses, labels)
    found = gradients(model, loss, labels)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        scale = float(tensor.abs().max()) or 1.0
        assert (found[name] - tensor).abs().max() <= 1e-12 * max(1.0, scale), name


def test_without_a_valid_label_all_is_zero() -> None:
    model = family_model("llama", vocab_size=VOCAB).double()
    loss = ChunkedLoss()
    assert loss.settle(model) is None
    found = gradients(model, loss, torch.full((3, 11), IGNORED))
    assert all(float(tensor.abs().max()) == 0 for tensor in found.values())


def test_a_frozen_head_gets_no_gradient_and_no_grad_costs_none() -> None:
    model = family_model("llama", vocab_size=VOCAB).double()
    model.get_output_embeddings().weight.requires_grad_(False)
    loss = ChunkedLoss()
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
    loss = ChunkedLoss()
    assert loss.settle(model) is None

    def cast(objective: Any) -> dict[str, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return gradients(model, objective, labels)

    plain, chunked = cast(sum_of_token_losses), cast(loss)
    for name, tensor in exact.items():
        errors = [float((found[name] - tensor).norm()) for found in (plain, chunked)]
        assert errors[1] <= 1.5 * errors[0] + 1e-3 * float(tensor.norm()), name


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the largest tensor that any operation gives."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.num_elements = max(self.num_elements, result.numel())
        return result


def test_memory_does_not_grow_with_tokens_times_vocabulary() -> None:
    """Four times the tokens: the largest tensor stays the chunk's logits."""
    vocab, width = 4096, 8
    weight = torch.randn(vocab, width, requires_grad=True)
    largest = []
    for num_tokens in (256, 1024):
        hidden = torch.randn(num_tokens, width, requires_grad=True)
        labels = torch.arange(num_tokens) % vocab
        with _Largest() as seen:
            nats = chunked_nats(hidden, weight, None, labels, chunk_bytes=4 * vocab * 64)
            nats.backward()  # type: ignore[no-untyped-call]
        largest.append(seen.num_elements)
    assert largest == [64 * vocab, 64 * vocab]


class _Other(torch.nn.Module):
    """Logits that no configuration tells of."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner = model
        self.config = model.config
        self.base_model_prefix = "body"
        self.body = model.model
        self.get_output_embeddings = model.get_output_embeddings

    def forward(self, **inputs: Any) -> Any:
        output = self.inner(**inputs)
        output.logits = output.logits * 1.01
        return output


def test_where_the_logits_are_others_the_plain_loss_stays() -> None:
    model = _Other(family_model("llama", vocab_size=VOCAB))
    loss = ChunkedLoss()
    why = loss.settle(model)
    assert why is not None
    assert "its own logits give" in why
    assert torch.equal(loss(model, *inputs())[0], sum_of_token_losses(model, *inputs())[0])


def test_a_model_of_another_make_keeps_the_plain_loss() -> None:
    model = _Other(family_model("llama", vocab_size=VOCAB))
    model.base_model_prefix = "elsewhere"
    why = ChunkedLoss().settle(model)
    assert why is not None
    assert "not where they are looked for" in why


def test_a_cap_by_hand() -> None:
    """cap 2, scale 3: 2 · tanh(3 · 0.5 / 2) = 2 · tanh(0.75)."""
    assert LogitShape(3.0, 2.0).apply_(torch.tensor([0.5])).item() == pytest.approx(1.2702980)
