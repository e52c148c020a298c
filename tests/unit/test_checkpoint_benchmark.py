"""What a save keeps the steps waiting for: both ways have the goal, and each is some runs' own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rewarm.training.run import _saves_in_background
from tests.support.tiny_plans import make_placement, make_plan

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def blocking(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import checkpoint_blocking

    return checkpoint_blocking


def test_a_save_a_minute_has_its_goal_both_ways(blocking: Any) -> None:
    figures = blocking.figures_of(10**6, 3.0, 0.6, 0.5)
    minute = {figure.name: figure for figure in figures if figure.versus == "60 s"}
    assert {name: figure.value for name, figure in minute.items()} == {
        "a save at once, once a minute": pytest.approx(0.05),
        "wait for a save in the background, once a minute": pytest.approx(0.01),
    }
    assert all(figure.goal == 0.05 and figure.better == "lower" for figure in minute.values())
    names = [(figure.name, figure.versus) for figure in figures]
    assert len(names) == len(set(names))


def test_the_record_has_what_the_benchmark_writes(blocking: Any) -> None:
    """The share of a minute at once was written later, from the same row's seconds."""
    path = BENCHMARKS / "results" / "checkpoint_blocking.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    took = {(row["name"], row["versus"]): row["value"] for row in rows}
    at_once = took["a save at once", ""]
    waits = "wait for a save in the background"
    background = took[waits, "at once"] * at_once
    copy = background / took[waits, "one copy in memory"]
    figures = blocking.figures_of(round(took["state", ""] * 1e6), at_once, background, copy)
    assert [(figure.name, figure.versus) for figure in figures] == list(took)
    for figure in figures:
        assert took[figure.name, figure.versus] == pytest.approx(figure.value), figure.name


@pytest.mark.parametrize(
    ("device", "num_ranks", "background"),
    [("cpu", 1, False), ("cpu", 2, True), ("cuda", 1, True)],
)
def test_which_way_is_whose(device: str, num_ranks: int, background: bool) -> None:
    placement = make_placement().model_copy(update={"device": device, "world_size": num_ranks})
    assert _saves_in_background(make_plan(), placement) is background
