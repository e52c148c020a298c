"""Projections of a block as one product: what it would gain on a CPU in bf16.

Queries, keys and values of a block, and the two halves of its gated MLP, read the same input. As
products of their own, as one product of a weight that is kept whole, and as one of a weight that
is put together anew from the parameters in each pass (as it has to be where they stay parameters of
their own, which checkpoints, adapters and freezing count on). Forward and backward passes under
autocast, the weight cast in each; the three take turns, and the median is told.

    python benchmarks/fused_projections.py [--rounds 25]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import torch
from record import Figure, medians_in_turns, write_results
from torch import Tensor
from torch.nn.functional import linear

# What is asked for together: the input's width and the widths of what is made of it.
KINDS = {
    "5.8M parameters, queries, keys and values": (256, (256, 128, 128)),
    "5.8M parameters, the gated MLP's two": (256, (688, 688)),
    "24M parameters, queries, keys and values": (512, (512, 256, 256)),
    "24M parameters, the gated MLP's two": (512, (1376, 1376)),
}
TOKENS = 4096
Pass = Callable[[], Sequence[Tensor]]


def passes(width: int, widths: Sequence[int]) -> dict[str, Pass]:
    """Return the three ways, each of one forward and backward pass."""
    torch.manual_seed(0)
    entering = torch.randn(TOKENS, width, requires_grad=True)
    parts = [torch.randn(size, width).mul_(width**-0.5).requires_grad_() for size in widths]
    whole = torch.cat([part.detach() for part in parts]).requires_grad_()
    gradients = [torch.randn(TOKENS, size, dtype=torch.bfloat16) for size in widths]

    def taken(made: Sequence[Tensor], weights: Sequence[Tensor]) -> Sequence[Tensor]:
        return torch.autograd.grad(made, [entering, *weights], gradients)

    def apart() -> Sequence[Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            made = [linear(entering, part) for part in parts]
        return taken(made, parts)

    def kept_whole() -> Sequence[Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            made = torch.split(linear(entering, whole), list(widths), dim=-1)
        return taken(made, [whole])

    def put_together() -> Sequence[Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            made = torch.split(linear(entering, torch.cat(parts)), list(widths), dim=-1)
        return taken(made, parts)

    return {"apart": apart, "kept whole": kept_whole, "put together": put_together}


def figures_of(kind: str, num_rounds: int) -> list[Figure]:
    """Return how much quicker one product is than those apart, and how long these take."""
    ways = passes(*KINDS[kind])
    entering = {name: way()[0] for name, way in ways.items()}  # and once to warm up
    for name, gradient in entering.items():
        off = (gradient - entering["apart"]).norm() / entering["apart"].norm()
        assert off < 0.02, f"{name} is another product: {off:.3f} off"
    medians = medians_in_turns(ways, num_rounds)
    return [
        *(
            Figure(
                f"{kind}: {name}, times as quick", medians["apart"] / medians[name], "", "higher"
            )
            for name in ("kept whole", "put together")
        ),
        Figure(f"{kind}: apart", medians["apart"], "ms", "lower"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    given = parser.parse_args()
    figures = [figure for kind in KINDS for figure in figures_of(kind, given.rounds)]
    write_results("fused_projections", figures)


if __name__ == "__main__":
    main()
