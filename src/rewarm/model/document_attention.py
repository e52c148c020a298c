"""Attention within documents: the roads there are, which a device may have, and two of ours.

    flash_attention_2, flash_attention_3   kernels of the packages, by transformers; half precision
    varlen                                 torch's own kernel of that kind; half precision
    flex_attention                         compiled from a block mask, by transformers
    split                                  on a CPU: one fused causal attention for all documents
                                           of about a length
    mask                                   a mask over all pairs of a sequence's tokens; everywhere

All but the last skip the pairs of tokens of different documents, which the mask computes for
nothing. Flash, varlen and split are told where documents begin in `cu_seq_lens_q`, the running sum
of their lengths in the flattened batch; flex and mask read it off the positions.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rewarm.model.split_attention import in_rows, refuse_what_is_unknown, split_attention

__all__ = [
    "NAME_OF",
    "PACKAGES",
    "VARLEN_NAMES",
    "WHOLE_NAME",
    "Road",
    "document_roads",
    "installed_packages",
    "register_roads",
]

Road = Literal[
    "flash_attention_3", "flash_attention_2", "varlen", "flex_attention", "split", "mask"
]

NAME_OF: dict[Road, str] = {
    "flash_attention_3": "flash_attention_3",
    "flash_attention_2": "flash_attention_2",
    "varlen": "rewarm_varlen",
    "flex_attention": "flex_attention",
    "split": "rewarm_split",
}
"""Under which name transformers knows a road; the mask is whatever a model was loaded with."""

WHOLE_NAME = "rewarm_whole"
"""Under which name it knows causal attention over whole sequences, which needs no mask."""

VARLEN_NAMES = frozenset(
    NAME_OF[road] for road in ("flash_attention_3", "flash_attention_2", "varlen", "split")
)
"""Those that are told where documents begin."""

PACKAGES: dict[str, Road] = {
    "flash_attn_interface": "flash_attention_3",
    "flash_attn": "flash_attention_2",
    "triton": "flex_attention",
}
"""Importable packages without which a road is not tried. Nothing is downloaded."""

_VARLEN_ASKS_FOR_GQA = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 12)


def installed_packages() -> frozenset[str]:
    """Return which of PACKAGES could be imported; none is."""
    return frozenset(name for name in PACKAGES if importlib.util.find_spec(name) is not None)


def document_roads(
    *, device_type: str, half: bool, dropout: bool, installed: Collection[str]
) -> tuple[Road, ...]:
    """Return the roads worth trying, the one that should be fastest first; the mask comes last.

    `half`: blocks compute in half precision, which flash kernels need. `dropout`: the model drops
    attention weights in training, which torch's varlen and flex do not.
    """
    if device_type == "cpu":
        return ("split", "mask")
    if device_type != "cuda":
        return ("mask",)
    roads: list[Road] = []
    if half:
        roads += [road for name, road in PACKAGES.items() if name in installed and "flash" in name]
        roads += [] if dropout else ["varlen"]
    if "triton" in installed and not dropout:
        roads.append("flex_attention")
    return (*roads, "mask")


def register_roads() -> None:
    """Make our own roads known to transformers; it makes no mask for them."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME_OF["split"], split_attention)
    AttentionInterface.register(NAME_OF["varlen"], varlen_attention)
    AttentionInterface.register(WHOLE_NAME, whole_attention)


def varlen_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Return what `split_attention` does, by torch's own kernel for documents; on a GPU.

    Raises NotImplementedError for dropout and soft-capping, which it does not have.
    """
    from torch.nn.attention.varlen import varlen_attn

    refuse_what_is_unknown({**more, "dropout": dropout or None})
    num_rows, num_heads, num_tokens, _ = query.shape
    if cu_seq_lens_q is None or max_length_q is None:
        cu_seq_lens_q = torch.arange(num_rows + 1, dtype=torch.int32, device=query.device)
        cu_seq_lens_q, max_length_q = cu_seq_lens_q * num_tokens, num_tokens
    # Autocast leaves what went through a rotary embedding in float32, and values in half precision.
    q, k, v = (x.transpose(1, 2).flatten(0, 1).to(value.dtype) for x in (query, key, value))
    # torch 2.11 does not ask whether heads share keys, and lets them.
    shared: dict[str, Any] = (
        {"enable_gqa": num_heads != key.shape[1]} if _VARLEN_ASKS_FOR_GQA else {}
    )
    found = varlen_attn(
        q,
        k,
        v,
        cu_seq_lens_q,
        cu_seq_lens_q,
        max_length_q,
        max_length_q,
        scale=scaling,
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
        **shared,
    )
    assert isinstance(found, Tensor), "a second result comes only where it is asked for"
    return in_rows(found, query), None


def whole_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Return causal attention over whole rows, [batch, time, heads, width], as transformers asks.

    Raises NotImplementedError for soft-capping, and for a window that is shorter than the row.
    """
    refuse_what_is_unknown(more)
    if sliding_window is not None and sliding_window < query.shape[2]:
        raise NotImplementedError(f"it does not have a window of {sliding_window}")
    q, k, v = (x.to(value.dtype) for x in (query, key, value))
    found = F.scaled_dot_product_attention(
        q,
        k,
        v,
        dropout_p=dropout,
        is_causal=True,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return found.transpose(1, 2).contiguous(), None
