"""What a GPU's products, attentions and memory reach by themselves."""

from __future__ import annotations

import functools
import inspect
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel, varlen

__all__ = ["limits"]

_Timed = Callable[[Callable[[], Any]], float]


def limits(length: int) -> list[dict[str, Any]]:
    """Return what products and attentions reach by themselves, in TFLOP/s."""
    rows: list[dict[str, Any]] = []

    event: Any = torch.cuda.Event

    def timed(work: Callable[[], Any], repeats: int = 10) -> float:
        for _ in range(3):
            work()
        events: list[Any] = [event(enable_timing=True) for _ in range(2)]
        took = []
        for _ in range(repeats):
            events[0].record()
            work()
            events[1].record()
            torch.cuda.synchronize()
            took.append(events[0].elapsed_time(events[1]) / 1e3)
        return float(statistics.median(took))

    for m, k, n in (
        (8192, 8192, 8192),
        (16384, 2048, 2048),
        (16384, 2048, 8192),
        (16384, 8192, 2048),
        (2048, 2048, 100_352),
    ):
        a = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
        b = torch.randn(n, k, device="cuda", dtype=torch.bfloat16)
        rate = 2 * m * k * n / timed(functools.partial(F.linear, a, b)) / 1e12
        rows.append({"limit": f"product {m}×{k}×{n}", "rate": rate, "unit": "TFLOP/s"})
    for heads, shared, width in ((16, 16, 128), (32, 8, 64)):
        rows += _attentions(length, heads, shared, width, timed)
    big = torch.empty(2**30, device="cuda", dtype=torch.float32)
    took = timed(lambda: big.mul_(1.0))
    rows.append(
        {"limit": "memory, read and written", "rate": 8 * 2**30 / took / 1e12, "unit": "TB/s"}
    )
    return rows


def _attentions(
    length: int, heads: int, shared: int, width: int, timed: _Timed
) -> list[dict[str, Any]]:
    """Return forward and backward rates of causal attention over 4 windows, by each kernel."""
    rows, total = 4, 4 * length
    flops = 2 * 2 * rows * heads * width * length * length / 2 * 3.5
    bounds = torch.arange(rows + 1, device="cuda", dtype=torch.int32) * length
    flat: list[Any] = [
        torch.randn(total, n, width, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for n in (heads, shared, shared)
    ]
    attend: Any = varlen.varlen_attn
    asks = "enable_gqa" in inspect.signature(attend).parameters
    more = {"enable_gqa": True} if asks and heads != shared else {}

    def by_varlen() -> None:
        told = (bounds, bounds, length, length)
        found = attend(*flat, *told, window_size=(-1, 0), **more)
        torch.autograd.grad(found.sum(), flat)

    def by_sdpa(backend: Any) -> None:
        q, k, v = (x.view(rows, length, -1, width).transpose(1, 2) for x in flat)
        with sdpa_kernel(backend):
            found = F.scaled_dot_product_attention(
                q, k, v, is_causal=True, enable_gqa=heads != shared
            )
        torch.autograd.grad(found.sum(), flat)

    found = []
    ways: dict[str, Callable[[], None]] = {
        "varlen, flash": by_varlen,
        "whole, flash": lambda: by_sdpa(SDPBackend.FLASH_ATTENTION),
        "whole, cuDNN": lambda: by_sdpa(SDPBackend.CUDNN_ATTENTION),
    }
    for name, work in ways.items():
        try:
            rate = flops / timed(work) / 1e12
            found.append(
                {
                    "limit": f"attention {heads}/{shared}×{width}, {name}",
                    "rate": rate,
                    "unit": "TFLOP/s",
                }
            )
        except Exception as error:
            told = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            found.append({"limit": f"attention {heads}/{shared}×{width}, {name}", "error": told})
    return found
