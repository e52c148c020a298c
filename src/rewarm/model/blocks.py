"""What a model's blocks keep for the backward pass.

    none        every activation is kept
    selective   matrix products and attention are kept, what lies between is computed again
    full        a block's input alone is kept, the block is computed again

What is computed again is computed by the same kernels from the same numbers, random ones included:
gradients keep their bits. Names of parameters stay as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from rewarm.records.probe import Checkpointing

__all__ = ["checkpoint_blocks", "checkpointed"]

_aten = torch.ops.aten
# The products: most of a block's time, and less than half of what it keeps.
_KEPT = frozenset(
    {
        _aten.mm.default,
        _aten.addmm.default,
        _aten.bmm.default,
        _aten._scaled_dot_product_flash_attention_for_cpu.default,
        _aten._scaled_dot_product_flash_attention.default,
        _aten._scaled_dot_product_efficient_attention.default,
        _aten._scaled_dot_product_cudnn_attention.default,
    }
)
# Attention by kernels that keep documents apart: operators that torch and the packages register
# when they are imported, and so known by their names.
_KEPT_NAMES = frozenset(
    {
        "torch_attn::_varlen_attn",
        "flash_attn::_flash_attn_forward",
        "flash_attn::_flash_attn_varlen_forward",
        "flash_attn_3::_flash_attn_forward",
        "flash_attn_3::fwd",  # before the package wrapped it
    }
)


def checkpoint_blocks(blocks: list[nn.Module], kind: Checkpointing) -> None:
    """Let blocks keep less for the backward pass, in place, as the module's head says."""
    if kind == "none":
        return
    for block in blocks:
        block.forward = checkpointed(block.forward, kind)


def checkpointed(forward: Callable[..., Any], kind: Checkpointing) -> Callable[..., Any]:
    """Return a block's forward pass that keeps what `kind` says; nothing where no gradient is."""
    more: dict[str, Any] = {"context_fn": _selected} if kind == "selective" else {}

    @functools.wraps(forward)
    def run(*arguments: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*arguments, **named)
        return checkpoint(forward, *arguments, use_reentrant=False, **more, **named)

    return run


def _selected() -> Any:
    return create_selective_checkpoint_contexts(_policy)  # type: ignore[no-untyped-call]


def _policy(context: Any, operator: Any, *arguments: Any, **named: Any) -> CheckpointPolicy:
    kept = operator in _KEPT or operator.name() in _KEPT_NAMES
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
