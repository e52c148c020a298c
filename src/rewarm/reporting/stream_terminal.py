"""Streams on a terminal: what will be run, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from rewarm.records.stream import StreamFigure, StreamResult
from rewarm.reporting import numbers
from rewarm.reporting.terminal_table import cut, titled_table

__all__ = ["METRICS", "figure_text", "stream_plan", "stream_table"]

METRICS: Mapping[str, str] = {
    "final": "accuracy",
    "forgetting": "forgetting",
    "bwt": "BWT",
    "min_acc": "min-ACC",
    "wc_acc": "WC-ACC",
    "stability_gap": "stability gap",
}
"""Headings of the metrics, by name."""


def stream_plan(name: str, facts: Sequence[tuple[str, str]]) -> Table:
    """Return what an experiment will do, row by row."""
    table = titled_table(f"Stream {cut(name, 64)}")
    table.add_column("what")
    table.add_column("how")
    for what, how in facts:
        table.add_row(what, cut(how, 120))
    return table


def stream_table(result: StreamResult) -> Table:
    """Return the metrics of every backbone with every learner."""
    shown = [m for m in METRICS if any(m in cell.figures for cell in result.cells)]
    table = titled_table(
        f"{cut(result.name, 64)}: means of {len(result.seeds)} seeds, 95 % interval"
    )
    for heading in ("backbone", "learner"):
        table.add_column(heading)
    for metric in shown:
        table.add_column(METRICS[metric], justify="right")
    for cell in result.cells:
        figures = [figure_text(cell.figures.get(metric)) for metric in shown]
        table.add_row(cut(cell.backbone, 24), cut(cell.learner, 24), *figures)
    return table


def figure_text(figure: StreamFigure | None) -> str:
    """Return a mean and its interval."""
    if figure is None:
        return numbers.MISSING
    mean = numbers.plain(figure.mean)
    if figure.low is None or figure.high is None:
        return mean
    return f"{mean} [{numbers.plain(figure.low)}, {numbers.plain(figure.high)}]"
