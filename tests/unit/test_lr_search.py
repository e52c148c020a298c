"""The rule that picks a rate, against parabolas worked by hand and records made up for it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from rewarm.evaluation.lr_search import (
    LrFinding,
    LrTrial,
    candidate_rates,
    find_rate,
    try_rate,
)
from rewarm.evaluation.statistics import bootstrap_ratios, paired_bootstrap
from rewarm.records.facts import EvalRecord

RATES = (3.16e-4, 1e-3, 3.16e-3)
NUM_DOCUMENTS = 20
BYTES = 100


def record(
    step: int, domain: str, bits_per_byte: float, noise: Sequence[float] | None = None
) -> EvalRecord:
    """Return a record of equally long documents that differ from the figure by `noise`."""
    noise = [0.0] * NUM_DOCUMENTS if noise is None else noise
    nats = [(bits_per_byte + one) * math.log(2) * BYTES for one in noise]
    return EvalRecord(
        step=step,
        domain=domain,
        role="replay" if domain.startswith("old") else "new",
        metric="bits_per_byte",
        value=sum(nats) / (math.log(2) * BYTES * len(nats)),
        standard_error=None,
        item_values=tuple(nats),
        item_weights=(BYTES,) * len(nats),
        items_key=domain,
        seconds=0.0,
    )


def run(
    old: float | None, new: float | None, *, half_way: float = 0.0, noise: Sequence[float] = ()
) -> list[EvalRecord]:
    """Return the records of a run that ended so much above the base's 2 bits per byte."""
    spread = list(noise) or None
    records = []
    for domain, change in (("old", old), ("new", new)):
        if change is not None:
            records += [
                record(0, domain, 2.0),
                record(20, domain, 2.0 + half_way * change),
                record(40, domain, 2.0 + change, spread),
            ]
    return records


def found(*runs: list[EvalRecord], seed: int = 1) -> LrFinding:
    first, second, third = (
        try_rate(rate, records) for rate, records in zip(RATES, runs, strict=True)
    )
    return find_rate((first, second, third), (runs[0], runs[1], runs[2]), seed=seed)


def test_candidates_lie_a_root_of_ten_apart() -> None:
    assert candidate_rates(3e-5) == (9.49e-6, 3e-5, 9.49e-5)


@pytest.mark.parametrize("around", [3e-5, 1.2349e-5, 2.6651e-4, 9.9951e-6, 1e-3 / 7])
def test_the_next_three_share_a_rate_with_these(around: float) -> None:
    low, middle, high = candidate_rates(around)
    assert candidate_rates(middle * 10)[0] == high
    assert candidate_rates(middle / 10)[2] == low


def test_a_trial_weighs_old_against_new() -> None:
    trial = try_rate(1e-3, run(0.3, -0.5, half_way=1.0))
    assert trial.old == pytest.approx(0.3)
    assert trial.new == pytest.approx(-0.5)
    assert trial.score == pytest.approx(-0.1)
    assert not trial.old_is_rising


def test_domains_of_one_kind_count_as_one() -> None:
    records = [
        *(record(0, name, 2.0) for name in ("old a", "old b", "new")),
        *(record(40, name, value) for name, value in (("old a", 2.4), ("old b", 2.2))),
        record(40, "new", 1.5),
    ]
    trial = try_rate(1e-3, records)
    assert trial.old == pytest.approx(0.3)
    assert trial.score == pytest.approx(-0.1)


@pytest.mark.parametrize(("half_way", "rising"), [(0.5, True), (0.98, False), (1.4, False)])
def test_old_loss_that_still_rises_is_seen(half_way: float, rising: bool) -> None:
    assert try_rate(1e-3, run(0.3, -0.5, half_way=half_way)).old_is_rising == rising


def test_nothing_measured_is_nothing_to_score() -> None:
    with pytest.raises(ValueError, match="no held-out text"):
        try_rate(1e-3, run(None, None))


def test_the_minimum_of_a_parabola_by_hand() -> None:
    # Scores −0.1, −0.3, −0.2: t = (−0.1 + 0.2)/(2 (−0.1 + 0.6 − 0.2)) = 1/6 of a step of √10.
    finding = found(run(0.1, -0.3), run(0.2, -0.8), run(0.6, -1.0))
    assert [trial.score for trial in finding.trials] == pytest.approx([-0.1, -0.3, -0.2])
    assert finding.outcome == "inside"
    assert finding.rate == pytest.approx(1e-3 * 10 ** (0.5 / 6), rel=1e-2)
    assert finding.rate == 1.21e-3
    assert finding.next_rates is None
    assert finding.agreement == 1.0  # every document says the same
    assert (finding.low, finding.high) == (1.21e-3, 1.21e-3)


@pytest.mark.parametrize("scores", [(0.2, 0.0, 0.1), (0.05, -0.2, -0.15), (-0.3, -0.31, 0.4)])
def test_the_minimum_is_that_of_a_least_squares_parabola(scores: tuple[float, ...]) -> None:
    x = np.log10(RATES)
    a, b, _ = np.polyfit(x, scores, 2)
    finding = found(*(run(score, score) for score in scores))
    assert finding.rate == pytest.approx(10 ** (-b / (2 * a)), rel=0.02)


@pytest.mark.parametrize(
    ("scores", "outcome", "following"),
    [
        ((-0.5, -0.3, -0.1), "below", (3.16e-5, 1e-4, 3.16e-4)),
        ((-0.1, -0.3, -0.5), "above", (3.16e-3, 1e-2, 3.16e-2)),
        # Bent the wrong way, the better end counts.
        ((-0.4, 0.3, -0.5), "above", (3.16e-3, 1e-2, 3.16e-2)),
        # Opens upwards, but its minimum lies further than a step beyond.
        ((-0.50, -0.45, -0.38), "below", (3.16e-5, 1e-4, 3.16e-4)),
    ],
)
def test_a_minimum_beyond_the_three_is_looked_for_there(
    scores: tuple[float, ...], outcome: str, following: tuple[float, ...]
) -> None:
    finding = found(*(run(score, score) for score in scores))
    assert finding.outcome == outcome
    assert finding.rate is None
    assert finding.next_rates == following
    assert finding.low is None


def test_differences_that_do_not_count_leave_the_middle_rate() -> None:
    finding = found(run(0.0, -0.200), run(0.0, -0.204), run(0.0, -0.212))
    assert finding.outcome == "flat"
    assert finding.rate == 1e-3


def test_documents_that_disagree_make_the_answer_unsure() -> None:
    rng = np.random.default_rng(0)
    noisy = [rng.normal(0, 1.0, NUM_DOCUMENTS) for _ in RATES]
    runs = [
        run(None, change, noise=list(noise))
        for change, noise in zip((-0.30, -0.35, -0.32), noisy, strict=True)
    ]
    finding = found(*runs)
    assert finding.agreement is not None
    assert finding.agreement < 0.95
    assert any("not resolved" in remark for remark in finding.remarks)
    assert found(*runs).agreement == finding.agreement


def test_noise_that_all_rates_share_does_not_matter() -> None:
    """A document that is hard is hard at every rate: the comparison is paired."""
    shared = list(np.random.default_rng(1).normal(0, 1.0, NUM_DOCUMENTS))
    finding = found(*(run(None, change, noise=shared) for change in (-0.1, -0.3, -0.2)))
    assert finding.agreement == 1.0


def test_few_documents_say_nothing_of_the_uncertainty() -> None:
    few = [0.0] * 5
    runs = [
        [record(0, "new", 2.0, few), record(40, "new", 2.0 + change, few)]
        for change in (-0.1, -0.3, -0.2)
    ]
    finding = found(*runs)
    assert finding.outcome == "inside"
    assert finding.agreement is None
    assert any("how sure this is cannot be said" in remark for remark in finding.remarks)


def test_what_was_not_measured_is_said() -> None:
    finding = found(*(run(None, change) for change in (-0.1, -0.3, -0.2)))
    assert any("no old text was measured" in remark for remark in finding.remarks)
    finding = found(*(run(change, None) for change in (0.4, 0.1, 0.2)))
    assert any("no new text was measured" in remark for remark in finding.remarks)
    finding = found(*(run(0.1, change) for change in (0.4, 0.1, 0.2)))
    assert any("no rate improved on the new text" in remark for remark in finding.remarks)


@pytest.mark.parametrize(
    ("scores", "outcome", "rate"),
    [((-0.1, -0.3, None), "inside", 1e-3), ((-0.3, -0.1, None), "below", None)],
)
def test_beside_a_run_that_diverged_the_best_of_the_others_counts(
    scores: tuple[float | None, ...], outcome: str, rate: float | None
) -> None:
    runs = [[] if score is None else run(score, score) for score in scores]
    trials = [
        try_rate(one, records) if records else LrTrial.of_divergence(one)
        for one, records in zip(RATES, runs, strict=True)
    ]
    finding = find_rate((trials[0], trials[1], trials[2]), (runs[0], runs[1], runs[2]), seed=1)
    assert finding.outcome == outcome
    assert finding.rate == rate
    assert finding.agreement is None
    assert "0.00316 diverged" in finding.remarks[0]


def test_runs_that_scored_different_documents_are_not_compared() -> None:
    runs = [run(0.1, change) for change in (-0.1, -0.3, -0.2)]
    runs[2] = [one.model_copy(update={"items_key": "other"}) for one in runs[2]]
    with pytest.raises(ValueError, match="different documents of 'old'"):
        found(*runs)


# The statistics under it


def test_ratios_of_resamples_are_those_of_the_paired_interval() -> None:
    rng = np.random.default_rng(3)
    weights = rng.integers(1, 50, 30)
    a, b = rng.random(30) * weights, rng.random(30) * weights
    ratios = bootstrap_ratios([a, b], weights, seed=7)
    low, high = np.quantile(ratios[0] - ratios[1], [0.025, 0.975])
    interval = paired_bootstrap(a, b, weights, seed=7)
    assert low == pytest.approx(interval.low)
    assert high == pytest.approx(interval.high)


def test_one_item_has_one_ratio() -> None:
    assert bootstrap_ratios([[3.0], [5.0]], [2], seed=0, num_resamples=3).tolist() == [
        [1.5, 1.5, 1.5],
        [2.5, 2.5, 2.5],
    ]


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="measurements by items"):
        bootstrap_ratios([1.0, 2.0], [1, 1], seed=0)
    with pytest.raises(ValueError, match="equally long"):
        bootstrap_ratios([[1.0, 2.0]], [1], seed=0)
