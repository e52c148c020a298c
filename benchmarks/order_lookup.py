"""How long look-ups in the data order take around sample 10^13.

Random positions in two phases: "warm" repeats one set, whose keys are then remembered; "fresh"
draws new ones each time. "deal" is the blend of 1,000 sources, dealt once a phase and process.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from record import Figure, write_results

from rewarm.order.blend import deal_cycle, quantise_weights
from rewarm.order.position import OrderPhase, OrderSpec, locate_samples, slots_of_step

Positions = NDArray[np.int64]

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


def _locate_new(spec: OrderSpec, draw: Callable[[], Positions]) -> object:
    return locate_samples(spec, draw())


def main() -> None:
    rng = np.random.default_rng(1)
    found: dict[str, dict[str, float]] = {}
    for name, (num_sources, num_windows) in SHAPES.items():
        spec = order(num_sources, num_windows)

        def draw() -> Positions:
            return FIRST_POSITION + rng.integers(0, FIRST_POSITION, NUM_LOOKUPS)

        fixed = draw()
        found[name] = {
            "warm": median_ms(partial(locate_samples, spec, fixed)),
            "fresh": median_ms(partial(_locate_new, spec, draw)),
            "one step of 1024 instead": median_ms(
                partial(slots_of_step, spec, spec.num_steps // 2)
            ),
        }
    blend = order(1000, 1).phases[0].weights
    figures = [
        Figure(f"{NUM_LOOKUPS} look-ups, {kind}, {name}", ms, "ms", "lower", 50)
        for name, by_kind in found.items()
        for kind, ms in by_kind.items()
    ]
    deal = median_ms(lambda: deal_cycle.__wrapped__(blend), 5)
    write_results("order_lookup", [*figures, Figure("deal 1000 sources", deal, "ms", "lower")])


if __name__ == "__main__":
    main()
