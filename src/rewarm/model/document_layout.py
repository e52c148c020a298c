"""Tokens of documents, padded to few lengths, those of one length together.

Every length is a shape of its own for attention, and in half precision torch compiles kernels for
each shape that it meets on a CPU and keeps them for ever (docs/speed.md).
"""

from __future__ import annotations

import collections
import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Group", "Layout", "grouped", "layout_of", "padded", "unpadded"]

# Up to so many tokens a multiple of the first step, above it of the second.
_LONG = 512
_STEP, _LONG_STEP = 32, 64


class Group(NamedTuple):
    """Documents that share a call, each padded to one length."""

    num_documents: int
    length: int


class Layout(NamedTuple):
    """Where the tokens of documents lie, once those of one padded length are neighbours."""

    groups: tuple[Group, ...]
    places: Tensor
    """Each token's row, int64 [tokens]."""

    @property
    def num_rows(self) -> int:
        """Rows of the layout, those of the padding too."""
        return sum(group.num_documents * group.length for group in self.groups)


@functools.lru_cache(maxsize=4)  # layers of a model have one batch
def layout_of(lengths: tuple[int, ...]) -> Layout:
    """Return the layout of documents of these lengths, given in their order."""
    sizes = [_padded_length(length) for length in lengths]
    own, room = torch.tensor(lengths), torch.tensor(sizes)
    order = room.argsort(stable=True)
    firsts = torch.empty_like(room)
    firsts[order] = room[order].cumsum(0) - room[order]
    shifts = firsts - (own.cumsum(0) - own)
    places = torch.arange(sum(lengths)) + shifts.repeat_interleave(own)
    counts = collections.Counter(sizes)
    return Layout(tuple(Group(counts[size], size) for size in sorted(counts)), places)


def _padded_length(length: int) -> int:
    step = _STEP if length <= _LONG else _LONG_STEP
    return -(-length // step) * step


def grouped(tokens: Tensor, layout: Layout) -> tuple[Tensor, ...]:
    """Return tokens, [tokens, …], as the rows of each group, [documents · length, …]."""
    sizes = [group.num_documents * group.length for group in layout.groups]
    return torch.split(padded(tokens, layout), sizes)


def padded(tokens: Tensor, layout: Layout) -> Tensor:
    """Return tokens, [tokens, …], in a layout whose padding is 0, [rows, …]."""
    rows: Tensor = _Padded.apply(tokens, layout)  # type: ignore[no-untyped-call]
    return rows


def unpadded(rows: Tensor, layout: Layout) -> Tensor:
    """Return the tokens of a layout: the way back."""
    tokens: Tensor = _Unpadded.apply(rows, layout)  # type: ignore[no-untyped-call]
    return tokens


class _Padded(torch.autograd.Function):
    @staticmethod
    def forward(tokens: Tensor, layout: Layout) -> Tensor:
        rows = tokens.new_zeros(layout.num_rows, *tokens.shape[1:])
        return rows.index_copy_(0, layout.places, tokens)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Layout], output: Tensor) -> None:
        ctx.layout = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return unpadded(gradient, ctx.layout), None


class _Unpadded(torch.autograd.Function):
    # By `index_select` alone its gradient would be added up, token by token.

    @staticmethod
    def forward(rows: Tensor, layout: Layout) -> Tensor:
        return rows.index_select(0, layout.places)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Layout], output: Tensor) -> None:
        ctx.layout = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return padded(gradient, ctx.layout), None
