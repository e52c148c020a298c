"""Blocks that keep less give the same bits, and are called what they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy

from rewarm.distributed.fsdp import blocks_of
from rewarm.model import blocks
from rewarm.model.blocks import checkpoint_blocks
from rewarm.model.document_attention import NAME_OF, register_roads
from rewarm.model.loss import sum_of_token_losses
from rewarm.records.probe import Checkpointing
from tests.support.tiny_models import family_model

IDS = torch.randint(320, (2, 16), generator=torch.Generator().manual_seed(0))
DROPOUT: dict[str, dict[str, Any]] = {
    "llama": {"attention_dropout": 0.2},
    "gpt2": {"attn_pdrop": 0.2, "resid_pdrop": 0.2},
}


def gradients(family: str, kind: Checkpointing, *, half: bool) -> tuple[Tensor, dict[str, Tensor]]:
    model = family_model(family, **DROPOUT.get(family, {})).train()
    checkpoint_blocks(blocks_of(model), kind)
    torch.manual_seed(3)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        nats, _ = sum_of_token_losses(model, IDS, IDS, None)
    torch.autograd.backward(nats)
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(grad is not None and grad.any() for grad in found.values())
    return nats.detach(), found


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2"])
def test_what_is_computed_again_has_the_same_bits(family: str, half: bool) -> None:
    """Random numbers of dropout included."""
    nats, kept = gradients(family, "none", half=half)
    kinds: tuple[Checkpointing, ...] = ("selective", "full")
    for kind in kinds:
        again_nats, again = gradients(family, kind, half=half)
        assert torch.equal(again_nats, nats)
        assert again.keys() == kept.keys()
        for name, expected in kept.items():
            assert torch.equal(again[name], expected), f"{kind}: {name}"


def test_each_block_is_computed_once_more_in_the_backward_pass() -> None:
    assert [num_calls(kind) for kind in ("none", "selective", "full")] == [4, 6, 6]


@pytest.mark.parametrize(("kind", "expected"), [("none", 2), ("selective", 2), ("full", 4)])
def test_attention_by_torchs_kernel_for_documents_is_kept(
    kind: Checkpointing, expected: int
) -> None:
    """A CPU has no such kernel: what stands in for it counts how often it is asked."""
    from torch.nn.attention import varlen

    register_roads()
    model = family_model("llama").train()
    model.set_attn_implementation(NAME_OF["varlen"])
    checkpoint_blocks(blocks_of(model), kind)
    calls: list[int] = []

    def forward(query: Tensor, key: Tensor, value: Tensor, *more: Any, **named: Any) -> Any:
        calls.append(1)
        sums = query.new_zeros(query.shape[:2]).T.contiguous()
        return query * 2, sums, query.new_zeros(2, dtype=torch.uint64)

    def backward(
        gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
    ) -> Any:
        return gradient * 2, torch.zeros_like(key), torch.zeros_like(value)

    assert varlen._varlen_attn._opoverload is torch.ops.torch_attn._varlen_attn.default
    with torch.library._scoped_library("torch_attn", "IMPL") as library:
        library.impl("_varlen_attn", forward, "CPU")
        library.impl("_varlen_attn_backward", backward, "CPU")
        nats, _ = sum_of_token_losses(model, IDS, IDS, None)
        torch.autograd.backward(nats)
    assert len(calls) == expected


@pytest.mark.parametrize(
    "name",
    [
        "torch_attn::_varlen_attn",
        "flash_attn::_flash_attn_forward",
        "flash_attn::_flash_attn_varlen_forward",
        "flash_attn_3::_flash_attn_forward",
        "flash_attn_3::fwd",
    ],
)
def test_attention_of_packages_is_kept_whether_or_not_they_are_there(name: str) -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self._name = name

        def name(self) -> str:
            return self._name

    assert blocks._policy(None, Named(name)) == CheckpointPolicy.MUST_SAVE
    backward = name.replace("forward", "backward").replace("varlen_attn", "varlen_attn_backward")
    backward = backward.replace("::fwd", "::bwd")
    again = (Named(backward), torch.ops.aten.silu.default, torch.ops.higher_order.flex_attention)
    for operator in again:
        assert blocks._policy(None, operator) == CheckpointPolicy.PREFER_RECOMPUTE


def num_calls(kind: Checkpointing) -> int:
    """Return how often two blocks run in a step and in a forward pass without gradients."""
    model = family_model("llama").train()
    calls: list[object] = []
    for block in blocks_of(model):
        block.get_submodule("mlp").register_forward_pre_hook(lambda *_: calls.append(1))
    checkpoint_blocks(blocks_of(model), kind)
    nats, _ = sum_of_token_losses(model, IDS, IDS, None)
    torch.autograd.backward(nats)
    with torch.no_grad():
        model(IDS)
    return len(calls)
