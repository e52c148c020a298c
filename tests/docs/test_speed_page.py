"""docs/speed.md: its tables are the figures on record, and its drawings are drawn from them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tools import speed_page
from tools.speed_page import BLOCKS, GOALS, PAGE, RESULTS, written

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_tables_are_written_from_the_record() -> None:
    assert written(TEXT) == TEXT, "run: python tools/speed_page.py"
    assert set(re.findall(r"<!-- figures ([a-z_]+) -->", TEXT)) == BLOCKS.keys()


def test_the_goals_are_those_of_the_record() -> None:
    """Read from the page and the record alone."""
    (block,) = re.findall(r"<!-- goals -->\n(.*?)<!-- end -->", TEXT, re.DOTALL)
    _, _, *lines = [line for line in block.splitlines() if line]
    assert len(lines) == len(GOALS)
    for line, asked in zip(lines, GOALS, strict=True):
        what, goal, value, verdict, _, source = (cell.strip() for cell in line[1:-1].split("|"))
        rows = json.loads((RESULTS / f"{asked.results}.json").read_text(encoding="utf-8"))
        (row,) = [r for r in rows if (r["name"], r["versus"]) == (asked.name, asked.versus)]
        sign = {"higher": 1, "lower": -1}[row["better"]]
        assert what == asked.what
        assert goal[0] == ("≥" if sign == 1 else "≤")
        assert float(goal[2:]) == pytest.approx(row["goal"], rel=5e-3)
        assert float(value.partition(" ")[0]) == pytest.approx(row["value"], rel=5e-3)
        low, high = row.get("half") or (row["value"], row["value"])
        is_met = sign * (row["value"] - row["goal"]) >= 0
        plain = "open" if low < row["goal"] < high else "met" if is_met else "short"
        assert verdict == plain + ("" if row.get("half") else ", no spread")
        assert source == f"`{asked.results}.json`, {row['date']}"


def test_a_goal_whose_rounds_are_on_record_has_no_word_by_hand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(speed_page, "RESULTS", tmp_path)
    goal = speed_page.Goal("speed", "some", "a", "b", "met by hand")
    monkeypatch.setattr(speed_page, "GOALS", (goal,))
    row = {"name": "a", "value": 0.553, "unit": "", "better": "higher", "goal": 0.55, "versus": "b"}
    told = []
    for half in ({}, {"half": [0.541, 0.56]}):
        text = json.dumps([{**row, **half, "date": "2026-11-27"}])
        (tmp_path / "some.json").write_text(text, encoding="utf-8")
        told.append(written("<!-- goals --><!-- end -->".replace("><", ">\n<")).splitlines()[4])
    assert told == [
        "| speed | ≥ 0.55 | 0.553 | met, no spread | met by hand | `some.json`, 2026-11-27 |",
        "| speed | ≥ 0.55 | 0.553 (0.541 to 0.560) | open |  | `some.json`, 2026-11-27 |",
    ]


@pytest.mark.parametrize("name", BLOCKS)
def test_each_row_is_told_with_its_own_machine_date_and_command(name: str) -> None:
    """Read from the page and the record alone: no row stands under another one's machine."""
    (block,) = re.findall(rf"<!-- figures {name} -->\n(.*?)<!-- end -->", TEXT, re.DOTALL)
    footer = [line for line in block.splitlines() if line and not line.startswith("|")]
    rows = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    sources = {f"{row['machine']}, {row['date']}, `{row['command']}`." for row in rows}
    if len(sources) == 1:
        assert footer == list(sources)
        return
    names_of = {}
    for source in sources:
        (line,) = [line for line in footer if line.endswith(f": {source}")]
        names_of[source] = line.removeprefix("* ").removesuffix(f": {source}").split("; ")
    assert len(footer) == len(sources)
    for row in rows:
        found = [
            source
            for source, names in names_of.items()
            if any(re.match(rf"{re.escape(name)}(: |, at )", row["name"]) for name in names)
        ]
        assert found == [f"{row['machine']}, {row['date']}, `{row['command']}`."], row["name"]


def figure(benchmark: str, name: str, versus: str | None = None) -> float:
    rows = json.loads((RESULTS / f"{benchmark}.json").read_text(encoding="utf-8"))
    found = [row for row in rows if row["name"] == name and versus in (None, row["versus"])]
    (value,) = [row["value"] for row in found]
    assert isinstance(value, float)
    return value


def test_what_twice_the_micro_batch_gained_at_3b_is_of_two_records() -> None:
    for kind in ("compiled", "eager"):
        before, now = (
            figure(benchmark, f"3B, {kind}: MFU") for benchmark in ("gpu_3b_8k_at_a_time", "gpu")
        )
        told = f"{100 * (now / before - 1):.1f} % {kind} ({before:.3f} → {now:.3f}"
        assert told in TEXT, told


def test_what_moved_the_compiled_step_is_on_record() -> None:
    name = "5.8M parameters: tokens/s of rewarm, compiled (with {})"
    first, padded, norm, products = (
        f"{figure('train_peers_before', name.format(commit)):.2f}"
        for commit in ("81a4023", "137dcea", "5510b51", "3b9df0c")
    )
    assert f"taken twice, {first} → {padded}; the last norm" in TEXT
    assert f"compiled with the blocks, {norm}; the backward pass by products, {products} (" in TEXT


def test_what_a_machine_without_amx_gave_is_on_record() -> None:
    def shares(loop: str) -> str:
        names = (f"{size} parameters: {loop}, of the rate" for size in ("5.8M", "24M"))
        small, large = (100 * figure("product_rate_without_amx", name) for name in names)
        return f"{small:.0f} and {large:.0f} %"

    assert f"the same command told {shares('rewarm')} at 5.8M and 24M" in TEXT
    assert f"backward pass by products, {shares('rewarm, compiled')})" in TEXT
    assert f"loop {shares('bare')} ({shares('bare, compiled')}; `product_rate" in TEXT


def test_the_decision_on_the_loss_has_the_time_that_is_on_record() -> None:
    entries = "38M parameters, 131,072 entries"
    ratio = figure("train_peers", f"{entries}: tokens/s of rewarm", "trainer")
    ours, theirs = (figure("train_peers", f"{entries}: {loop}") for loop in ("rewarm", "trainer"))
    text = (PAGE.parent / "decisions" / "0006-loss-in-chunks.md").read_text(encoding="utf-8")
    told = (
        f"takes {1 / ratio:.2f} of the Trainer's time ({theirs / ours:.2f} by the medians of rates;"
    )
    assert told in text


def test_at_128k_entries_the_record_has_compiling_slower_and_larger() -> None:
    entries = "38M parameters, 131,072 entries: rewarm"
    assert figure("train_peers", f"{entries}, compiled") < figure("train_peers", entries)
    assert figure("train_peers", f"{entries}, compiled, peak") > figure(
        "train_peers", f"{entries}, peak"
    )
    prose = re.sub(r"<!-- figures.*?<!-- end -->", "", TEXT, flags=re.DOTALL)
    for of in ("", ", compiled", ", peak", ", compiled, peak"):
        assert f"{figure('train_peers', entries + of):,.0f}" in prose


@pytest.mark.parametrize(
    ("value", "shown"),
    [(2.97e-05, "0.0000297"), (0.0330, "0.0330"), (-0.0427, "-0.0427"), (0.1, "0.10"), (0, "0.00")],
)
def test_a_small_figure_is_no_row_of_zeros(value: float, shown: str) -> None:
    row = {"name": "a", "value": value, "unit": "", "goal": None, "versus": "b"}
    assert BLOCKS["train_peers"]([row]).splitlines()[-1] == f"| a | {shown} | b |  |"


def test_make_bench_runs_what_the_page_has_figures_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(RESULTS.parent), *sys.path])
    import run

    assert BLOCKS.keys() <= set(run.BENCHMARKS)
    assert all((RESULTS.parent / f"{name}.py").exists() for name in run.BENCHMARKS)


def test_without_a_compiler_the_other_benchmarks_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [str(RESULTS.parent), *sys.path])
    monkeypatch.setattr(sys, "argv", ["attention_backward.py"])
    import attention_backward

    monkeypatch.setattr(attention_backward, "is_quicker", lambda *_: False)
    attention_backward.main()
    assert "no C++ compiler" in capsys.readouterr().out


def test_drawings_are_there_and_hold_as_many_points_as_the_record() -> None:
    drawings = re.findall(r'<img src="(figures/growth-[a-z-]+\.svg)"', TEXT)
    assert len(drawings) == 7
    path = RESULTS / "growth.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    for drawing in drawings:
        svg = (PAGE.parent / drawing).read_text(encoding="utf-8")
        found = re.search(r"<title>([^<]+)</title>", svg)
        assert found is not None
        points = [row for row in rows if row["name"].startswith(f"{found[1]}, at ")]
        (curve,) = re.findall(r'<path class="[^"]*\bline\b[^"]*" d="([^"]+)"', svg) or [""]
        assert len(re.findall(r"[ML]", curve)) == len(points) > 1, drawing
