"""docs/speed.md: its tables are the figures on record, and its drawings are drawn from them."""

from __future__ import annotations

import json
import re
import sys

import pytest

from tools.speed_page import BLOCKS, PAGE, RESULTS, written

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_tables_are_written_from_the_record() -> None:
    assert written(TEXT) == TEXT, "run: python tools/speed_page.py"
    assert set(re.findall(r"<!-- figures ([a-z_]+) -->", TEXT)) == BLOCKS.keys()


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
