"""Attention within documents on a CPU: one fused causal attention for all of about a length.

Documents are padded to few lengths, those of one length share a call, and what they are padded with
comes after all of their tokens, so that none of them sees it. Eagerly it is made of operators that
autograd knows; a compiler is given one operator of ours, as it cannot know where documents begin.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rewarm.model.causal_backward import causal_backward, is_quicker
from rewarm.model.document_layout import Group, grouped, grouped_gradient, layout_of, unpadded

__all__ = ["in_rows", "refuse_what_is_unknown", "split_attention"]

# Below it torch's own backward pass takes longer in half precision than in float32.
_SHORT = 352


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
    refuse_what_is_unknown(more)
    num_rows, _, num_tokens, _ = query.shape
    # In one type, as autocast has it for the attention below.
    q, k, v = (x.transpose(1, 2).flatten(0, 1).to(value.dtype) for x in (query, key, value))
    if torch.compiler.is_compiling():
        if dropout:
            raise NotImplementedError(
                "attention by document_attention = split has no dropout when compiled; mask has"
            )
        if cu_seq_lens_q is None:
            cu_seq_lens_q = torch.arange(num_rows + 1, dtype=torch.int32) * num_tokens
        found, _ = split_op(q, k, v, cu_seq_lens_q, sliding_window, scaling, softcap)
    else:
        lengths = [num_tokens] * num_rows
        if cu_seq_lens_q is not None:
            lengths = cu_seq_lens_q.diff().tolist()
        found = _by_length(
            q, k, v, lengths, sliding_window, scale=scaling, softcap=softcap, dropout=dropout
        )
    return in_rows(found, query), None


def _by_length(
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
    layout = layout_of(tuple(lengths))
    parts = [grouped(x, layout) for x in (query, key, value)]
    attend = functools.partial(_attend, window, scale=scale, softcap=softcap, dropout=dropout)
    # The three are of one type, in which it answers, whatever autocast would have of each step.
    with torch.autocast("cpu", enabled=False):
        found = [attend(*of_group) for of_group in zip(layout.groups, *parts, strict=True)]
        return unpadded(_together(found), layout)


@torch.library.custom_op("rewarm::split_attention", mutates_args=())
def split_op(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    window: int | None,
    scale: float | None,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """Return `_by_length` as one operator, into which a compiler does not look.

    Where documents begin is known when it runs, not when a graph is made. The second result is
    what its backward pass wants besides: the log of each query's sum, [tokens, heads]; of 0 where
    there is no fused attention, and all is computed once more.
    """
    lengths = bounds.diff().tolist()
    if not _is_fused(query, value, softcap):
        found = _by_length(query, key, value, lengths, window, scale=scale, softcap=softcap)
        return found, found.new_zeros(found.shape[:2], dtype=_type_of_sums(query))
    layout = layout_of(tuple(lengths))
    parts = [grouped(x, layout) for x in (query, key, value)]
    results = [
        _fused(group, *of_group, window=window, scale=scale)
        for group, of_group in zip(layout.groups, zip(*parts, strict=True), strict=True)
    ]
    found, sums = (_together(of_groups) for of_groups in zip(*results, strict=True))
    return unpadded(found, layout), unpadded(sums, layout)


@split_op.register_fake
def _like_split(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    window: int | None,
    scale: float | None,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    found = query.new_empty(*query.shape[:2], value.shape[2])
    return found, query.new_empty(query.shape[:2], dtype=_type_of_sums(query))


@torch.library.custom_op("rewarm::split_attention_backward", mutates_args=())
def _split_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    found: Tensor,
    sums: Tensor,
    window: int | None,
    scale: float | None,
    softcap: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    lengths = bounds.diff().tolist()
    if not _is_fused(query, value, softcap):
        attend = functools.partial(
            _by_length, lengths=lengths, window=window, scale=scale, softcap=softcap
        )
        # Within an operator plain autograd records nothing; this does.
        pull: Any = torch.func.vjp(attend, query, key, value)[1]
        of_query, of_key, of_value = pull(gradient)
        return of_query, of_key, of_value
    layout = layout_of(tuple(lengths))
    parts = [grouped_gradient(gradient, layout)]
    parts += [grouped(x, layout) for x in (query, key, value, found, sums)]
    results = [
        _fused_backward(group, *of_group, window=window, scale=scale)
        for group, of_group in zip(layout.groups, zip(*parts, strict=True), strict=True)
    ]
    of_query, of_key, of_value = (
        unpadded(_together(of_groups), layout) for of_groups in zip(*results, strict=True)
    )
    return of_query, of_key, of_value


@_split_backward.register_fake
def _like_split_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *more: Any
) -> tuple[Tensor, ...]:
    return tuple(
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs[:4], *output)
    ctx.settings = inputs[4:]


def _backward(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    found = _split_backward(gradient, *ctx.saved_tensors, *ctx.settings)
    return (*found, None, None, None, None)


split_op.register_autograd(_backward, setup_context=_keep)


def _together(groups: Sequence[Tensor]) -> Tensor:
    """Return the rows of all groups, contiguous; of one group nothing is copied for it."""
    return groups[0].contiguous() if len(groups) == 1 else torch.cat(tuple(groups))


def _is_fused(query: Tensor, value: Tensor, softcap: float | None) -> bool:
    """Return whether torch's fused attention for CPUs computes it."""
    return softcap is None and query.shape[-1] == value.shape[-1]


def _type_of_sums(query: Tensor) -> torch.dtype:
    return torch.promote_types(query.dtype, torch.float32)


def _fused(
    group: Group,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int | None,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    """Return one group's attention and the logs of its sums, [documents · length, heads, …]."""
    num_heads = query.shape[1]
    dtype = query.dtype if _is_by_products(group, query, window) else _type_for(group, query)
    q, k, v = (_in_heads(x, group, num_heads).to(dtype) for x in (query, key, value))
    found, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, **_masked(group, window, q.dtype), scale=scale
    )
    return (
        found.transpose(1, 2).flatten(0, 1).to(query.dtype),
        sums.transpose(1, 2).flatten(0, 1),
    )


def _fused_backward(
    group: Group,
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    found: Tensor,
    sums: Tensor,
    *,
    window: int | None,
    scale: float | None,
) -> list[Tensor]:
    """Return the gradients of one group's queries, keys and values, each in its shape."""
    num_heads = query.shape[1]
    by_products = _is_by_products(group, query, window)
    dtype = query.dtype if by_products else _type_for(group, query)
    g, q, k, v, o = (
        _in_heads(x, group, num_heads).to(dtype) for x in (gradient, query, key, value, found)
    )
    of_sums = sums.view(*group, num_heads).transpose(1, 2)
    if by_products:
        own_scale = q.shape[-1] ** -0.5 if scale is None else scale
        results = causal_backward(g, q, k, v, o, of_sums, scale=own_scale)
    else:
        results = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            g, q, k, v, o, of_sums, dropout_p=0.0, **_masked(group, window, dtype), scale=scale
        )
    return [
        # Heads that share keys add up what they ask of them.
        of.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1, x.shape[2]).sum(2).to(x.dtype)
        if x.shape[1] != num_heads
        else of.transpose(1, 2).reshape(x.shape).to(x.dtype)
        for of, x in zip(results, (query, key, value), strict=True)
    ]


def _is_by_products(group: Group, query: Tensor, window: int | None) -> bool:
    """Return whether the backward pass of a group is by products of whole blocks."""
    reach = group.length if window is None else window
    return reach >= group.length and is_quicker(group.length, query.dtype)


def _in_heads(rows: Tensor, group: Group, num_heads: int) -> Tensor:
    """Return [documents · length, heads, width] as [documents, heads, length, width]."""
    found = rows.view(*group, *rows.shape[1:]).transpose(1, 2)
    if rows.shape[1] != num_heads:
        found = found.repeat_interleave(num_heads // rows.shape[1], dim=1)
    # Fused attention takes a token's numbers for neighbours, and asks nobody whether they are.
    return found if found.stride(-1) == 1 else found.contiguous()


def _masked(group: Group, window: int | None, dtype: torch.dtype) -> dict[str, Any]:
    """Return how fused attention is told what a query sees."""
    mask = _mask_for(group, window, dtype)
    return {"is_causal": mask is None, "attn_mask": mask}


def _mask_for(group: Group, window: int | None, dtype: torch.dtype) -> Tensor | None:
    """Return the mask of a group whose documents can be longer than the window."""
    if window is None or window >= group.length:
        return None
    return _mask(group.length, window, dtype)


def _type_for(group: Group, tensor: Tensor) -> torch.dtype:
    """Return in which type a group is computed: short documents not in half precision."""
    return _type_of_sums(tensor) if group.length < _SHORT else tensor.dtype


def _attend(
    window: int | None,
    group: Group,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float | None,
    softcap: float | None,
    dropout: float,
) -> Tensor:
    """Return one group's attention; all are [documents · length, heads, width].

    What a document is padded with comes after all of its tokens: none of them sees it.
    """
    q, k, v = (_in_heads(x, group, x.shape[1]) for x in (query, key, value))
    shared = q.shape[1] != k.shape[1]
    if softcap is None:
        q, k, v = (x.to(_type_for(group, x)) for x in (q, k, v))
        mask = _mask_for(group, window, q.dtype)
        rows = F.scaled_dot_product_attention(
            q, k, v, mask, dropout, is_causal=mask is None, scale=scale, enable_gqa=shared
        )
        return rows.transpose(1, 2).flatten(0, 1).to(query.dtype)
    if shared:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scale is None else scale)
    scores = softcap * torch.tanh(scores / softcap)
    reach = group.length if window is None else window
    scores = scores + _mask(group.length, reach, q.dtype)
    weights = scores.softmax(dim=-1, dtype=torch.float32)
    weights = F.dropout(weights.to(q.dtype), dropout)
    return (weights @ v).transpose(1, 2).flatten(0, 1)


def _mask(length: int, window: int, dtype: torch.dtype) -> Tensor:
    """Return what is added to scores, [length, length]: 0 where a query sees a key, else -inf.

    It sees itself and the `window` - 1 before it.
    """
    size = 1 << (length - 1).bit_length()
    # A window that no query comes to the end of is the same mask at every length.
    reach = min(window, size) if window < length else size
    return _mask_of_size(size, reach, dtype)[:length, :length]


# As it is added, not as booleans: of these every call would make its own and keep it until the
# backward pass, four bytes for each pair of tokens and layer. All layers keep this one.
@functools.lru_cache(maxsize=32)
def _mask_of_size(size: int, window: int, dtype: torch.dtype) -> Tensor:
    # What was made in inference mode no backward pass may keep.
    with torch.inference_mode(False):
        sees = torch.ones(size, size, dtype=torch.bool, device="cpu").tril_().triu_(1 - window)
        mask = torch.zeros(size, size, dtype=dtype, device="cpu")
        return mask.masked_fill_(sees.logical_not_(), float("-inf"))


def in_rows(flat: Tensor, query: Tensor) -> Tensor:
    """Return [tokens, heads, width] as [batch, time, heads, width], after a query's shape."""
    return flat.reshape(query.shape[0], query.shape[2], *flat.shape[1:])


def refuse_what_is_unknown(given: dict[str, Any]) -> None:
    """Raise NotImplementedError for what would change the attention and is not known here."""
    for name in ("softcap", "s_aux", "position_bias", "dropout"):
        if given.get(name) is not None:
            raise NotImplementedError(f"it does not have {name}")
