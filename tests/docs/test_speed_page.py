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
