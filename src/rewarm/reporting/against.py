"""A run beside its control and beside joint training, and how far its weights have gone: tables."""

from __future__ import annotations

import functools
from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.text import Text

from rewarm.records.against import AgainstControl, AgainstOthers, RecoveredFraction, WeightChange
from rewarm.records.facts import SHARE_METRICS, Metric
from rewarm.reporting import numbers
from rewarm.reporting.run_view import METRICS
from rewarm.reporting.tables import Cell, Table, numeric, words
from rewarm.reporting.terminal_table import titled_table
from rewarm.reporting.text import harmless

__all__ = ["gap_table", "on_terminal", "recovered_table", "weight_table", "weights_sentence"]


def gap_table(found: AgainstOthers) -> Table:
    """Return the gap of each domain with the control's taken off."""
    rows = tuple(
        (
            Cell(gap.domain, below=f"{gap.role}, {_short(gap.metric)}"),
            f"{gap.num_steps:,}",
            _figure(gap.metric, gap.depth),
            f"{gap.steps_to_peak:,}",
            numbers.brief(gap.area * (100 if gap.metric in SHARE_METRICS else 1)),
            _signed(gap.metric, gap.forgetting),
            _ends(gap, functools.partial(_signed, gap.metric)),
        )
        for gap in found.gaps
    )
    columns = words("domain") + numeric(
        "evaluations", "depth", "at update", "area", "at the end", "95 % interval"
    )
    return Table(columns, rows)


def recovered_table(found: AgainstOthers) -> Table:
    """Return which share of joint training's gain each domain has come to."""
    rows = tuple(
        (
            Cell(one.domain, below=f"{one.role}, {_short(one.metric)}"),
            _figure(one.metric, one.base),
            _figure(one.metric, one.run),
            _figure(one.metric, one.joint),
            Cell(numbers.share(one.fraction), below=one.reason),
            _ends(one, numbers.share),
        )
        for one in found.recovered
    )
    columns = words("domain") + numeric("base", "run", "joint", "recovered", "95 % interval")
    return Table(columns, rows)


def weight_table(change: WeightChange) -> Table:
    """Return how far each layer is from the base."""
    rows = tuple(
        ("others" if one.layer is None else str(one.layer), numbers.share(one.relative, 3))
        for one in change.layers
    )
    return Table(words("layer") + numeric("change of its weights"), rows)


def weights_sentence(change: WeightChange) -> str:
    """Say how far the lowest and the topmost layers have gone."""
    ends = change.ends()
    if ends is None:
        return f"Weights after {change.step:,} updates against the base's."
    bottom, top = (numbers.share(end, 3) for end in ends)
    num_layers = sum(one.layer is not None for one in change.layers)
    each = min(5, num_layers // 2)
    return (
        f"After {change.step:,} updates the lowest {each} of {num_layers} layers have moved by "
        f"{bottom} of their size, the topmost {each} by {top}."
    )


def on_terminal(title: str, table: Table, note: str = "") -> RenderableType:
    """Return a page's table for a terminal."""
    drawn = titled_table(title)
    for column in table.columns:
        drawn.add_column(
            column.name, justify="right" if column.numeric else "left", overflow="fold"
        )
    for row in table.rows:
        drawn.add_row(*(_cell(cell) for cell in row))
    return Group(drawn, Text(note, style="dim")) if note else drawn


def _cell(cell: str | Cell) -> Text:
    if isinstance(cell, str):
        return Text(harmless(cell))
    shown = Text(harmless(cell.text))
    if cell.below:
        shown.append(f"\n{harmless(cell.below)}", style="dim")
    return shown


def _short(metric: Metric) -> str:
    return next(words.short for words in METRICS if words.metric == metric)


def _figure(metric: Metric, value: float) -> str:
    return numbers.share(value) if metric in SHARE_METRICS else numbers.brief(value)


def _signed(metric: Metric, value: float) -> str:
    if metric in SHARE_METRICS:
        return f"{numbers.signed(100 * value, 1)} points"
    return numbers.signed(value)


def _ends(found: AgainstControl | RecoveredFraction, written: Callable[[float], str]) -> str:
    if found.low is None or found.high is None:
        return numbers.MISSING
    return numbers.interval(written(found.low), written(found.high))
