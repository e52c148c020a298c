"""What a device gains from bf16: the time of a product in float32 over that in bf16."""

from __future__ import annotations

import functools
import time

import torch

__all__ = ["half_gain"]

_SIZE_OF = {"cpu": 512, "cuda": 4096}
# Each in turn, the fastest of which counts: what else the machine does slows both down.
_REPEATS = 6


@functools.cache
def half_gain(device_type: str) -> float:
    """Return how many times faster a square product is in bf16; measured once in a process.

    Some hundredths of a second. What training gains is less, as products are not all of a step.
    """
    size = _SIZE_OF.get(device_type, 512)
    wide = torch.linspace(-1, 1, size * size, device=device_type).view(size, size)
    both = (wide, wide.bfloat16())
    fastest = [float("inf")] * 2
    for _ in range(_REPEATS):
        for index, matrix in enumerate(both):
            _wait(device_type)
            started = time.perf_counter()
            matrix @ matrix
            _wait(device_type)
            fastest[index] = min(fastest[index], time.perf_counter() - started)
    in_float32, in_half = fastest
    return in_float32 / in_half


def _wait(device_type: str) -> None:
    if device_type == "cuda":
        torch.cuda.synchronize()
