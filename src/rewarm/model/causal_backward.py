"""The backward pass of causal attention by products of matrices and one kernel between them.

For compiled blocks on a CPU, in half precision: torch's fused kernel goes by 64 queries at a time
there, and such small products take longer than these. Keys come first, queries last in what lies
between products, so that of five products one alone has an operand that is transposed in memory.

Products are rounded to half precision as they leave, which would be a large part of a large score,
and of a weight that is made from it. What a kernel would take from them is therefore taken within
the product, in columns of its own beside the width: scores come out less the log of their sum, near
0 where a weight is large, and the weights' gradients less their mean.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

__all__ = ["causal_backward", "is_quicker"]

# Tokens of a document: torch's own is as quick below them in float32, and above.
_LENGTHS = (192, 640)
_KEYS = 256  # at a time; the queries before them see none of them
_MOST_PAIRS = 1 << 21  # of queries and keys at a time: two arrays of 4 MiB
# A float32 is the sum of three of half its precision; rows of an even number of pairs are quicker.
_COLUMNS, _PIECES = 4, 3

_Between = Callable[[Tensor, Tensor, float], None]
_RowDots = Callable[[Tensor, Tensor], Tensor]


def is_quicker(length: int, dtype: torch.dtype) -> bool:
    """Return whether it is quicker than torch's own for documents of a length, and can be had."""
    least, most = _LENGTHS
    return dtype == torch.bfloat16 and least <= length <= most and _kernels() is not None


def causal_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    found: Tensor,
    sums: Tensor,
    *,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of queries, keys and values; all are [documents, heads, length, width].

    `found` is what the forward pass came to and `sums` the log of each query's sum, float32
    [documents, heads, length]. Source: Dao et al., FlashAttention, 2022, algorithm 4.
    """
    kernels = _kernels()
    assert kernels is not None, "ask is_quicker first"
    between, row_dots = kernels
    length, width = query.shape[2:]
    q, k = _less(query, sums / scale), _less(key, None)
    g, v = _less(gradient, row_dots(gradient, found)), _less(value, None)
    num_rows = len(q)
    of_query = torch.zeros(num_rows, length, width, dtype=torch.float32)
    of_key, of_value = (q.new_empty(num_rows, length, width) for _ in range(2))
    for some in _powers_of_four(num_rows, max(1, _MOST_PAIRS // (min(_KEYS, length) * length))):
        for start in range(0, length, _KEYS):
            keys, queries = (some, slice(start, start + _KEYS)), (some, slice(start, None))
            weights = torch.bmm(k[keys], q[queries].transpose(1, 2))
            of_scores = torch.bmm(v[keys], g[queries].transpose(1, 2))
            between(weights, of_scores, scale)
            torch.bmm(weights, g[queries][..., :width], out=of_value[keys])
            torch.bmm(of_scores, q[queries][..., :width], out=of_key[keys])
            of_query[queries] += torch.bmm(of_scores.transpose(1, 2), k[keys][..., :width])
    shape = query.shape
    return of_query.to(query.dtype).view(shape), of_key.view(shape), of_value.view(shape)


def _less(rows: Tensor, taken: Tensor | None) -> Tensor:
    """Return [documents, heads, length, width] as [documents · heads, length, width + 4].

    A product with rows to which nothing was given to take is less what was given to the others:
    their further columns have its pieces, float32 [documents, heads, length], to the ones here.
    """
    width = rows.shape[3]
    wide = rows.new_zeros(*rows.shape[:3], width + _COLUMNS)
    wide[..., :width] = rows
    if taken is None:
        wide[..., width : width + _PIECES] = 1
    else:
        rest = -taken
        for column in range(width, width + _PIECES):
            wide[..., column] = rest
            rest = rest - wide[..., column]
    return wide.flatten(0, 1)


def _powers_of_four(number: int, most: int) -> Iterator[slice]:
    """Yield slices of so many things, each of a power of four.

    For products of any other number torch compiles kernels too, and keeps them.
    """
    first = 0
    while first < number:
        size = 1 << 2 * ((min(number - first, most).bit_length() - 1) // 2)
        yield slice(first, first + size)
        first += size


def _between(weights: Tensor, of_scores: Tensor, scale: float) -> None:
    """Turn scores into weights, and the weights' gradients into the scores', in place.

    Both are [rows, keys, queries], less what `_less` took: the log of a weight over `scale`, and a
    weight's gradient less their mean. The first query is the first key's own token.
    """
    _, num_keys, num_queries = weights.shape
    sees = torch.arange(num_keys)[:, None] <= torch.arange(num_queries)
    wide = torch.where(sees, torch.exp(weights.float() * scale), 0.0)
    of_scores.copy_(torch.where(sees, wide * of_scores.float() * scale, 0.0))
    weights.copy_(wide)


def _row_dots(one: Tensor, other: Tensor) -> Tensor:
    return (one.float() * other.float()).sum(-1)


@functools.cache
def _kernels() -> tuple[_Between, _RowDots] | None:
    """Return both, compiled; None where there is no compiler."""
    between = torch.compile(_between, dynamic=True)
    row_dots = torch.compile(_row_dots, dynamic=True)
    # Of sizes that are all unlike: what is alike when a graph is made has to stay so.
    products = torch.zeros(3, 32, 64, dtype=torch.bfloat16)
    rows = torch.zeros(5, 32, 3, 64, dtype=torch.bfloat16).transpose(1, 2)
    try:
        between(products, products.clone(), 0.5)
        row_dots(rows, rows)
    except Exception:  # a compiler, or what it needs, fails in whatever way it likes
        return None
    return between, row_dots
