"""What share of the machine's product rate training reaches on a CPU, and where the rest goes.

The loops of `train_loops.py` take turns of three steps, and after each turn this process multiplies
square matrices, in the type and with the threads that the loops have: the best of three sizes is
the rate at that time. A share is of a turn and the rate beside it; the median over rounds is told.

    share = tokens/s × FLOPs per token / rate
    FLOPs per token = 6 × (parameters of the blocks + the output head)
                    + 6 × layers × hidden size × sequence length

The last term is attention over whole windows, halved for being causal; rewarm keeps documents apart
and computes less, and the same is counted. In the last turn operators are watched: their own
seconds, by what they do, are told as shares of the step.

    python benchmarks/product_rate.py [--rounds 8] [--models 6M,25M]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from record import Figure, arguments_of, write_results
from train_peers import NUM_WARMUPS, SHAPES, TOLD, TURN, Found, Loop, Shape, prepare, write_text

LOOPS = ("rewarm", "bare", "rewarm, compiled", "bare, compiled")
SIZES = (1024, 2048, 4096)
REPEATS = 3


def flops_of_products(shape: Shape) -> float:
    """Return the FLOPs a token that blocks and head ask for, attention left out."""
    block = 4 * shape.hidden_size**2 + 3 * shape.hidden_size * shape.intermediate_size
    return 6.0 * (shape.num_layers * block + shape.vocab_size * shape.hidden_size)


def flops_of_attention(shape: Shape) -> float:
    """Return the FLOPs a token of causal attention over whole windows."""
    return 6.0 * shape.num_layers * shape.hidden_size * shape.length


def rate_of_machine(dtype: torch.dtype) -> float:
    """Return the FLOP/s of square products, of the size that reaches most."""
    best = 0.0
    for size in SIZES:
        left, right = (torch.full((size, size), 0.5, dtype=dtype) for _ in range(2))
        torch.mm(left, right)
        for _ in range(REPEATS):
            start = time.perf_counter()
            torch.mm(left, right)
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def measure(settings: Found, num_rounds: int, folder: Path) -> tuple[dict[str, Found], list[float]]:
    """Let loops take their turns; return what each told, with `rates` beside its turns, and all."""
    dtype = torch.bfloat16 if settings["half"] else torch.float32
    loops = [Loop(name, settings, folder) for name in LOOPS]
    rates: dict[str, list[float]] = {loop.name: [] for loop in loops}
    for number in range(num_rounds):
        print(f"  round {number + 1} of {num_rounds}", flush=True)
        for loop in loops[:: 1 if number % 2 else -1]:
            loop.take_turn()
            rates[loop.name].append(rate_of_machine(dtype))
    found = {loop.name: {**loop.told(), "rates": rates[loop.name]} for loop in loops}
    return found, [rate for of_loop in rates.values() for rate in of_loop]


def figures_of(name: str, settings: Found, num_rounds: int, folder: Path) -> list[Figure]:
    """Return a model's figures."""
    shape = SHAPES[name]
    tokens = shape.num_sequences * shape.length
    products, attention = flops_of_products(shape), flops_of_attention(shape)
    measured, rates = measure(settings, num_rounds, folder)
    kind = "bf16" if settings["half"] else "float32"
    versus = f"{kind} products"
    figures = [
        Figure(f"{TOLD[name]}: {versus}", statistics.median(rates) / 1e9, "GFLOP/s", "higher")
    ]
    for loop, found in measured.items():
        # The last turn was watched, which takes time of its own.
        shares = [
            tokens * (products + attention) / seconds / rate
            for seconds, rate in list(zip(found["turns_s"], found["rates"], strict=True))[:-1]
        ]
        low, median, high = (float(part) for part in statistics.quantiles(shares, n=4))
        print(f"    {loop}: {median:.3f}, half of the rounds {low:.3f} to {high:.3f}")
        figures.append(
            Figure(f"{TOLD[name]}: {loop}, of the rate", median, "", "higher", None, versus)
        )
        parts: dict[str, float] = found["parts"]
        told = {
            "products": "products",
            "attention": "attention",
            "between": "norms, activations, loss, copies",
            "optimizer": "clipping and update",
        }
        figures += [
            Figure(f"{TOLD[name]}: {loop}: {what}", parts[part], "", "lower", None, "its step")
            for part, what in told.items()
        ]
        rest = 1 - sum(parts.values())
        figures.append(
            Figure(f"{TOLD[name]}: {loop}: in no operator", rest, "", "lower", None, "its step")
        )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Training against the rate of products.")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--models", default="6M,25M")
    options = parser.parse_args()
    if options.rounds < 3:
        parser.error("--rounds: at least 3, as the last is watched and a spread is told")
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_text(folder)
        for name in options.models.split(","):
            settings = prepare(folder, name, NUM_WARMUPS + TURN * options.rounds, shared=False)
            print(name, flush=True)
            figures += figures_of(name, {**settings, "watched": True}, options.rounds, folder)
    write_results("product_rate", figures, arguments=arguments_of(options))


if __name__ == "__main__":
    main()
