"""The loss in chunks against the plain loss and torch's own, time and peak memory beside it.

Each is run in a process of its own, whose peak of resident memory (VmHWM) beyond what inputs and
gradients take is what is reported.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from record import Figure, write_results
from torch.nn import functional as F

from rewarm.model.chunked_loss import chunked_nats

NUM_TOKENS, WIDTH = 2048, 512
KINDS = ("plain", "chunked", "torch")
REPEATS = 3


def take(kind: str, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> None:
    """Take the loss and its gradients."""
    if kind == "plain":
        nats = F.cross_entropy(F.linear(hidden, weight).float(), labels, reduction="sum")
    elif kind == "chunked":
        nats = chunked_nats(hidden, weight, None, labels)
    else:
        nats = F.linear_cross_entropy(hidden, weight, labels, reduction="sum")
    nats.backward()  # type: ignore[no-untyped-call]


def peak_bytes() -> int:
    """Return the peak of resident memory of this process so far."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmHWM here")


def child(kind: str, vocab: int) -> None:
    """Print seconds and bytes of one kind."""
    torch.manual_seed(0)
    hidden = torch.randn(NUM_TOKENS, WIDTH, requires_grad=True)
    weight = (torch.randn(vocab, WIDTH) / WIDTH**0.5).requires_grad_()
    labels = torch.randint(0, vocab, (NUM_TOKENS,))
    hidden.grad, weight.grad = torch.zeros_like(hidden), torch.zeros_like(weight)
    take(kind, hidden[:8], weight, labels[:8])
    before = peak_bytes()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        take(kind, hidden, weight, labels)
        times.append(time.perf_counter() - started)
    print(statistics.median(times), peak_bytes() - before)


def main() -> None:
    figures = []
    for vocab in (8_192, 131_072):
        found: dict[str, tuple[float, float]] = {}
        for kind in KINDS:
            if kind == "torch" and not hasattr(F, "linear_cross_entropy"):
                continue
            command = [sys.executable, __file__, kind, str(vocab)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            seconds, extra = (float(word) for word in said.split())
            found[kind] = (seconds, extra)
        seconds, extra = found["plain"]
        for kind in (kind for kind in found if kind != "plain"):
            goals = (1.0, 0.5) if kind == "chunked" and vocab > 100_000 else (None, None)
            name = f"{kind} loss, {vocab} entries"
            figures += [
                Figure(f"{name}: time", found[kind][0] / seconds, "", "lower", goals[0], "plain"),
                Figure(f"{name}: memory", found[kind][1] / extra, "", "lower", goals[1], "plain"),
            ]
        figures.append(Figure(f"plain loss, {vocab} entries: memory", extra, "byte", "lower"))
    write_results("loss_memory", figures)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(sys.argv[1], int(sys.argv[2]))
    else:
        main()
