"""The data order of every release is this one: literal values from the blend to the windows.

A change here is a change of every run's data, so no run could be resumed or audited with it.
"""

from __future__ import annotations

import numpy as np
import pytest

from rewarm.order.blend import deal_cycle, quantise_weights
from rewarm.order.position import OrderPhase, OrderSpec, slots_of_rank, slots_of_step
from rewarm.order.shuffle import permute

SPEC = OrderSpec(
    seed=17,
    sequences_per_step=8,
    source_names=("web", "code", "replay"),
    num_windows=(1000, 7, 10**9),
    phases=(
        OrderPhase(0, 3, (39_322, 16_384, 9_830)),
        OrderPhase(3, 10**9, (32_768, 0, 32_768)),
    ),
)


@pytest.mark.parametrize(
    ("weights", "shares", "first_slots"),
    [
        ([0.7, 0.2, 0.1], (45_875, 13_107, 6_554), "000100200100010020010001"),
        ([1, 1, 1], (21_846, 21_845, 21_845), "012012012012012012012012"),
        ([5, 0, 3, 1.5], (34_493, 0, 20_695, 10_348), "002023002023002030200202"),
    ],
)
def test_the_blend(weights: list[float], shares: tuple[int, ...], first_slots: str) -> None:
    assert quantise_weights(weights) == shares
    dealt = deal_cycle(shares).source_of_slot[: len(first_slots)]
    assert "".join(map(str, dealt.tolist())) == first_slots


@pytest.mark.parametrize(
    ("length", "key", "moved"),
    [
        (1, 5, [0]),
        (2, 2**63, [0, 1]),
        (7, 1, [1, 6, 4, 0, 3, 5, 2]),
        (16, 2, [1, 8, 6, 13, 4, 14, 11, 12, 15, 2, 5, 7, 3, 10, 0, 9]),
        (17, 2**64 - 1, [15, 3, 10, 1, 12, 13, 4, 9, 16, 8, 6, 2, 0, 7, 14, 5, 11]),
    ],
)
def test_the_permutation(length: int, key: int, moved: list[int]) -> None:
    assert permute(np.arange(length), length, key).tolist() == moved


def test_the_permutation_of_the_largest_domain() -> None:
    moved = [3922185180273326002, 3765144656397922442, 1607584223309351789]
    assert permute(np.array([0, 1, 2**62 - 1]), 2**62, 7).tolist() == moved


# step → sources, samples, epochs, windows: first and last of the first phase, then of the second.
STEPS = {
    0: (
        [0, 2, 1, 0, 0, 0, 1, 0],
        [4, 0, 1, 2, 3, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [642, 510988948, 6, 604, 740, 813, 2, 734],
    ),
    2: (
        [0, 1, 0, 1, 0, 0, 0, 2],
        [10, 5, 14, 4, 13, 11, 12, 2],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [585, 5, 236, 3, 316, 378, 716, 6444093],
    ),
    3: (
        [2, 0, 2, 0, 0, 0, 2, 2],
        [3, 17, 4, 15, 16, 18, 5, 6],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [959791126, 778, 390467445, 292, 295, 862, 1057246, 97298347],
    ),
    999_999_999: (
        [2, 2, 2, 0, 0, 0, 0, 2],
        [
            *(3999999988, 3999999990, 3999999987, 3999999999),
            *(4000000001, 4000000002, 4000000000, 3999999989),
        ],
        [3, 3, 3, 3999999, 4000000, 4000000, 4000000, 3],
        [246420592, 965045420, 23970145, 6, 161, 658, 980, 63447138],
    ),
}


@pytest.mark.parametrize("step", STEPS)
def test_the_samples_of_a_step(step: int) -> None:
    slots = slots_of_step(SPEC, step)
    found = (slots.source, slots.sample, slots.epoch, slots.window)
    assert tuple(array.tolist() for array in found) == STEPS[step]


def test_the_share_of_a_rank() -> None:
    assert slots_of_rank(SPEC, 2, 1, 4).window.tolist() == STEPS[2][3][2:4]
    assert slots_of_rank(SPEC, 2, 3, 4).window.tolist() == STEPS[2][3][6:8]
