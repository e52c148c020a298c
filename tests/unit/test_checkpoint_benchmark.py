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


def test_the_figures_of_some_seconds_by_hand(blocking: Any) -> None:
    """A state of a million bytes; at once 3 s, in the background 0.6 s, a copy 0.5 s."""
    figures = blocking.figures_of(10**6, 3.0, 0.6, 0.5)
    waits = "wait for a save in the background"
    assert [(f.name, f.versus, f.unit, f.goal) for f in figures] == [
        ("state", "", "MB", None),
        ("a save at once", "", "s", None),
        ("a save at once, once a minute", "60 s", "", 0.05),
        (waits, "at once", "", 0.2),
        (waits, "one copy in memory", "", 2.0),
        (f"{waits}, once a minute", "60 s", "", 0.05),
    ]
    assert [f.value for f in figures] == pytest.approx([1.0, 3.0, 0.05, 0.2, 1.2, 0.01])
    assert all(figure.better == "lower" for figure in figures)


def test_the_record_is_of_one_measurement(blocking: Any) -> None:
    """Its shares of a minute are those of the seconds in its other rows, and it has all rows."""
    path = BENCHMARKS / "results" / "checkpoint_blocking.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    keys = ("name", "versus", "unit", "better", "goal")
    figures = blocking.figures_of(10**6, 3.0, 0.6, 0.5)
    assert [tuple(row[key] for key in keys) for row in rows] == [
        tuple(getattr(figure, key) for key in keys) for figure in figures
    ]
    took = {(row["name"], row["versus"]): row["value"] for row in rows}
    at_once = took["a save at once", ""]
    waits = "wait for a save in the background"
    assert took["a save at once, once a minute", "60 s"] * 60 == pytest.approx(at_once)
    waited = took[f"{waits}, once a minute", "60 s"] * 60
    assert waited == pytest.approx(took[waits, "at once"] * at_once)


@pytest.mark.parametrize(
    ("device", "num_ranks", "background"),
    [("cpu", 1, False), ("cpu", 2, True), ("cuda", 1, True)],
)
def test_which_way_is_whose(device: str, num_ranks: int, background: bool) -> None:
    placement = make_placement().model_copy(update={"device": device, "world_size": num_ranks})
    assert _saves_in_background(make_plan(), placement) is background
