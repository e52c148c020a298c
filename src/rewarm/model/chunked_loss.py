"""The next-token loss from hidden states and head, without the logits of all tokens at once.

Hidden states go through the output head some tokens at a time; each chunk's gradient is taken while
its logits are there, in the forward pass, and only scaled in the backward pass. Memory grows with
tokens × hidden size and with vocabulary × hidden size, not with tokens × vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from rewarm.model.loss import IGNORED

__all__ = [
    "BLOCK_BYTES",
    "CHUNK_BYTES",
    "GPU_CHUNK_BYTES",
    "LogitShape",
    "chunked_nats",
    "chunked_token_nats",
    "chunks_of",
    "logit_shape_of",
    "tokens_of_loss",
    "tokens_per_chunk",
    "wide_type",
]

CHUNK_BYTES = 2**27
"""What a float32 array over the logits of a chunk may take on a CPU, where two exist at a time. The
loss has one array, of the products' type, which takes as much as both."""
GPU_CHUNK_BYTES = 2**30
"""The same on a GPU, which needs more tokens than that for its products to be worth a launch."""

BLOCK_BYTES = 2**20
"""What the float32 logits take whose softmax is taken at a time on a CPU: they stay in a core's
cache, where an array over a chunk would go to memory and back with each operation."""


@dataclass(frozen=True, slots=True)
class LogitShape:
    """What is done to the head's output z: cap · tanh(scale · z / cap); without cap, scale · z."""

    scale: float = 1.0
    cap: float | None = None

    def apply_(self, logits: Tensor) -> Tensor:
        """Change logits in place."""
        if self.cap is None:
            return logits.mul_(self.scale) if self.scale != 1.0 else logits
        return logits.mul_(self.scale / self.cap).tanh_().mul_(self.cap)

    def through_(self, gradient: Tensor, logits: Tensor) -> Tensor:
        """Take a gradient, in place, from these logits back to what they were made of."""
        if self.cap is not None:
            gradient.mul_(1 - (logits / self.cap).square_())
        return gradient.mul_(self.scale) if self.scale != 1.0 else gradient


def logit_shape_of(config: Any) -> LogitShape:
    """Return what a configuration of transformers says is done to logits."""
    scale = float(getattr(config, "logit_scale", None) or 1.0)  # Cohere
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)  # Granite
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma
    return LogitShape(scale, None if cap is None else float(cap))


def chunked_nats(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    *,
    shape: LogitShape = LogitShape(),
    chunk_bytes: int = CHUNK_BYTES,
    compiled: bool = False,
) -> Tensor:
    """Return Σ −log p(label) in nats, a scalar with gradient.

    `hidden` is [tokens, hidden size], `weight` [vocabulary, hidden size], `bias` [vocabulary];
    `labels` are int64 [tokens], IGNORED where one does not count. With `compiled`, what lies
    between the products is one kernel of torch.compile.
    """
    num_tokens = tokens_of_loss(chunk_bytes, hidden, weight)
    wants = (
        torch.is_grad_enabled() and hidden.requires_grad,
        torch.is_grad_enabled() and weight.requires_grad,
        torch.is_grad_enabled() and bias is not None and bias.requires_grad,
    )
    total: Tensor = _ChunkedNats.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, labels, shape, num_tokens, wants, compiled
    )
    return total


def chunked_token_nats(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    *,
    shape: LogitShape = LogitShape(),
    chunk_bytes: int = CHUNK_BYTES,
) -> Tensor:
    """Return −log p(label) in nats of each token, [tokens] in float32 at least; 0 where ignored.

    Shapes are those of `chunked_nats`. There is no gradient: this is for evaluations.
    """
    wide = wide_type(hidden)
    nats = torch.zeros(labels.shape, dtype=wide, device=hidden.device)
    with torch.no_grad():
        for rows in chunks_of(len(hidden), tokens_per_chunk(chunk_bytes, weight.shape[0])):
            raw, of_rows, wanted = F.linear(hidden[rows], weight, bias), nats[rows], labels[rows]
            for block in _blocks_of(raw):
                logits = shape.apply_(raw[block].to(wide))
                of_rows[block] = F.cross_entropy(
                    logits, wanted[block], reduction="none", ignore_index=IGNORED
                )
    return nats


def tokens_per_chunk(chunk_bytes: int, vocab_size: int) -> int:
    """Return how many tokens' float32 logits take so many bytes; at least 1.

    As many as fit in what a CPU is given; in more, a power of two: a GPU's products come in tiles,
    and a compiled chunk should have one shape.
    """
    num_tokens = max(1, chunk_bytes // (4 * vocab_size))
    return num_tokens if chunk_bytes <= CHUNK_BYTES else 1 << (num_tokens.bit_length() - 1)


def tokens_of_loss(chunk_bytes: int, hidden: Tensor, weight: Tensor) -> int:
    """Return how many tokens `chunked_nats` takes through the head at a time; at least 1."""
    if hidden.device.type != "cpu":
        return tokens_per_chunk(chunk_bytes, weight.shape[0])
    return max(1, 2 * chunk_bytes // (_type_of_products(hidden, weight).itemsize * len(weight)))


def chunks_of(num_tokens: int, size: int) -> Iterator[slice]:
    """Yield the rows of each chunk of `size` tokens."""
    for start in range(0, num_tokens, size):
        yield slice(start, start + size)


def wide_type(hidden: Tensor) -> torch.dtype:
    """Return the type in which a softmax is taken: float32 at least."""
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


class _ChunkedNats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        shape: LogitShape,
        num_tokens: int,
        wants: tuple[bool, bool, bool],
        compiled: bool,
    ) -> Tensor:
        wide, narrow = wide_type(hidden), _type_of_products(hidden, weight)
        total = torch.zeros((), dtype=wide, device=hidden.device)
        of_hidden = torch.empty_like(hidden) if wants[0] else None
        of_weight: Tensor | None = None
        of_bias = torch.zeros_like(weight[:, 0], dtype=wide) if wants[2] else None
        # Cast once, and not again for each chunk.
        head, head_bias = weight.to(narrow), None if bias is None else bias.to(narrow)
        on_cpu = hidden.device.type == "cpu"
        of_chunk = _compiled_chunk() if compiled else _chunk_in_blocks if on_cpu else _chunk
        kept: list[Tensor] = []
        for rows in chunks_of(len(hidden), num_tokens):
            here, wanted = hidden[rows].to(narrow), labels[rows]
            raw = _products(here, head, head_bias, kept if on_cpu else None)
            nats, gradient = of_chunk(raw, wanted, shape, any(wants))
            total += nats
            if gradient is None:
                continue
            if of_hidden is not None:
                of_hidden[rows] = gradient @ head
            if wants[1]:
                of_weight = _plus_product(of_weight, gradient.t(), here, wide)
            if of_bias is not None:
                of_bias += gradient.sum(0, dtype=wide)
            # Else it is there beside the next chunk's: a quarter of a GiB, of compiled ones.
            del raw, gradient
        ctx.of_weight = None if of_weight is None else of_weight.to(weight.dtype)
        ctx.of_bias = None if of_bias is None or bias is None else of_bias.to(bias.dtype)
        ctx.of_hidden = of_hidden
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (factor,) = gradients
        found: Any = ctx
        parts = (found.of_hidden, found.of_weight, found.of_bias)
        found.of_hidden = found.of_weight = found.of_bias = None
        scaled = (None if part is None else part.mul_(factor) for part in parts)
        return (*scaled, None, None, None, None, None)


def _type_of_products(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """Return the type in which autocast, where it is on, or the tensors themselves multiply."""
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind) and weight.dtype == torch.float32:
        return torch.get_autocast_dtype(kind)
    return torch.promote_types(hidden.dtype, weight.dtype)


def _products(
    hidden: Tensor, head: Tensor, bias: Tensor | None, kept: list[Tensor] | None
) -> Tensor:
    """Return the products of tokens with the head, written over those of the chunk before, which
    are in `kept`: pages that a CPU's process has not had yet cost more than what is written there.
    """
    if kept is None:
        return F.linear(hidden, head, bias)
    if not kept:
        kept.append(hidden.new_empty(len(hidden), len(head)))
    out = kept[0][: len(hidden)]
    if bias is None:
        return torch.mm(hidden, head.t(), out=out)
    return torch.addmm(bias, hidden, head.t(), out=out)


def _blocks_of(raw: Tensor) -> Iterator[slice]:
    """Yield the rows of products whose float32 logits fit in a cache; of a GPU's, all at once."""
    size = max(1, BLOCK_BYTES // (4 * raw.shape[-1])) if raw.device.type == "cpu" else len(raw)
    return chunks_of(len(raw), size)


def _chunk_in_blocks(
    raw: Tensor, labels: Tensor, shape: LogitShape, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """Return what `_chunk` does, some tokens at a time; the gradient is written over `raw`."""
    total = torch.zeros((), dtype=wide_type(raw))
    for rows in _blocks_of(raw):
        logits = shape.apply_(raw[rows].to(total.dtype))
        counts = labels[rows] != IGNORED
        places = labels[rows].clamp(min=0)[:, None]
        log_p = logits.log_softmax(-1)
        nats = -log_p.gather(-1, places).squeeze(-1)
        total += torch.where(counts, nats, torch.zeros_like(nats)).sum()
        if not wanted:
            continue
        gradient = log_p.exp_()
        gradient.scatter_add_(-1, places, torch.full_like(places, -1, dtype=total.dtype))
        if not counts.all():
            gradient.mul_(counts[:, None])
        raw[rows] = shape.through_(gradient, logits)
    return total, raw if wanted else None


def _chunk(
    raw: Tensor, labels: Tensor, shape: LogitShape, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the summed loss of a chunk's products with the head and, where `wanted`, the gradient
    at them, in their type, as the plain loss's backward pass has it.
    """
    wide = wide_type(raw)
    logits = shape.apply_(raw.to(wide))
    counts = labels != IGNORED
    places = labels.clamp(min=0)[:, None]
    log_sum = logits.logsumexp(dim=-1, keepdim=True)
    nats = (log_sum - logits.gather(-1, places)).squeeze(-1)
    total = torch.where(counts, nats, torch.zeros_like(nats)).sum()
    if not wanted:
        return total, None
    gradient = (logits - log_sum).exp_()
    gradient.scatter_add_(-1, places, torch.full_like(places, -1, dtype=wide))
    gradient.mul_(counts[:, None])
    return total, shape.through_(gradient, logits).to(raw.dtype)


def _fused_chunk(
    raw: Tensor, labels: Tensor, shape: LogitShape, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """Return what `_chunk` does, written for a compiler: nothing is scattered or done in place."""
    wide = wide_type(raw)
    logits, slope = raw.to(wide) * shape.scale, shape.scale
    counts = labels != IGNORED
    places = labels.clamp(min=0)[:, None]
    through: Tensor | float = slope
    if shape.cap is not None:
        squashed = torch.tanh(logits / shape.cap)
        logits, through = squashed * shape.cap, (1 - squashed * squashed) * slope
    log_sum = logits.logsumexp(dim=-1, keepdim=True)
    nats = (log_sum - logits.gather(-1, places)).squeeze(-1)
    total = torch.where(counts, nats, 0.0).sum()
    if not wanted:
        return total, None
    is_label = torch.arange(raw.shape[-1], device=raw.device)[None] == places
    gradient = torch.exp(logits - log_sum) - is_label.to(wide)
    return total, torch.where(counts[:, None], gradient * through, 0.0).to(raw.dtype)


@functools.cache
def _compiled_chunk() -> Callable[..., tuple[Tensor, Tensor | None]]:
    return torch.compile(_fused_chunk, fullgraph=True)


def _plus_product(total: Tensor | None, left: Tensor, right: Tensor, wide: torch.dtype) -> Tensor:
    """Return a total and a matrix product, the total changed in place; None is a total of 0.

    On a GPU the product is not rounded in between.
    """
    exact = left.device.type == "cuda" and wide == torch.float32 and right.dtype != wide
    if exact:
        if total is None:
            total = left.new_zeros(len(left), right.shape[1], dtype=wide)
        torch.addmm(total, left, right, out_dtype=wide, out=total)
    elif total is None:
        total = (left @ right).to(wide)
    elif right.dtype == wide:
        total.addmm_(left, right)
    else:
        total += left @ right
    return total
