"""Student's t by an integral, paired means, Holm, detectable effects: by hand and against scipy."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewarm.comparison.paired import (
    holm,
    inside_p,
    interval_at,
    paired_mean,
    smallest_detectable,
)
from rewarm.comparison.student import (
    detectable_in_errors,
    margin_in_errors,
    noncentral_t_cdf,
    t_quantile,
    two_sided_p,
)

stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle here")
integrate = pytest.importorskip("scipy.integrate", reason="scipy is the oracle here")


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 19, 60, 200])
@pytest.mark.parametrize("t", [-300.0, -4.3, -0.5, 0.0, 0.7, 2.78, 12.7, 1e4])
def test_the_central_t_is_scipys(t: float, degrees: int) -> None:
    assert noncentral_t_cdf(t, degrees) == pytest.approx(stats.t.cdf(t, degrees), rel=1e-9)
    assert two_sided_p(t, degrees) == pytest.approx(2 * stats.t.sf(abs(t), degrees), rel=1e-9)


@pytest.mark.parametrize("degrees", [1, 2, 4, 9, 40])
@pytest.mark.parametrize("shift", [-2.0, 0.3, 3.0, 6.5])
@pytest.mark.parametrize("t", [-4.3, 0.0, 2.1, 4.3, 31.8])
def test_the_noncentral_t_is_scipys(t: float, degrees: int, shift: float) -> None:
    assert noncentral_t_cdf(t, degrees, shift) == pytest.approx(
        stats.nct.cdf(t, degrees, shift), abs=2e-9
    )


@pytest.mark.parametrize("degrees", [1, 2, 4, 30])
@pytest.mark.parametrize("probability", [0.001, 0.2, 0.5, 0.8, 0.975, 0.9995])
def test_quantiles_are_scipys(probability: float, degrees: int) -> None:
    expected = stats.t.ppf(probability, degrees)
    assert t_quantile(probability, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_quantiles_of_the_printed_tables() -> None:
    # Student's table, 0.975.
    printed = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262}
    for degrees, value in printed.items():
        assert round(t_quantile(0.975, degrees), 3) == value


@pytest.mark.parametrize("level", [0.05, 0.05 / 6])
@pytest.mark.parametrize("num_pairs", [2, 3, 5, 10])
def test_the_detectable_effect_has_the_power_that_it_says(num_pairs: int, level: float) -> None:
    shift = detectable_in_errors(num_pairs, level=level)
    degrees = num_pairs - 1
    threshold = stats.t.ppf(1 - level / 2, degrees)
    power = stats.nct.sf(threshold, degrees, shift)  # the other tail is below 1e-6
    assert power == pytest.approx(0.8, abs=2e-6)


def test_three_and_five_seeds() -> None:
    # What the design notes of paired seeds say: 5.7 and 3.8 standard errors.
    assert detectable_in_errors(3) == pytest.approx(5.7, abs=0.05)
    assert detectable_in_errors(5) == pytest.approx(3.8, abs=0.05)
    # sd 0.03 of 4 pairs: SE 0.015.
    assert smallest_detectable(0.03, 4) == pytest.approx(0.015 * detectable_in_errors(4))


def test_power_by_simulation() -> None:
    """Independent of any formula of the noncentral t: normal pairs that are that far apart."""
    generator = np.random.default_rng(0)
    shift = detectable_in_errors(4) / 2  # in sd: SE = sd/√4
    drawn = generator.normal(loc=shift, size=(40_000, 4))
    means, errors = drawn.mean(axis=1), drawn.std(axis=1, ddof=1) / 2
    found = np.mean(np.abs(means / errors) >= 3.182446)
    assert found == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("level", [0.05, 0.05 / 22])
@pytest.mark.parametrize("num_pairs", [2, 3, 5, 10])
def test_the_margin_of_one_test_has_the_power_that_it_says(num_pairs: int, level: float) -> None:
    shift = margin_in_errors(num_pairs, num_ends=1, level=level)
    degrees = num_pairs - 1
    power = stats.nct.sf(stats.t.ppf(1 - level, degrees), degrees, shift)
    assert power == pytest.approx(0.8, abs=1e-7)


@pytest.mark.parametrize("level", [0.05, 0.05 / 22])
@pytest.mark.parametrize("num_pairs", [2, 3, 5, 10])
def test_the_margin_of_two_tests_has_the_power_that_it_says(num_pairs: int, level: float) -> None:
    """Both tests have the same spread: by scipy's χ and adaptive quadrature over it."""
    shift = margin_in_errors(num_pairs, num_ends=2, level=level)
    degrees = num_pairs - 1
    threshold, root = stats.t.ppf(1 - level, degrees), math.sqrt(degrees)

    def density(s: float) -> float:
        inside = 2 * stats.norm.cdf(shift - threshold * s) - 1
        return float(inside * stats.chi.pdf(s * root, degrees) * root)

    power, _ = integrate.quad(density, 0, shift / threshold, epsabs=1e-11, limit=200)
    assert power == pytest.approx(0.8, abs=1e-9)


def test_margins_of_many_pairs_are_those_of_the_normal() -> None:
    # z(0.95) = 1.6449; one end asks for z(0.8) = 0.8416 beside it, two ends for z(0.9) = 1.2816.
    assert margin_in_errors(20_000, num_ends=1) == pytest.approx(1.6449 + 0.8416, abs=1e-3)
    assert margin_in_errors(20_000, num_ends=2) == pytest.approx(1.6449 + 1.2816, abs=1e-3)


@pytest.mark.parametrize(("num_ends", "lowest"), [(1, -math.inf), (2, -1.0)])
def test_the_power_of_a_margin_by_simulation(num_ends: int, lowest: float) -> None:
    """Independent of any formula: three normal pairs without a difference, and the tests made."""
    margin = margin_in_errors(3, num_ends=num_ends) / math.sqrt(3)  # in sd
    drawn = np.random.default_rng(0).normal(size=(40_000, 3))
    means, reach = drawn.mean(axis=1), 2.919986 * drawn.std(axis=1, ddof=1) / math.sqrt(3)
    found = np.mean((means + reach <= margin) & (means - reach >= lowest * margin))
    assert found == pytest.approx(0.8, abs=0.01)  # its standard error is 0.002


def test_what_is_detectable_goes_by_the_claim() -> None:
    # sd 0.03 of 3 pairs: SE 0.017321. By the tables above: 5.653, 3.979 and 4.607 of them.
    assert smallest_detectable(0.03, 3) == pytest.approx(0.09791, abs=2e-5)
    assert smallest_detectable(0.03, 3, num_ends=1) == pytest.approx(0.06892, abs=2e-5)
    assert smallest_detectable(0.03, 3, num_ends=2) == pytest.approx(0.07980, abs=2e-5)


def test_a_paired_mean_by_hand() -> None:
    # 1, 2, 3, 6: mean 3, squares of deviations 4 + 1 + 0 + 9 = 14, sd √(14/3) = 2.1602,
    # SE 1.0801, t(0.975; 3) = 3.1824, so 3 ± 3.4374; t = 2.7775.
    found = paired_mean([1.0, 2.0, 3.0, 6.0])
    assert found.mean == 3.0
    assert found.sd == pytest.approx(2.160247)
    assert (found.low, found.high) == pytest.approx((-0.43739, 6.43739), abs=1e-4)
    assert found.p == pytest.approx(stats.ttest_1samp([1, 2, 3, 6], 0).pvalue, rel=1e-9)


def test_one_pair_has_no_interval_and_none_has_no_mean() -> None:
    assert paired_mean([0.25]) == (0.25, None, None, None, None)
    with pytest.raises(ValueError, match="no pair"):
        paired_mean([])


def test_differences_without_spread_are_tested_by_their_signs() -> None:
    """An sd of nothing, or of rounding, would make any difference certain."""
    assert paired_mean([0.0, 0.0, 0.0]) == (0.0, 0.0, None, None, 1.0)
    # Two digits of 750 images more in each of three seeds, as they were measured.
    by_chance = [0.002666666666666595, 0.002666666666666928, 0.002666666666666484]
    found = paired_mean(by_chance)
    assert (found.sd, found.low, found.high) == (0.0, None, None)
    assert found.p == stats.binomtest(3, 3).pvalue == 0.25
    # Values of 3 bits that are the same but for their last digits.
    assert paired_mean([4e-16, -4e-16, 0.0], scale=3.0)[1:] == (0.0, None, None, 1.0)
    assert (paired_mean([4e-16, -4e-16, 1e-16]).sd or 0.0) > 0.0
    # Six of one sign are enough for 95 %.
    assert paired_mean([0.5] * 6) == (0.5, 0.0, 0.5, 0.5, stats.binomtest(6, 6).pvalue)
    assert paired_mean([0.5] * 5).low is None


def test_a_margin_without_spread_is_tested_by_signs() -> None:
    assert inside_p([0.0, 0.0], -0.1, 0.1) == 0.25
    assert inside_p([0.2, 0.2], -0.1, 0.1) == 1.0
    one_sided = stats.binomtest(5, 5, alternative="greater").pvalue
    assert inside_p([0.05] * 5, -0.1, 0.1) == one_sided
    assert inside_p([3.0, 3.0 + 1e-13], -9.0, 9.0, scale=3.0) == 0.25
    assert interval_at([0.3] * 3, 0.95) == (-math.inf, math.inf)
    assert interval_at([0.3] * 3, 0.75) == (0.3, 0.3)


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.5: × 4, × 3, × 2, × 1 = 0.04, 0.06, 0.06, 0.5, made to rise.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.02, 0.03]) == pytest.approx([0.04, 0.04])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_least_level_at_which_the_steps_reject(p_values: list[float]) -> None:
    """The procedure as it is stated: go on while p_(k) ≤ α/(m − k); each is rejected at that α."""
    for index, adjusted in enumerate(holm(p_values)):
        if adjusted < 1.0:
            assert index in _rejected(p_values, adjusted * (1 + 1e-9) + 1e-12)
        if adjusted > 1e-6:
            assert index not in _rejected(p_values, adjusted * (1 - 1e-6))


def _rejected(p_values: list[float], level: float) -> set[int]:
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    found: set[int] = set()
    for rank, index in enumerate(order):
        if p_values[index] > level / (len(order) - rank):
            break
        found.add(index)
    return found


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=6), st.floats(0.05, 2))
def test_equivalence_is_the_90_percent_interval(differences: list[float], within: float) -> None:
    if np.std(differences) < 1e-6:
        return
    low, high = interval_at(differences, 0.9)
    # At the very edge rounding decides.
    if min(abs(high - within), abs(low + within)) > 1e-9:
        inside = -within < low and high < within
        assert (inside_p(differences, -within, within) <= 0.05) == inside


def test_equivalence_against_scipys_one_sided_tests() -> None:
    differences, within = [0.01, -0.02, 0.03, 0.0], 0.05
    above = stats.ttest_1samp(differences, -within, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, within, alternative="less").pvalue
    assert inside_p(differences, -within, within) == pytest.approx(max(above, below), rel=1e-9)


def test_no_worse_by_hand() -> None:
    # 0.01, 0.02, 0.03: mean 0.02, SE 0.01/√3. To 0.05 that is t = −0.03 √3/0.01 = −√27, and of two
    # degrees P(T ≤ t) = 1/2 + t/(2 √(2 + t²)) = 1/2 − √27/(2 √29) = 0.017549.
    differences = [0.01, 0.02, 0.03]
    assert inside_p(differences, -math.inf, 0.05) == pytest.approx(0.0175494, abs=1e-7)
    # To −0.05 it is t = 0.07 √3/0.01 = √147: 1/2 − √147/(2 √149) = 0.003367.
    assert inside_p(differences, -0.05, math.inf) == pytest.approx(0.0033670, abs=1e-7)
    assert inside_p([0.04, 0.04], -math.inf, 0.05) == 0.25
    assert inside_p([0.06, 0.06], -math.inf, 0.05) == 1.0
    assert inside_p([-9.0, -9.0], -math.inf, 0.05) == 0.25


_DIFFERENCES = st.lists(st.floats(-1, 1), min_size=2, max_size=6).filter(
    lambda differences: float(np.std(differences)) > 1e-6
)


@given(_DIFFERENCES, st.floats(0.01, 2))
def test_no_worse_is_scipys_one_sided_test(differences: list[float], within: float) -> None:
    less = stats.ttest_1samp(differences, within, alternative="less").pvalue
    assert inside_p(differences, -math.inf, within) == pytest.approx(less, rel=1e-7, abs=1e-12)
    greater = stats.ttest_1samp(differences, -within, alternative="greater").pvalue
    assert inside_p(differences, -within, math.inf) == pytest.approx(greater, rel=1e-7, abs=1e-12)


@given(_DIFFERENCES, st.floats(0.01, 2), st.floats(0, 1))
def test_no_worse_is_half_of_equality(differences: list[float], within: float, more: float) -> None:
    """Both halves are equality; turned around it is the other half; a wider margin is easier."""
    not_higher = inside_p(differences, -math.inf, within)
    not_lower = inside_p(differences, -within, math.inf)
    assert inside_p(differences, -within, within) == max(not_higher, not_lower)
    turned = [-difference for difference in differences]
    assert inside_p(turned, -within, math.inf) == pytest.approx(not_higher, rel=1e-9, abs=1e-14)
    assert inside_p(differences, -math.inf, within + more) <= not_higher + 1e-12
    # α = 5 % is where the 90 % interval ends below the margin; at the very edge rounding decides.
    _, high = interval_at(differences, 0.9)
    if abs(high - within) > 1e-9:
        assert (not_higher <= 0.05) == (high < within)


@pytest.mark.parametrize(
    "ask",
    [partial(t_quantile, 1.0, 3), partial(detectable_in_errors, 1), partial(two_sided_p, 1, 0)],
)
def test_impossible_questions(ask: Callable[[], float]) -> None:
    with pytest.raises(ValueError, match=r"no quantile|no t test|degrees"):
        ask()


def test_the_middle_is_zero() -> None:
    assert math.isclose(t_quantile(0.5, 3), 0.0, abs_tol=1e-12)
