"""The divergence of a model from another's distribution, without all logits at once.

As in `chunked_loss.py`, both models' hidden states go through their heads some tokens at a time,
and each chunk's gradient is taken while its logits are there. With z the student's logits, p the
teacher's distribution and q the student's, both at temperature T:

    term = T² Σ_tokens Σ_v p_v (log p_v − log q_v),    ∂term/∂z_v = T (q_v − p_v)

Four arrays of a chunk's logits exist at a time.

T² keeps the gradient's size as T grows (Hinton et al. 2015). Where only the teacher's k likeliest
tokens are known, all others are one outcome: its probability is what the k leave of 1, and the term
a lower bound of the whole divergence. Its gradient is the same with p shared out among the others
as the student itself does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from rewarm.model.chunked_loss import (
    CHUNK_BYTES,
    LogitShape,
    chunks_of,
    tokens_per_chunk,
    wide_type,
)

__all__ = ["Scored", "StoredTopK", "chunked_divergence"]


class Scored(NamedTuple):
    """What a model says of tokens: hidden states [tokens, hidden size] and what leads from them to
    logits; or, where there is no `weight`, the logits themselves.
    """

    values: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None
    shape: LogitShape = LogitShape()

    @property
    def vocab_size(self) -> int:
        """Entries of the vocabulary."""
        return self.values.shape[-1] if self.weight is None else self.weight.shape[0]

    def of_rows(self, rows: Tensor) -> Scored:
        """Return what is said of some tokens, by their int64 places."""
        return self._replace(values=self.values.index_select(0, rows))

    def raw(self, rows: slice) -> Tensor:
        """Return the head's output for some tokens, before anything is done to it."""
        if self.weight is None:
            return self.values[rows]
        return F.linear(self.values[rows], self.weight, self.bias)

    def logits(self, raw: Tensor) -> Tensor:
        """Return logits in float32 at least; `raw` keeps its values."""
        wide = wide_type(self.values)
        return self.shape.apply_(raw.clone() if raw.dtype == wide else raw.to(wide))


class StoredTopK(NamedTuple):
    """A teacher's likeliest tokens at each place: int64 ids and their log-probabilities at
    temperature 1, both [tokens, k], likeliest first.
    """

    ids: Tensor
    log_probs: Tensor


def chunked_divergence(
    student: Scored,
    teacher: Scored | StoredTopK,
    counts: Tensor,
    *,
    temperature: float = 1.0,
    chunk_bytes: int = CHUNK_BYTES,
) -> Tensor:
    """Return T² Σ KL(teacher ‖ student) in nats over the tokens that count, with its gradient.

    `counts` is boolean [tokens]. The student alone gets a gradient. A stored teacher's temperature
    is 1.
    """
    assert temperature == 1.0 or isinstance(teacher, Scored), "what is stored is at temperature 1"
    tensors = (student.values, student.weight, student.bias)
    wants = tuple(
        torch.is_grad_enabled() and tensor is not None and tensor.requires_grad
        for tensor in tensors
    )
    total: Tensor = _ChunkedDivergence.apply(  # type: ignore[no-untyped-call]
        *tensors,
        student.shape,
        teacher,
        counts,
        temperature,
        tokens_per_chunk(chunk_bytes, student.vocab_size),
        wants,
    )
    return total


class _ChunkedDivergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        shape: LogitShape,
        teacher: Scored | StoredTopK,
        counts: Tensor,
        temperature: float,
        num_tokens: int,
        wants: tuple[bool, bool, bool],
    ) -> Tensor:
        student = Scored(values, weight, bias, shape)
        wide = wide_type(values)
        total = torch.zeros((), dtype=wide, device=values.device)
        of_values = torch.empty_like(values) if wants[0] else None
        of_weight = _zeros(weight, wide) if wants[1] else None
        of_bias = _zeros(bias, wide) if wants[2] else None
        for rows in chunks_of(len(values), num_tokens):
            raw = student.raw(rows)
            narrow = raw.dtype
            logits = student.logits(raw)
            del raw  # here and below: an array of a chunk's logits less at a time
            log_q = (logits / temperature).log_softmax(-1)
            nats, p = (
                _whole(log_q, teacher, rows, temperature)
                if isinstance(teacher, Scored)
                else _likeliest(log_q, teacher, rows)
            )
            counted = counts[rows]
            total += temperature**2 * nats.masked_fill(~counted, 0).sum()
            if not any(wants):
                continue
            gradient = log_q.exp_().sub_(p).mul_(temperature)
            gradient = shape.through_(gradient.masked_fill_(~counted[:, None], 0), logits)
            gradient = gradient.to(narrow)
            if of_values is not None:
                of_values[rows] = gradient if weight is None else gradient @ weight.to(narrow)
            if of_weight is not None:
                of_weight += gradient.t() @ values[rows].to(narrow)
            if of_bias is not None:
                of_bias += gradient.sum(0, dtype=wide)
            del logits, log_q, p, gradient
        ctx.of_values = of_values
        ctx.of_weight = None if of_weight is None or weight is None else of_weight.to(weight.dtype)
        ctx.of_bias = None if of_bias is None or bias is None else of_bias.to(bias.dtype)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (factor,) = gradients
        found: Any = ctx
        parts = (found.of_values, found.of_weight, found.of_bias)
        found.of_values = found.of_weight = found.of_bias = None
        scaled = (None if part is None else part.mul_(factor) for part in parts)
        return (*scaled, None, None, None, None, None, None)


def _zeros(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else torch.zeros_like(tensor, dtype=dtype)


def _whole(
    log_q: Tensor, teacher: Scored, rows: slice, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return KL(p ‖ q) of each token of a chunk, and p, from the teacher's own logits."""
    logits = teacher.logits(teacher.raw(rows)).to(log_q.dtype)
    log_p = logits.div_(temperature).log_softmax(-1)
    del logits
    p = log_p.exp()
    return log_p.sub_(log_q).mul_(p).sum(-1), p


def _likeliest(log_q: Tensor, teacher: StoredTopK, rows: slice) -> tuple[Tensor, Tensor]:
    """Return the same from the teacher's likeliest tokens, all others being one outcome.

    p is completed: what the k leave of 1 goes to the others in proportion to q.
    """
    ids, log_top = teacher.ids[rows], teacher.log_probs[rows].to(log_q.dtype)
    top = log_top.exp()
    left = (1 - top.sum(-1)).clamp(min=0)  # float16 rounds: it may be a thousandth below
    log_others = log_q.scatter(-1, ids, -torch.inf)
    log_left = log_others.logsumexp(-1)
    of_top = torch.where(top > 0, top * (log_top - log_q.gather(-1, ids)), 0).sum(-1)
    known = (left > 0) & log_left.isfinite()
    nats = of_top + torch.where(known, torch.xlogy(left, left) - left * log_left, 0)
    share = torch.where(known, left.log() - log_left, -torch.inf)
    return nats, log_others.add_(share[:, None]).exp_().scatter_(-1, ids, top)
