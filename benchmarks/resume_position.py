"""Data position costs nothing on resume: the first batch at step 10 against one at step 10^9."""

from __future__ import annotations

import time

import numpy as np
from record import Figure, write_results

from rewarm.batches.loader import BatchLoader
from rewarm.order.blend import quantise_weights
from rewarm.order.position import OrderPhase, OrderSpec

SEQUENCE_LENGTH = 2048


class Tokens:
    """Windows of a source that is all one token: what is timed is finding them."""

    def gather(self, windows: np.ndarray, sequence_length: int, /) -> np.ndarray:
        return np.ones((len(windows), sequence_length + 1), dtype=np.int64)

    def positions(self, windows: np.ndarray, sequence_length: int, /) -> np.ndarray:
        return np.tile(np.arange(sequence_length), (len(windows), 1))


def first_batch_s(step: int) -> float:
    """Return the seconds from a new loader to its first batch, as after a resume."""
    order = OrderSpec(
        seed=1,
        sequences_per_step=256,
        source_names=("old", "new"),
        num_windows=(10**9, 10**7),
        phases=(OrderPhase(0, 2 * 10**9, quantise_weights([0.25, 0.75])),),
    )
    start = time.perf_counter()
    loader = BatchLoader(
        order,
        {"old": Tokens(), "new": Tokens()},
        sequence_length=SEQUENCE_LENGTH,
        vocab_size=100,
    )
    loader.batch(step)
    return time.perf_counter() - start


def main() -> None:
    steps = (10, 10**9)
    for step in steps:
        first_batch_s(step)
    taken: dict[int, list[float]] = {step: [] for step in steps}
    for _ in range(15):  # interleaved, so that the machine's moods fall on both
        for step in steps:
            taken[step].append(first_batch_s(step))
    near, far = (float(np.median(taken[step])) for step in steps)
    write_results(
        "resume_position",
        [
            Figure("first batch at step 10", near, "s", "lower"),
            Figure("first batch at step 10^9", far, "s", "lower"),
            Figure("ratio of the two", far / near, "", "lower", 1.2, "step 10"),
        ],
    )


if __name__ == "__main__":
    main()
