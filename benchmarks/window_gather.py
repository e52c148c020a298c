"""Inputs and labels of windows from a warm page cache, on one core, as training takes them.

Contiguous windows, bins of best-fit packing, and both where a mask says which labels count. Beside
them what is gathered alone (as scores and evaluation take it), and copying as much in memory.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from record import Figure, write_results

from rewarm.corpus.bins import pack
from rewarm.corpus.label_mask import LABEL_MASK, open_label_mask
from rewarm.corpus.packed import PackedView
from rewarm.corpus.shards import dtype_for, open_shard, write_shard
from rewarm.corpus.views import View

NUM_DOCUMENTS = 40_000
SEQUENCE_LENGTH = 2048
SHORT_SEQUENCE_LENGTH = 256  # where the work per window, not per token, would show
NUM_TOKENS = 2000 * SEQUENCE_LENGTH
NUM_REPEATS = 9
GOAL = 20


def rate(windows: View | PackedView, num_windows: int, length: int) -> float:
    """Return millions of tokens a processor second, of steps that take windows from anywhere."""
    drawn = np.random.default_rng(1).permutation(num_windows)[: NUM_TOKENS // length]
    seconds = core_s(lambda: windows.sequences(drawn, length))
    return len(drawn) * length / seconds / 1e6


def core_s(act: Callable[[], object]) -> float:
    """Return the median seconds of a core that `act` takes, whoever else shares the machine."""
    act()
    found = []
    for _ in range(NUM_REPEATS):
        start = time.process_time()
        act()
        found.append(time.process_time() - start)
    return statistics.median(found)


def main() -> None:
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 50_000, n) for n in rng.integers(100, 1500, NUM_DOCUMENTS)]
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        prefix = Path(name) / "s"
        write_shard(prefix, documents, dtype_for(50_000))
        shard = open_shard(prefix)
        # As answers lie between questions: stretches of a hundred tokens, half of them counted.
        counted = np.repeat(rng.integers(0, 2, shard.num_tokens // 100 + 1), 100)
        counted[: shard.num_tokens].astype(np.uint8).tofile(f"{prefix}{LABEL_MASK}")
        mask = open_label_mask(prefix, shard.num_tokens)
        assert mask is not None
        kept = np.flatnonzero(rng.random(NUM_DOCUMENTS) > 0.02)  # two per cent held out
        num_bytes = np.zeros(NUM_DOCUMENTS, np.int64)
        for masks, of in (((), ""), ((mask,), ", masked labels")):
            view = View([shard], kept, num_bytes, masks)
            for length in (SEQUENCE_LENGTH, SHORT_SEQUENCE_LENGTH):
                bins = pack(view.offsets, length)
                packed = PackedView(view, bins)
                for way, windows, number in (
                    ("contiguous", view, (view.num_tokens - 1) // length),
                    ("best-fit", packed, bins.num_bins),
                ):
                    found = rate(windows, number, length)
                    figures.append(
                        Figure(f"{way}, {length}{of}", found, "M tokens/s a core", "higher", GOAL)
                    )
        view = View([shard], kept, num_bytes)
        drawn = rng.permutation((view.num_tokens - 1) // SEQUENCE_LENGTH)[:2000]
        seconds = core_s(lambda: view.gather(drawn, SEQUENCE_LENGTH))
        flat = np.zeros(len(drawn) * (SEQUENCE_LENGTH + 1), dtype=np.uint16)
        limit = core_s(lambda: flat.astype(np.int64))
    figures += [
        Figure("gathered alone", len(flat) / seconds / 1e6, "M tokens/s a core", "higher", GOAL),
        Figure("share of a plain copy", limit / seconds, "", "higher", None, "numpy astype"),
    ]
    write_results("window_gather", figures)


if __name__ == "__main__":
    main()
