from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewarm.evaluation.statistics import (
    Interval,
    least_items,
    paired_bootstrap,
    proportion_standard_error,
    ratio,
    ratio_standard_error,
)

items = st.lists(
    st.tuples(st.floats(-100, 100), st.integers(1, 1000), st.floats(-100, 100)),
    min_size=2,
    max_size=12,
)


def test_ratio_standard_error_by_hand() -> None:
    # R = 6/4 = 1.5; residuals 1 − 1.5, 2 − 1.5, 3 − 3 = −½, ½, 0; √(3/2 · ½) / 4 = √¾ / 4
    assert ratio([1, 2, 3], [1, 1, 2]) == 1.5
    assert ratio_standard_error([1, 2, 3], [1, 1, 2]) == pytest.approx(math.sqrt(0.75) / 4)


def test_ratio_standard_error_agrees_with_the_delete_one_jackknife() -> None:
    generator = np.random.default_rng(0)
    weights = generator.integers(50, 5000, size=400)
    values = weights * generator.normal(2.0, 0.3, size=400)
    without_one = (values.sum() - values) / (weights.sum() - weights)
    jackknife = math.sqrt(399 / 400 * ((without_one - without_one.mean()) ** 2).sum())
    assert ratio_standard_error(values, weights) == pytest.approx(jackknife, rel=0.01)


@given(items)
def test_with_equal_weights_it_is_the_standard_error_of_the_mean(
    drawn: list[tuple[float, int, float]],
) -> None:
    values = np.array([value for value, _, _ in drawn])
    expected = values.std(ddof=1) / math.sqrt(len(values))
    assert ratio_standard_error(values, np.ones(len(values))) == pytest.approx(expected, abs=1e-12)


@given(successes=st.integers(0, 30), failures=st.integers(0, 30))
def test_proportion_and_ratio_errors_agree(successes: int, failures: int) -> None:
    num_items = successes + failures
    if num_items < 2:
        return
    values = [1] * successes + [0] * failures
    expected = ratio_standard_error(values, [1] * num_items)
    assert proportion_standard_error(successes / num_items, num_items) == pytest.approx(
        expected, abs=1e-12
    )


def test_one_item_has_no_standard_error() -> None:
    assert ratio_standard_error([3.0], [2.0]) is None


@pytest.mark.parametrize(
    ("values", "weights", "message"),
    [
        ([1, 2], [1], "equally long"),
        ([], [], "equally long"),
        ([1, 2], [1, 0], "positive weight"),
        ([1, 2], [1, math.nan], "positive weight"),
    ],
)
def test_items_that_do_not_pair_up_are_refused(
    values: list[float], weights: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ratio_standard_error(values, weights)
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(values, values, weights, seed=0)


@pytest.mark.parametrize("arguments", [{"num_resamples": 0}, {"confidence": 1.0}])
def test_senseless_bootstraps_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="cannot draw"):
        paired_bootstrap([1, 2], [1, 2], [1, 1], seed=0, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(("proportion", "num_items"), [(-0.1, 10), (1.1, 10), (0.5, 1)])
def test_senseless_proportions_are_refused(proportion: float, num_items: int) -> None:
    with pytest.raises(ValueError, match="no standard error"):
        proportion_standard_error(proportion, num_items)


@given(items, st.integers(0, 2**32))
def test_the_interval_is_a_function_of_its_arguments_and_turns_with_the_arms(
    drawn: list[tuple[float, int, float]], seed: int
) -> None:
    a, weights, b = (list(column) for column in zip(*drawn, strict=True))
    interval = paired_bootstrap(a, b, weights, seed=seed, num_resamples=50)
    assert interval == paired_bootstrap(a, b, weights, seed=seed, num_resamples=50)
    low, high, estimate = paired_bootstrap(b, a, weights, seed=seed, num_resamples=50)
    assert interval == pytest.approx((-high, -low, -estimate), abs=1e-9)
    assert interval.estimate == pytest.approx(ratio(a, weights) - ratio(b, weights), abs=1e-9)


@given(items, st.integers(0, 2**32))
def test_equal_items_differ_by_exactly_nothing(
    drawn: list[tuple[float, int, float]], seed: int
) -> None:
    a, weights, _ = (list(column) for column in zip(*drawn, strict=True))
    assert paired_bootstrap(a, a, weights, seed=seed, num_resamples=50) == Interval(0.0, 0.0, 0.0)


def test_on_many_items_it_is_the_normal_interval_of_the_difference() -> None:
    generator = np.random.default_rng(1)
    weights = generator.integers(100, 2000, size=3000)
    hardness = generator.normal(2.0, 0.5, size=3000)  # common to both: pairing must remove it
    a = weights * (hardness + generator.normal(0.02, 0.05, size=3000))
    b = weights * hardness
    interval = paired_bootstrap(a, b, weights, seed=2)
    standard_error = ratio_standard_error(a - b, weights)
    assert standard_error is not None
    assert interval.low == pytest.approx(interval.estimate - 1.96 * standard_error, rel=0.02)
    assert interval.high == pytest.approx(interval.estimate + 1.96 * standard_error, rel=0.02)


def test_on_three_items_it_is_the_exact_enumeration() -> None:
    a, b, weights = [3.0, 5.0, 4.0], [1.0, 6.0, 2.0], [1, 2, 4]
    exact = sorted(
        sum(a[i] - b[i] for i in drawn) / sum(weights[i] for i in drawn)
        for drawn in itertools.product(range(3), repeat=3)
    )
    # 27 equally likely resamples; a tail of 2.5/27 ends inside the third of them at either side.
    interval = paired_bootstrap(
        a, b, weights, seed=3, num_resamples=20_000, confidence=1 - 2 * 2.5 / 27
    )
    assert (interval.low, interval.high) == pytest.approx((exact[2], exact[24]))


def test_chunks_of_resamples_cover_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(4)
    a, b = generator.normal(size=(2, 40))
    monkeypatch.setattr("rewarm.evaluation.statistics._MAX_DRAWS_PER_CHUNK", 90)
    low, high, _ = paired_bootstrap(a, b, np.ones(40), seed=5)
    standard_error = ratio_standard_error(a - b, np.ones(40))
    assert standard_error is not None
    assert (high - low) / (2 * 1.96 * standard_error) == pytest.approx(1.0, abs=0.1)


def test_fewest_items_follow_from_the_sign_test() -> None:
    assert least_items(0.95) == 6
    assert 2.0 ** (1 - 6) <= 0.05 < 2.0 ** (1 - 5)
    assert least_items(0.5) == 2
