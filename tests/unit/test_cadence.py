from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewarm.planning.cadence import evaluation_steps


@pytest.mark.parametrize(
    ("num_steps", "every", "expected"),
    [
        (25, 10, (0, 1, 2, 4, 8, 10, 20, 25)),
        (16, 8, (0, 1, 2, 4, 8, 16)),
        (3, 1, (0, 1, 2, 3)),
        (5, 100, (0, 1, 2, 4, 5)),
        (1, 1, (0, 1)),
        (0, 4, (0,)),
    ],
)
def test_steps_double_up_to_the_interval_then_repeat_it(
    num_steps: int, every: int, expected: tuple[int, ...]
) -> None:
    assert evaluation_steps(num_steps, every) == expected


@given(num_steps=st.integers(0, 5000), every=st.integers(1, 6000))
def test_base_and_final_model_are_measured_once_and_no_gap_exceeds_the_interval(
    num_steps: int, every: int
) -> None:
    steps = evaluation_steps(num_steps, every)
    assert steps[0] == 0
    assert steps[-1] == num_steps
    gaps = [later - earlier for earlier, later in itertools.pairwise(steps)]
    assert all(0 < gap <= every for gap in gaps)


@pytest.mark.parametrize(("num_steps", "every"), [(-1, 1), (10, 0)])
def test_senseless_numbers_are_refused(num_steps: int, every: int) -> None:
    with pytest.raises(ValueError, match="cannot evaluate"):
        evaluation_steps(num_steps, every)
