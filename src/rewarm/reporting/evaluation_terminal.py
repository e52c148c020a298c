"""What evaluation costs, by domain and measure, on a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rewarm.planning.plan import Plan, PlannedMeasure
from rewarm.reporting import numbers
from rewarm.reporting.terminal_table import ByWidth, bullets, titled_table
from rewarm.units import counted, format_count, format_duration

__all__ = ["evaluation_table"]


def evaluation_table(plan: Plan) -> RenderableType:
    """Return a row per domain and measure: tokens of one evaluation, how often, time of all."""
    rows = [(measure, *_cells(plan, measure)) for measure in plan.evaluation]
    lines = [
        f"{measure.domain}, {measure.what}: {tokens} tokens, {times}, {time}"
        if measure.tokens
        else f"{measure.domain}, {measure.what}: cost not known yet, {times}"
        for measure, tokens, times, time in rows
    ]
    narrow = Group(Text("Evaluation", style="bold"), bullets(lines))
    return ByWidth(_table(rows), narrow)


def _table(rows: list[tuple[PlannedMeasure, str, str, str]]) -> Table:
    table = titled_table("Evaluation")
    table.add_column("domain or task", overflow="fold", min_width=10)
    table.add_column("measure", overflow="fold")
    for name in ("tokens", "how often", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for measure, *cells in rows:
        table.add_row(Text(measure.domain), measure.what, *cells)
    return table


def _cells(plan: Plan, measure: PlannedMeasure) -> tuple[str, str, str]:
    times = counted(measure.times, "time")
    if not measure.tokens:
        return "not known yet", times, numbers.MISSING
    seconds = _by_compute(plan, measure) if measure.all_s is None else measure.all_s
    return format_count(measure.tokens), times, format_duration(seconds)


def _by_compute(plan: Plan, measure: PlannedMeasure) -> float:
    """Return a measure's part of the plan's whole time, which is by compute too."""
    whole = {estimate.name: estimate.value for estimate in plan.estimates}
    total = sum(one.tokens * one.times for one in plan.evaluation)
    compute = sum(value for name, value in whole.items() if name.endswith(" compute"))
    share = whole["evaluation compute"] / compute * measure.tokens * measure.times / total
    return share * whole["time"]
