"""The mixture law's section is what was measured, and its arms are the German experiment's."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "reproduction"))

import law  # noqa: E402
import table  # noqa: E402

from rewarm.evaluation.mixture_law import Prediction  # noqa: E402
from rewarm.records.comparison import ComparisonResult  # noqa: E402


@pytest.fixture(scope="module")
def result() -> law.LawResult:
    return law.LawResult.model_validate_json((table.RESULTS / "law.json").read_text("utf-8"))


def test_the_page_says_what_was_measured(result: law.LawResult) -> None:
    page = table.README.read_text(encoding="utf-8")
    assert table.between(page, law.BEGIN, law.END, law.section(result)) == page
    assert (table.RESULTS / "law.svg").read_text(encoding="utf-8") == law.figure(result.laws[0])


def test_the_law_is_held_to_the_arms_as_they_were_measured(result: law.LawResult) -> None:
    text = (table.RESULTS / "german.json").read_text(encoding="utf-8")
    values = {(run["arm"], run["seed"]): run["values"] for run in json.loads(text)["runs"]}
    names = {0.0: "naive", 0.01: "replay-1", 0.05: "replay-5", 0.25: "replay-25", 0.5: "replay-50"}
    for one in result.laws:
        for arm in one.arms:
            came = values[names[arm.replay], one.seed]
            expected = came["forgetting"] if arm.side == "old" else -came["adaptation"]
            assert arm.measured == expected
        again = law.held_to_arms(one.finding, one.seed, ComparisonResult.model_validate_json(text))
        for arm, same in zip(one.arms, again.arms, strict=True):
            assert same.predicted.estimate == pytest.approx(arm.predicted.estimate, abs=1e-3)
            assert same.predicted.low == pytest.approx(arm.predicted.low, abs=1e-2)


def test_what_lies_outside_is_marked() -> None:
    said = Prediction(estimate=0.1, low=0.0, high=0.2)
    assert law._said(0.1, said).count("(outside)") == 0
    assert "0.000\u00a0to\u00a0+0.200 (outside) | −0.200" in law._said(0.3, said)
    arms = [
        law.HeldArm(seed=1, replay=0.0, side=side, measured=came, predicted=said)
        for side in ("old", "new")
        for came in (0.1, 0.3)
    ]
    assert law._told(arms).startswith("of old text 1 of 2 lie in their intervals, and the mean")
    assert "mean error is 0.100 bits per byte" in law._told(arms)
