"""Prints as JSON how long look-ups in the data order take around sample 10^13.

Random positions in two phases: "warm" repeats one set, whose keys are then remembered; "fresh"
draws new ones each time. "deal" is the blend of 1,000 sources, dealt once a phase and process.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np

from rewarm.order.blend import deal_cycle, quantise_weights
from rewarm.order.position import OrderPhase, OrderSpec, locate_samples, slots_of_step

NUM_LOOKUPS = 4096
FIRST_POSITION = 10**13
SEQUENCES_PER_STEP = 1024
NUM_REPEATS = 31

# name → number of sources and windows of the smallest: few windows mean a new key nearly each time.
SHAPES = {"3 large sources": (3, 10**9), "1000 sources": (1000, 10**6), "1000 tiny": (1000, 3)}


def order(num_sources: int, num_windows: int) -> OrderSpec:
    """Return two phases that meet in the middle of the positions that are looked up."""
    rng = np.random.default_rng(0)
    blends = [quantise_weights((rng.random(num_sources) + 0.1).tolist()) for _ in range(2)]
    middle = 3 * FIRST_POSITION // (2 * SEQUENCES_PER_STEP)
    return OrderSpec(
        seed=1,
        sequences_per_step=SEQUENCES_PER_STEP,
        source_names=tuple(f"source-{index}" for index in range(num_sources)),
        num_windows=tuple(num_windows + index for index in range(num_sources)),
        phases=(OrderPhase(0, middle, blends[0]), OrderPhase(middle, 2 * middle, blends[1])),
    )


def median_ms(act: Callable[[], object], num_repeats: int = NUM_REPEATS) -> float:
    act()
    elapsed_s = []
    for _ in range(num_repeats):
        start = time.perf_counter()
        act()
        elapsed_s.append(time.perf_counter() - start)
    return round(1e3 * statistics.median(elapsed_s), 3)


def main() -> None:
    rng = np.random.default_rng(1)
    found: dict[str, dict[str, float]] = {}
    for name, (num_sources, num_windows) in SHAPES.items():
        spec = order(num_sources, num_windows)

        def draw() -> np.ndarray[tuple[int], np.dtype[np.int64]]:
            return FIRST_POSITION + rng.integers(0, FIRST_POSITION, NUM_LOOKUPS)

        fixed = draw()
        found[name] = {
            "warm_ms": median_ms(lambda spec=spec, at=fixed: locate_samples(spec, at)),  # type: ignore[misc]
            "fresh_ms": median_ms(lambda spec=spec, draw=draw: locate_samples(spec, draw())),  # type: ignore[misc]
            "step_ms": median_ms(lambda spec=spec: slots_of_step(spec, spec.num_steps // 2)),  # type: ignore[misc]
        }
    blend = order(1000, 1).phases[0].weights
    print(
        json.dumps(
            {
                "num_lookups": NUM_LOOKUPS,
                "first_position": FIRST_POSITION,
                "sequences_per_step": SEQUENCES_PER_STEP,
                "median": found,
                "deal_1000_sources_ms": median_ms(lambda: deal_cycle.__wrapped__(blend), 5),
                "python": platform.python_version(),
                "numpy": np.__version__,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
