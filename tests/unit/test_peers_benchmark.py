"""What the benchmark beside peers has on record of its rounds, and how that is shown."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tools import speed_page

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import train_peers

    return train_peers


@pytest.fixture
def record(peers: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The form of figures, with a place of their own."""
    import record

    monkeypatch.setattr(record, "RESULTS", tmp_path)
    return record


def told(turns_s: list[float]) -> dict[str, Any]:
    return {
        "turns_s": turns_s,
        "peak_bytes": 2**20,
        "tokens_per_s": 1.0,
        "data_wait_share": 0.0,
        "warm_up_s": 0.0,
    }


MEASURED = {
    "rewarm": told([1.0] * 7),
    "trainer": told([1.2, 0.8, 1.1, 0.9, 1.0, 1.4, 0.7]),
}


def test_half_of_the_rounds_go_on_record_with_their_median(peers: Any, record: Any) -> None:
    record.write_results("train_peers", peers.figures_of("25M", MEASURED))
    rows = json.loads((record.RESULTS / "train_peers.json").read_text())
    ratio, memory = rows[:2]
    assert ratio["value"] == 1.0
    assert ratio["half"] == [0.8, 1.2]
    assert "half" not in memory, "it is measured once"
    figure = record.Figure.of_row(ratio)
    assert figure == peers.figures_of("25M", MEASURED)[0]
    assert figure.verdict == "open"
    assert figure.told == "1 (half of the rounds 0.8 to 1.2)"


def test_a_figure_of_before_has_no_half(record: Any) -> None:
    row = {"name": "a", "value": 1.16, "unit": "", "better": "higher", "goal": 1.1, "versus": "b"}
    figure = record.Figure.of_row({**row, "machine": "m", "date": "2026-11-27", "command": "c"})
    assert figure.half is None
    assert figure.row() == row
    assert figure.verdict == "met, no spread", "its rounds may lie on both sides of the goal"
    below = record.Figure.of_row({**row, "value": 1.09})
    assert below.verdict == "short, no spread"


def test_the_command_on_record_takes_the_same_rounds(
    peers: Any, record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the script was not told is on record too, as its defaults may change."""
    monkeypatch.setattr(peers, "write_text", lambda folder: None)
    monkeypatch.setattr(peers, "prepare", lambda *_, **__: {})
    monkeypatch.setattr(peers, "measure", lambda *_: MEASURED)
    monkeypatch.setattr(sys, "argv", ["train_peers.py", "--models", "25M", "--shared"])
    peers.main()
    (path,) = record.RESULTS.iterdir()
    (command,) = {row["command"] for row in json.loads(path.read_text(encoding="utf-8"))}
    words = shlex.split(command)
    assert words[:2] == ["python", "benchmarks/train_peers.py"]
    assert words[2:6] == ["--rounds", "12", "--models", "25M"]
    assert words[6:] == ["--loops", ";".join(peers.LOOPS), "--shared"]


@pytest.mark.parametrize(
    ("half", "verdict"), [((1.1, 1.2), "met"), ((0.98, 1.2), "open"), ((0.8, 0.99), "short")]
)
def test_a_goal_with_rounds_on_both_sides_of_it_is_open(
    record: Any, half: tuple[float, float], verdict: str
) -> None:
    middle = sum(half) / 2
    assert record.Figure("a", middle, "", "higher", 1.0, "b", half).verdict == verdict


def test_of_two_rounds_no_quartile_lies_beyond_both(peers: Any) -> None:
    median, half = peers.times_as_quick(told([1.0, 1.0]), told([1.0, 2.0]))
    assert (median, half) == (1.5, (1.0, 2.0))


def test_the_page_shows_the_rounds_behind_a_ratio() -> None:
    row = {"name": "a", "value": 1.16, "unit": "", "better": "higher", "goal": 1.1, "versus": "b"}
    table = speed_page.BLOCKS["train_peers"]([row, {**row, "half": [0.978, 1.249]}])
    assert table.splitlines()[2:] == [
        "| a | 1.16 | b | ≥ 1.1 (met, no spread) |",
        "| a | 1.16 (0.98 to 1.25) | b | ≥ 1.1 (open) |",
    ]
