"""The page of a stream: the table, and accuracy by task over time for every cell."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from rewarm.artifacts import write_atomically
from rewarm.records.stream import StreamCell, StreamResult
from rewarm.reporting.page import render_page
from rewarm.reporting.stream_terminal import METRICS, figure_text
from rewarm.reporting.svg import element, text
from rewarm.reporting.tables import Table, numeric, words

__all__ = ["matrix_figure", "render_stream_page", "write_stream_page"]

_SIDE = 30
_LEFT, _TOP = 60, 24


class _Drawn(NamedTuple):
    heading: str
    svg: Markup
    table: Table


def write_stream_page(result: StreamResult, folder: Path) -> Path:
    """Write `report.html` in a folder and return its path."""
    path = folder / "report.html"
    write_atomically(path, render_stream_page(result))
    return path


def render_stream_page(result: StreamResult) -> str:
    """Return the page."""
    shown = [m for m in METRICS if any(m in cell.figures for cell in result.cells)]
    table = Table(
        columns=words("backbone", "learner") + numeric(*(METRICS[m] for m in shown)),
        rows=tuple(
            (cell.backbone, cell.learner, *(figure_text(cell.figures.get(m)) for m in shown))
            for cell in result.cells
        ),
        note="Proportions; means over seeds with 95 % t intervals over seeds.",
    )
    return render_page(
        "stream.html",
        title=f"Stream {result.name}",
        sections=[("table", "Figures"), ("matrices", "Task by task")],
        facts=(
            f"{result.num_classes} classes in {result.num_tasks} tasks, {result.mode}; "
            f"{result.num_train} examples to train on, {result.num_test} to test on; "
            f"{len(result.seeds)} seeds."
        ),
        table=table,
        drawn=[_drawn(cell) for cell in result.cells],
    )


def _drawn(cell: StreamCell) -> _Drawn:
    num_tasks = len(cell.mean_matrix)
    table = Table(
        columns=words("after task") + numeric(*(f"task {k + 1}" for k in range(num_tasks))),
        rows=tuple(
            (f"{t + 1}", *(f"{value:.3f}" for value in row), *[""] * (num_tasks - len(row)))
            for t, row in enumerate(cell.mean_matrix)
        ),
    )
    return _Drawn(f"{cell.backbone}, {cell.learner}", matrix_figure(cell), table)


def matrix_figure(cell: StreamCell) -> Markup:
    """Return squares whose depth of colour is the accuracy on task (row) after task (column)."""
    num_tasks = len(cell.mean_matrix)
    parts: list[str] = []
    for t, row in enumerate(cell.mean_matrix):
        x = _LEFT + t * _SIDE
        parts.append(text(str(t + 1), x + _SIDE / 2, _TOP - 8, anchor="middle"))
        parts.append(text(str(t + 1), _LEFT - 8, _TOP + (t + 0.65) * _SIDE, anchor="end"))
        for k, value in enumerate(row):
            y = _TOP + k * _SIDE
            square = {"x": x, "y": y, "width": _SIDE - 2, "height": _SIDE - 2}
            said = f"task {k + 1} after task {t + 1}: {value:.3f}"
            parts.append(element("rect", class_="band", **square))
            parts.append(
                element("rect", element("title", said), class_="mark", opacity=value, **square)
            )
    width, height = _LEFT + num_tasks * _SIDE, _TOP + num_tasks * _SIDE
    label = f"Accuracy by task over time, {cell.backbone}, {cell.learner}"
    return Markup(
        element(
            "svg",
            *parts,
            class_="figure s0",
            role="img",
            aria_label=label,
            viewBox=f"0 0 {width} {height}",
            width=width,
            height=height,
        )
    )
