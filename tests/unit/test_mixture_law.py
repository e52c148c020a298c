"""The law of replay: found again from runs that follow it, wide where they do not tell, by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rewarm.evaluation.mixture_law import (
    FEWEST_RUNS,
    LawDraws,
    Measured,
    fit_law,
    recommend_share,
)
from rewarm.evaluation.replay_search import CHECK_SHARE, SHARES, ReplayTrial, find_share

LENGTHS = (200_000, 400_000, 800_000)
SPREAD = 0.004


class Truth:
    """A law of its own kind: no value of it lies on the grid that is searched."""

    def __init__(self, generator: np.random.Generator) -> None:
        uniform = generator.uniform
        self.level, self.data, self.scarcity = uniform(-1, 1), uniform(0.1, 0.5), uniform(0.02, 0.2)
        self.beta, self.eta = uniform(0.1, 0.6), uniform(0.0, 1.0)
        self.gamma, self.epsilon = uniform(0.2, 1.2), uniform(0.005, 0.2)

    def loss(self, share: float, tokens: float) -> float:
        data = self.data * share**self.eta / (tokens / 1e6) ** self.beta
        return float(self.level + data + self.scarcity / (share + self.epsilon) ** self.gamma)

    def measured(
        self, generator: np.random.Generator, share: float, tokens: float, spread: float = SPREAD
    ) -> Measured:
        noise = spread * float(generator.standard_normal())
        return Measured(
            share=share,
            num_tokens=int(tokens),
            loss=self.loss(share, tokens) + noise,
            standard_error=spread / 2,
        )

    def runs(self, generator: np.random.Generator, spread: float = SPREAD) -> list[Measured]:
        places = itertools.product(SHARES, LENGTHS)
        return [self.measured(generator, *place, spread) for place in places]


@pytest.mark.parametrize(("factor", "least"), [(2, 0.88), (10, 0.8)])
def test_intervals_hold_what_they_say(factor: int, least: float) -> None:
    """Of 100 laws with noise a run that was not seen lies in its 95 % interval, nearly as often."""
    generator = np.random.default_rng(7)
    held, width = 0, []
    for _ in range(100):
        truth = Truth(generator)
        law = fit_law(truth.runs(generator), seed=1)
        tokens = factor * LENGTHS[-1]
        said = law.predict(CHECK_SHARE, tokens)
        held += said.low <= truth.measured(generator, CHECK_SHARE, tokens).loss <= said.high
        width.append(said.high - said.low)
    assert held >= 100 * least
    # An interval that holds everything says nothing.
    assert float(np.median(width)) < 0.15


def test_without_noise_the_law_is_found_again() -> None:
    generator = np.random.default_rng(3)
    errors = []
    for _ in range(20):
        truth = Truth(generator)
        law = fit_law(truth.runs(generator, spread=0.0), seed=1)
        said = law.predict(CHECK_SHARE, 2 * LENGTHS[-1])
        errors.append(abs(said.estimate - truth.loss(CHECK_SHARE, 2 * LENGTHS[-1])))
    assert float(np.median(errors)) < 0.01


def test_coefficients_are_those_of_least_squares() -> None:
    """Exact data of a law on the grid: every draw is that law, worked out by hand."""
    runs = [
        Measured(
            share=share,
            num_tokens=tokens,
            loss=0.5 + 0.3 * share**0.5 / (tokens / 400_000) ** 0.32 + 0.02 / (share + 0.08) ** 1.1,
            standard_error=0.0,
        )
        for share, tokens in itertools.product(SHARES, LENGTHS)
    ]
    law = fit_law(runs, seed=1)
    # share 0.25, 1.6M tokens: 0.5 + 0.3·0.5/4^0.32 + 0.02/0.33^1.1; 4^0.32 = 1.5583, 0.33^1.1 =
    # 0.2954
    said = law.predict(0.25, 1_600_000)
    assert said.estimate == pytest.approx(0.5 + 0.15 / 1.5583 + 0.02 / 0.2954, abs=1e-3)
    assert said.high - said.low < 1e-3


def test_noise_of_the_evaluation_widens_what_is_said() -> None:
    """Points that lie on a law by luck are not believed beyond their documents' noise."""
    generator = np.random.default_rng(5)
    widths = []
    for _ in range(10):
        runs = Truth(generator).runs(generator, spread=0.0)
        noisy = [run.model_copy(update={"standard_error": 0.02}) for run in runs]
        said = [fit_law(each, seed=1).predict(CHECK_SHARE, 1_600_000) for each in (runs, noisy)]
        widths.append([one.high - one.low for one in said])
    sure, unsure = np.median(widths, axis=0)
    assert unsure > 0.08  # four standard errors
    assert unsure > 3 * sure


def test_further_on_it_is_less_sure() -> None:
    generator = np.random.default_rng(11)
    widths = []
    for _ in range(10):
        law = fit_law(Truth(generator).runs(generator), seed=1)
        said = [law.predict(0.1, LENGTHS[-1] * factor) for factor in (1, 4, 16, 64)]
        widths.append([one.high - one.low for one in said])
    medians = np.median(widths, axis=0)
    assert (np.diff(medians) > 0).all()
    assert medians[-1] > 1.2 * medians[0]


def test_the_seed_alone_decides() -> None:
    generator = np.random.default_rng(2)
    runs = Truth(generator).runs(generator)
    assert fit_law(runs, seed=1).predict(0.1, 1e6) == fit_law(runs, seed=1).predict(0.1, 1e6)


def test_too_few_runs_fit_no_law() -> None:
    generator = np.random.default_rng(2)
    runs = Truth(generator).runs(generator)
    with pytest.raises(ValueError, match=f"a law needs {FEWEST_RUNS}"):
        fit_law(runs[: FEWEST_RUNS - 1], seed=1)
    with pytest.raises(ValueError, match="three shares"):
        fit_law([runs[0]] * 8, seed=1)


def law_of(linear: list[list[float]]) -> LawDraws:
    """Laws E + C/(r + 0.1) without noise: what they need can be worked out by hand."""
    number = len(linear)
    one = np.ones(number)
    return LawDraws(
        0.1 * one, 0 * one, one, 0.1 * one, np.array([[e, 0.0, c] for e, c in linear]), 0 * one, 1e6
    )


def test_the_share_is_the_least_within_the_tolerance() -> None:
    """−0.1 + 0.03/(r + 0.1) ≤ 0.05 from r = 0.1 on; the others need 0.2/…: r = 0.05 and 0.35."""
    old = law_of([[-0.1, 0.03]] * 98 + [[-0.1, 0.0225]] + [[-0.1, 0.0675]])
    new = law_of([[-0.5, 0.0]] * 100)
    found = recommend_share(old, new, tolerance=0.05, num_tokens=1_000_000)
    assert found.share == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1)
    assert found.old is not None
    assert found.old.estimate == pytest.approx(0.05)
    assert found.new is not None
    assert found.new.estimate == pytest.approx(-0.5)
    spread = law_of([[-0.1, 0.03]] * 50 + [[-0.1, 0.0225]] * 25 + [[-0.1, 0.0675]] * 25)
    unsure = recommend_share(spread, law_of([[-0.5, 0.0]] * 100), tolerance=0.05, num_tokens=10**6)
    assert unsure.low == pytest.approx(0.05)
    assert unsure.high == pytest.approx(0.35)


def test_no_replay_where_nothing_is_forgotten_and_none_where_all_is_too_little() -> None:
    new = law_of([[-0.5, 0.0]] * 10)
    nothing = recommend_share(law_of([[0.0, 0.0]] * 10), new, tolerance=0.05, num_tokens=10**6)
    assert nothing.share == 0.0
    never = recommend_share(law_of([[0.2, 0.1]] * 10), new, tolerance=0.05, num_tokens=10**6)
    assert never.share is None
    assert never.old is None


def trials(wrong_by: float = 0.0) -> tuple[list[ReplayTrial], ReplayTrial]:
    generator = np.random.default_rng(4)
    old, new = Truth(generator), Truth(generator)

    def run(share: float, tokens: int) -> ReplayTrial:
        return ReplayTrial(
            replay=share,
            num_tokens=tokens,
            old=old.measured(generator, share, tokens),
            new=new.measured(generator, 1 - share, tokens),
        )

    unseen = run(CHECK_SHARE, 1_600_000)
    assert unseen.old is not None
    off = unseen.old.model_copy(update={"loss": unseen.old.loss + wrong_by})
    fitted = [run(*place) for place in itertools.product(SHARES, LENGTHS)]
    return fitted, unseen.model_copy(update={"old": off})


def test_a_law_is_held_against_a_run_that_it_has_not_seen() -> None:
    fitted, unseen = trials()
    found = find_share(fitted, unseen, tolerance=0.05, num_tokens=3_000_000, seed=1)
    assert found.check is not None
    assert found.check.is_within
    assert found.tokens_spent == 4 * sum(LENGTHS) + 1_600_000
    fitted, far = trials(wrong_by=0.5)
    off = find_share(fitted, far, tolerance=0.05, num_tokens=3_000_000, seed=1)
    assert off.check is not None
    # What it was held against did not enter what was said of it.
    assert off.check.old_predicted == found.check.old_predicted
    assert not off.check.is_within
    assert any("outside of its interval" in remark for remark in off.remarks)


def test_runs_that_diverged_are_left_out() -> None:
    fitted, unseen = trials()
    fitted[0] = fitted[0].model_copy(update={"old": None, "new": None})
    lost = unseen.model_copy(update={"old": None, "new": None})
    found = find_share(fitted, lost, tolerance=0.05, num_tokens=3_000_000, seed=1)
    assert found.check is None
    assert any("they diverged: the runs at 0% of 200,000" in remark for remark in found.remarks)
    assert any("nobody knows" in remark for remark in found.remarks)
