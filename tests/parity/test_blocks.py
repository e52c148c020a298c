"""Blocks that keep less give the same bits, and are called what they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rewarm.distributed.fsdp import blocks_of
from rewarm.model.blocks import checkpoint_blocks
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
