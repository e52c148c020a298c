"""Attention within documents: the roads there are, which a device may have, and two of ours.

    flash_attention_2, flash_attention_3   kernels of the packages, by transformers; half precision
    varlen                                 torch's own kernel of that kind; half precision
    flex_attention                         compiled from a block mask, by transformers
    split                                  on a CPU: one fused causal attention per document
    mask                                   a mask over all pairs of a sequence's tokens; everywhere

All but the last skip the pairs of tokens of different documents, which the mask computes for
nothing. Flash, varlen and split are told where documents begin in `cu_seq_lens_q`, the running sum
of their lengths in the flattened batch; flex and mask read it off the positions.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "NAME_OF",
    "PACKAGES",
    "VARLEN_NAMES",
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
# Short neighbours share a call up to so many tokens: one of its own costs more than it skips.
_TOGETHER = 64


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


def split_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Return causal attention within documents, [batch, time, heads, width], as transformers asks.

    `query` is [batch, heads, time, width]. Without `cu_seq_lens_q` a row is one document.
    """
    _refuse_what_is_unknown(more)
    num_rows, _, num_tokens, _ = query.shape
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))
    if torch.compiler.is_compiling():
        if dropout:
            raise NotImplementedError("compiled, it does not have dropout")
        if cu_seq_lens_q is None:
            cu_seq_lens_q = torch.arange(num_rows + 1, dtype=torch.int32) * num_tokens
        # In one type, as autocast has it for the attention below.
        q, k = q.to(v.dtype), k.to(v.dtype)
        found = split_op(q, k, v, cu_seq_lens_q, sliding_window, scaling, softcap)
    else:
        lengths = [num_tokens] * num_rows
        if cu_seq_lens_q is not None:
            lengths = cu_seq_lens_q.diff().tolist()
        found = _in_spans(
            q, k, v, lengths, sliding_window, scale=scaling, softcap=softcap, dropout=dropout
        )
    return _in_rows(found, query), None


def _in_spans(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Sequence[int],
    window: int | None,
    *,
    scale: float | None,
    softcap: float | None,
    dropout: float = 0.0,
) -> Tensor:
    """Return the attention of documents of these lengths; all are [tokens, heads, width]."""
    spans = _spans(tuple(lengths), window)
    sizes = [span.num_tokens for span in spans]
    parts = [torch.split(x, sizes) for x in (query, key, value)]
    attend = functools.partial(_attend, scale=scale, softcap=softcap, dropout=dropout)
    return torch.cat([attend(q, k, v, s.mask) for q, k, v, s in zip(*parts, spans, strict=True)])


@torch.library.custom_op("rewarm::split_attention", mutates_args=())
def split_op(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    window: int | None,
    scale: float | None,
    softcap: float | None,
) -> Tensor:
    """Return `_in_spans` as one operator, into which a compiler does not look.

    Where documents begin is known when it runs, not when a graph is made. Its backward pass
    computes it once more.
    """
    lengths = bounds.diff().tolist()
    return _in_spans(query, key, value, lengths, window, scale=scale, softcap=softcap)


@split_op.register_fake
def _like_split(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    window: int | None,
    scale: float | None,
    softcap: float | None,
) -> Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


@torch.library.custom_op("rewarm::split_attention_backward", mutates_args=())
def _split_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    window: int | None,
    scale: float | None,
    softcap: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    lengths = bounds.diff().tolist()
    attend = functools.partial(
        _in_spans, lengths=lengths, window=window, scale=scale, softcap=softcap
    )
    # Within an operator plain autograd records nothing; this does.
    pull: Any = torch.func.vjp(attend, query, key, value)[1]
    of_query, of_key, of_value = pull(gradient)
    return of_query, of_key, of_value


@_split_backward.register_fake
def _like_split_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    window: int | None,
    scale: float | None,
    softcap: float | None,
) -> tuple[Tensor, ...]:
    return tuple(
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.settings = inputs[4:]


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    found = _split_backward(gradient, *ctx.saved_tensors, *ctx.settings)
    return (*found, None, None, None, None)


split_op.register_autograd(_backward, setup_context=_keep)


class _Span(NamedTuple):
    """Neighbouring documents that share a call; without a mask it is one, and causal."""

    num_tokens: int
    mask: Tensor | None


@functools.lru_cache(maxsize=4)  # layers of a model that are masked differently, in one batch
def _spans(lengths: tuple[int, ...], window: int | None) -> tuple[_Span, ...]:
    groups: list[list[int]] = []
    for length in lengths:
        if groups and sum(groups[-1]) + length <= _TOGETHER:
            groups[-1].append(length)
        else:
            groups.append([length])
    return tuple(_Span(sum(group), _mask(group, window)) for group in groups)


def _mask(lengths: Sequence[int], window: int | None) -> Tensor | None:
    """Return which key each query sees, bool [tokens, tokens]; None where it is all before it."""
    window = None if window is None or window >= max(lengths) else window
    if len(lengths) == 1 and window is None:
        return None
    document = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    place = torch.arange(len(document))
    back = place[:, None] - place[None, :]
    sees = (document[:, None] == document[None, :]) & (back >= 0)
    return sees if window is None else sees & (back < window)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    scale: float | None,
    softcap: float | None,
    dropout: float,
) -> Tensor:
    """Return one span's attention; all are [tokens, heads, width]."""
    q, k, v = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
    shared = q.shape[1] != k.shape[1]
    if softcap is None:
        found = F.scaled_dot_product_attention(
            q, k, v, mask, dropout, is_causal=mask is None, scale=scale, enable_gqa=shared
        )
        return found[0].transpose(0, 1)
    if shared:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scale is None else scale)
    scores = softcap * torch.tanh(scores / softcap)
    sees = scores.new_ones(scores.shape[-2:], dtype=torch.bool).tril() if mask is None else mask
    weights = scores.masked_fill(~sees, float("-inf")).softmax(dim=-1, dtype=torch.float32)
    weights = F.dropout(weights.to(q.dtype), dropout)
    return (weights @ v)[0].transpose(0, 1)


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

    _refuse_what_is_unknown({**more, "dropout": dropout or None})
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
    return _in_rows(found, query), None


def _in_rows(flat: Tensor, query: Tensor) -> Tensor:
    """Return [tokens, heads, width] as [batch, time, heads, width], after a query's shape."""
    return flat.reshape(query.shape[0], query.shape[2], *flat.shape[1:])


def _refuse_what_is_unknown(given: dict[str, Any]) -> None:
    """Raise NotImplementedError for what would change the attention and is not known here."""
    for name in ("softcap", "s_aux", "position_bias", "dropout"):
        if given.get(name) is not None:
            raise NotImplementedError(f"it does not have {name}")
