"""The curve of a merge as a figure, a page, a part of the report, and on a terminal."""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from rewarm.artifacts import write_json
from rewarm.records.run_folder import RunFolder
from rewarm.reporting.report import main_merge_svg, render_merge_report, render_run_report
from rewarm.reporting.svg import pixel
from rewarm.reporting.trade_off import sweep_statement, sweep_table, trade_off_figure
from rewarm.reporting.trade_off_terminal import trade_off_summary
from tests.support.fake_runs import HOSTILE_NAME, make_fake_run
from tests.support.fake_sweep import make_sweep
from tests.support.html_page import Page
from tests.unit.test_reporting_terminal import lines_of


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_fake_run(tmp_path / "run", num_steps=20)


def test_the_path_goes_from_the_base_through_every_weight_in_order() -> None:
    figure = trade_off_figure(make_sweep())
    for drawn in (figure.wide, figure.narrow):
        (path,) = re.findall(r'<path class="front" d="M([^"]*)"', drawn)
        corners = [tuple(map(float, corner.split())) for corner in path.split("L")]
        assert len(corners) == 5
        (origin,) = re.findall(r'<circle class="origin" cx="([\d.]+)" cy="([\d.]+)"', drawn)
        assert origin == tuple(map(pixel, corners[0]))
        # To the right and up, each farther than the last: as the made-up curve goes.
        assert [x for x, _ in corners] == sorted(x for x, _ in corners)
        assert [y for _, y in corners] == sorted((y for _, y in corners), reverse=True)
    assert [row[0] for row in figure.table.rows] == ["0.25", "0.5 chosen", "0.75", "1"]
    assert figure.table.columns[0].name == "weight"


def test_the_table_says_what_is_known_and_which_was_chosen() -> None:
    rows = sweep_table(make_sweep()).rows
    assert rows[2][:2] == ("0.5", "+0.1500")
    assert rows[2][3] == "0.5250"
    assert rows[2][5] == ("chosen", "good", "")
    assert rows[3][4] == "not known"
    statement = sweep_statement(make_sweep())
    assert statement.rest.startswith("weight 0.5: +0.150 bits per byte on old text, −0.525 on new")


def test_the_report_grows_the_curve_when_the_record_is_there(run: RunFolder) -> None:
    assert "merging" not in Page(render_run_report(run)).ids
    sweep = make_sweep()
    write_json(run.merge_sweep, sweep.model_dump(mode="json"))
    page = Page(render_run_report(run))
    assert "merging" in page.ids
    assert page.rows("weight", "forgetting")[2][0] == "0.5"
    run.merge_sweep.write_text("{")
    told = render_run_report(run)
    assert "merge_sweep.json cannot be read" in told
    assert "merging" not in Page(told).ids


def test_the_page_and_the_drawing_stand_alone() -> None:
    page = Page(render_merge_report(make_sweep()))
    assert page.ids[:2] == ["curve", "provenance"]
    assert "medical, step 1,000, merged into base" in page.text["h1"]
    svg = main_merge_svg(make_sweep())
    assert svg.startswith("<svg")
    assert 'xmlns="http://www.w3.org/2000/svg"' in svg


def test_names_cannot_break_out() -> None:
    sweep = make_sweep(hostile=HOSTILE_NAME.replace("\ud800", ""))
    page = render_merge_report(sweep)
    assert "<script>alert" not in page
    Page(page)
    assert "<script>alert" not in main_merge_svg(sweep)
    assert any("alert" in line for line in lines_of(trade_off_summary(sweep)))


@pytest.mark.parametrize(("encoding", "marks"), [("utf-8", "•◆"), ("ascii", "oX")])
def test_the_curve_on_a_terminal(encoding: str, marks: str) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace", write_through=True)
    Console(file=file, width=80).print(trade_off_summary(make_sweep()))
    file.seek(0)
    lines = [line.rstrip() for line in file.read().splitlines()]
    plot = lines[1:13]
    # Five weights: four plain marks and the chosen one, from the lower left to the upper right.
    assert sum(line.count(marks[0]) for line in plot) == 4
    assert sum(line.count(marks[1]) for line in plot) == 1
    assert plot[0].rstrip().endswith(marks[0])
    assert plot[-1].count(marks[0]) == 1
    (chosen,) = [line for line in lines if line.endswith("chosen")]
    assert chosen.split()[:2] == ["0.5", "+0.150"]
    assert any(line.startswith("chosen: 0.5; the knee") for line in lines)


def test_a_terminal_too_narrow_for_a_drawing_still_has_the_numbers() -> None:
    lines = lines_of(trade_off_summary(make_sweep()), width=20)
    assert not any("◆" in line for line in lines)
    one = make_sweep()
    flat = [
        point.model_copy(update={"forgetting": one.points[0].forgetting}) for point in one.points
    ]
    assert lines_of(trade_off_summary(one.model_copy(update={"points": tuple(flat)})))
    assert dataclasses.is_dataclass(trade_off_figure(one))
