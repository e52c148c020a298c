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

__all__ = ["Group", "Layout", "grouped", "grouped_gradient", "layout_of", "padded", "unpadded"]

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
    places: Tensor | None
    """Each token's row, int64 [tokens]; None where documents lie so already."""
    sources: Tensor
    """Each row's token, int64 [rows]: padding repeats a document's last one."""
    padding: Tensor
    """The rows that are padding, int64."""


@functools.lru_cache(maxsize=4)  # layers of a model have one batch
def layout_of(lengths: tuple[int, ...]) -> Layout:
    """Return the layout of documents of these lengths, given in their order.

    Empty ones have no place in it: torch ends the process at a group of length 0.
    """
    lengths = tuple(length for length in lengths if length)
    sizes = [_padded_length(length) for length in lengths]
    counts = collections.Counter(sizes)
    groups = tuple(Group(counts[size], size) for size in sorted(counts))
    own, room = torch.tensor(lengths), torch.tensor(sizes)
    order = room.argsort(stable=True)
    own, room, begins = own[order], room[order], (own.cumsum(0) - own)[order]
    # Of each row: its place in its document, which document that is by `which`.
    which = torch.arange(len(lengths)).repeat_interleave(room)
    place = torch.arange(len(which)) - (room.cumsum(0) - room)[which]
    is_padding = place >= own[which]
    sources = begins[which] + place.minimum(own[which] - 1)
    padding = is_padding.nonzero().flatten()
    if len(padding) == 0 and bool((sources.diff() == 1).all()):
        return Layout(groups, None, sources, padding)
    places = torch.empty(sum(lengths), dtype=torch.int64)
    places[sources[~is_padding]] = (~is_padding).nonzero().flatten()
    return Layout(groups, places, sources, padding)


def _padded_length(length: int) -> int:
    step = _STEP if length <= _LONG else _LONG_STEP
    return -(-length // step) * step


def grouped(tokens: Tensor, layout: Layout) -> tuple[Tensor, ...]:
    """Return tokens, [tokens, …], as the rows of each group, [documents · length, …]."""
    sizes = [group.num_documents * group.length for group in layout.groups]
    return torch.split(padded(tokens, layout), sizes)


def grouped_gradient(tokens: Tensor, layout: Layout) -> tuple[Tensor, ...]:
    """Return the gradient of tokens likewise: nothing hangs on padding."""
    sizes = [group.num_documents * group.length for group in layout.groups]
    return torch.split(_gradient_of_rows(tokens, layout), sizes)


def padded(tokens: Tensor, layout: Layout) -> Tensor:
    """Return tokens, [tokens, …], in a layout, [rows, …]; what padding holds is not to be used."""
    if layout.places is None:
        return tokens
    rows: Tensor = _Padded.apply(tokens, layout)  # type: ignore[no-untyped-call]
    return rows


def unpadded(rows: Tensor, layout: Layout) -> Tensor:
    """Return the tokens of a layout: the way back."""
    if layout.places is None:
        return rows
    tokens: Tensor = _Unpadded.apply(rows, layout)  # type: ignore[no-untyped-call]
    return tokens


def _gradient_of_rows(gradient: Tensor, layout: Layout) -> Tensor:
    if layout.places is None:
        return gradient
    return gradient.index_select(0, layout.sources).index_fill_(0, layout.padding, 0)


# By `index_select` alone gradients would be added up, token by token.
class _Padded(torch.autograd.Function):
    @staticmethod
    def forward(tokens: Tensor, layout: Layout) -> Tensor:
        return tokens.index_select(0, layout.sources)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Layout], output: Tensor) -> None:
        ctx.layout = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.index_select(0, ctx.layout.places), None


class _Unpadded(torch.autograd.Function):
    @staticmethod
    def forward(rows: Tensor, layout: Layout) -> Tensor:
        assert layout.places is not None
        return rows.index_select(0, layout.places)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Layout], output: Tensor) -> None:
        ctx.layout = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _gradient_of_rows(gradient, ctx.layout), None
