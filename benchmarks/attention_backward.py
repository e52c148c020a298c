"""Attention's backward pass on a CPU in bf16: by products and one compiled kernel, beside torch's.

Whole documents of one length, as compiled blocks meet them (`rewarm.model.causal_backward`); the
two take turns, and the median is told. How far their gradients are from those in float64, relative
to the norm, of queries, keys and values together, is told of each.

    python benchmarks/attention_backward.py [--rounds 15]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from record import Figure, medians_in_turns, write_results
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from rewarm.model.causal_backward import causal_backward, is_quicker

# Documents, heads, tokens, width of a head; the longer ones are not taken by products.
SHAPES = (
    (21, 4, 192, 64),
    (8, 4, 512, 64),
    (8, 4, 512, 128),
    (4, 14, 512, 64),
    (5, 4, 768, 64),
    (4, 4, 1024, 64),
    (2, 4, 2048, 64),
)
Backward = Callable[[], tuple[Tensor, ...]]


def exact(query: Tensor, key: Tensor, value: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients in float64."""
    q, k, v = (tensor.double().requires_grad_() for tensor in (query, key, value))
    found = scaled_dot_product_attention(q, k, v, is_causal=True)
    return torch.autograd.grad(found, (q, k, v), gradient.double())


def off(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """Return the distance of gradients, of all together, relative to the norm."""
    one, other = (torch.cat([t.double().flatten() for t in of]) for of in (found, expected))
    return float((one - other).norm() / other.norm())


def figures_of(shape: tuple[int, int, int, int], num_rounds: int) -> list[Figure]:
    """Return a shape's figures."""
    documents, heads, length, width = shape
    torch.manual_seed(0)
    query, key, value, gradient = (torch.randn(shape).bfloat16() for _ in range(4))
    scale = width**-0.5
    found, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, is_causal=True
    )

    def fused() -> tuple[Tensor, ...]:
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        gradients: tuple[Tensor, ...] = kernel(gradient, query, key, value, found, sums, 0.0, True)
        return gradients

    def by_products() -> tuple[Tensor, ...]:
        return causal_backward(gradient, query, key, value, found, sums, scale=scale)

    expected = exact(query, key, value, gradient)
    ways: dict[str, Backward] = {"torch's": fused, "by products": by_products}
    distances = {name: off(way(), expected) for name, way in ways.items()}
    milliseconds = medians_in_turns(ways, num_rounds)
    taken = "" if is_quicker(length, torch.bfloat16) else " (not taken)"
    what = f"{documents} × {length} tokens, {heads} heads of {width}{taken}"
    ratio = milliseconds["torch's"] / milliseconds["by products"]
    return [
        Figure(f"{what}: times as quick", ratio, "", "higher", versus="torch's"),
        *(Figure(f"{what}: {name}", value, "ms", "lower") for name, value in milliseconds.items()),
        *(
            Figure(f"{what}: {name}, gradients off", value, "", "lower", versus="float64")
            for name, value in distances.items()
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    if not is_quicker(512, torch.bfloat16):
        print("torch finds no C++ compiler here: there is nothing to measure")
        return
    figures = [figure for shape in SHAPES for figure in figures_of(shape, given.rounds)]
    write_results("attention_backward", figures)


if __name__ == "__main__":
    main()
