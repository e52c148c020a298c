"""Windows from a warm page cache, against copying the same number of bytes in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from record import Figure, median_s, write_results

from rewarm.corpus.shards import dtype_for, open_shard, write_shard
from rewarm.corpus.views import View

NUM_DOCUMENTS = 40_000
SEQUENCE_LENGTH = 2048
SHORT_SEQUENCE_LENGTH = 256  # where the work per window, not per token, would show


def main() -> None:
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 50_000, n) for n in rng.integers(100, 1500, NUM_DOCUMENTS)]
    with tempfile.TemporaryDirectory() as folder:
        write_shard(Path(folder) / "s", documents, dtype_for(50_000))
        kept = np.flatnonzero(rng.random(NUM_DOCUMENTS) > 0.02)  # two per cent held out
        view = View([open_shard(Path(folder) / "s")], kept, np.zeros(NUM_DOCUMENTS, np.int64))
        windows = rng.permutation((view.num_tokens - 1) // SEQUENCE_LENGTH)[:2000]
        seconds = median_s(lambda: view.gather(windows, SEQUENCE_LENGTH))
        short = rng.permutation((view.num_tokens - 1) // SHORT_SEQUENCE_LENGTH)[:16_000]
        short_seconds = median_s(lambda: view.gather(short, SHORT_SEQUENCE_LENGTH))
        flat = np.zeros(len(windows) * (SEQUENCE_LENGTH + 1), dtype=np.uint16)
        limit = median_s(lambda: flat.astype(np.int64))
    tokens = len(windows) * (SEQUENCE_LENGTH + 1)
    short_rate = len(short) * (SHORT_SEQUENCE_LENGTH + 1) / short_seconds / 1e6
    write_results(
        "window_gather",
        [
            Figure("window gather", tokens / seconds / 1e6, "M tokens/s", "higher", 20),
            Figure("gather of short windows", short_rate, "M tokens/s", "higher", 20),
            Figure("share of a plain copy", limit / seconds, "", "higher", None, "numpy astype"),
        ],
    )


if __name__ == "__main__":
    main()
