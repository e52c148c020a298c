"""Plans on a terminal of 80 columns, and as plain text where there is none.

It imports only what a plan needs: `rewarm plan` answers at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rewarm.planning.plan import Plan, Reason
from rewarm.planning.schedule import lr_curve
from rewarm.recipe.advice import Advice
from rewarm.reporting import numbers
from rewarm.reporting.blend_terminal import blend_table, exposure_table
from rewarm.reporting.evaluation_terminal import evaluation_table
from rewarm.reporting.packing_terminal import packing_table
from rewarm.reporting.terminal_table import ByWidth, bullets, cut, titled_table
from rewarm.reporting.text import clean
from rewarm.units import counted, format_count

__all__ = ["advice_summary", "draw_schedule", "plan_summary"]

_PLOT_ROWS = 6
_MOST_PLOT_COLUMNS = 100
# Braille dots of a cell by (row, column), bits of the code point above U+2800.
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])


# The schedule


@dataclass(frozen=True, slots=True)
class _ScheduleDrawing:
    """The learning rate over the steps in Braille dots, with the phases under it."""

    plan: Plan

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        curve = lr_curve(self.plan.science.schedule)
        top = float(curve.max())
        gutter = max(len(numbers.rate(top)), 1) + 1
        num_columns = min(options.max_width - gutter - 1, _MOST_PLOT_COLUMNS)
        if num_columns < 8:
            return
        cells = _braille(curve, num_columns)
        phases = self.plan.science.phases
        starts = [_column_of(phase.start_step, len(curve), num_columns) for phase in phases]
        edges = set(starts[1:])
        for row in range(_PLOT_ROWS):
            label = numbers.rate(top) if row == 0 else "0" if row == _PLOT_ROWS - 1 else ""
            line = Text(f"{label:>{gutter - 1}} ", style="dim", no_wrap=True)
            for column in range(num_columns):
                line.append(*self._cell(int(cells[row, column]), column in edges, options))
            yield line
        yield from self._phases(gutter, [*starts, num_columns], len(curve), options)

    @staticmethod
    def _cell(dots: int, is_edge: bool, options: ConsoleOptions) -> tuple[str, str]:
        if dots:
            return ("*" if options.ascii_only else chr(0x2800 + dots)), "cyan"
        edge = "|" if options.ascii_only else "┊"
        return (edge if is_edge else " "), "dim"

    def _phases(
        self, gutter: int, edges: Sequence[int], num_steps: int, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Yield a line with the phases' names, one with the steps where they begin, and a line for
        each phase that is too short for its name."""
        names = [" "] * (edges[-1] + gutter)
        steps = [" "] * (edges[-1] + gutter)
        bar = "|" if options.ascii_only else "│"
        told: list[str] = []
        for phase, (start, end) in zip(
            self.plan.science.phases, itertools.pairwise(edges), strict=True
        ):
            name, first = clean(phase.name).replace("\n", " "), f"{phase.start_step:,}"
            room = max(end - start - 1, 0)
            _write(names, gutter + start, bar + cut(name, room - 1))
            _write(steps, gutter + start, first if len(first) <= room else "")
            if max(len(name) + 1, len(first)) > room:
                told.append(f"{bar}{name}: from step {first}")
        _write(steps, len(steps) - len(last := counted(num_steps, "step")), last, only_free=True)
        yield Text("".join(names).rstrip(), no_wrap=True)
        yield Text("".join(steps).rstrip(), style="dim", no_wrap=True)
        for line in told:
            yield Padding(Text(line, style="dim"), (0, 0, 0, gutter), expand=False)


def _write(line: list[str], start: int, content: str, *, only_free: bool = False) -> None:
    """Write text into a line of cells; what goes beyond its end is cut.

    With `only_free` nothing is written where it would touch what stands there.
    """
    taken = "".join(line[max(start - 1, 0) :]).strip()
    if start < 0 or (only_free and taken):
        return
    for offset, character in enumerate(content):
        if start + offset < len(line):
            line[start + offset] = character


def _column_of(step: int, num_steps: int, num_columns: int) -> int:
    """Return the column of cells in which a step's dots begin."""
    num_x = 2 * num_columns
    return min(-(-step * num_x // num_steps), ((step + 1) * num_x - 1) // num_steps) // 2


def _braille(curve: NDArray[np.float64], num_columns: int) -> NDArray[np.int64]:
    """Return the dots of each cell, [rows, columns].

    A column of dots spans all rates of the steps that it stands for, so that no peak is lost
    between two columns; neighbouring columns are joined, and what the next one draws is left to it.
    """
    num_x, num_y = 2 * num_columns, 4 * _PLOT_ROWS
    first_steps = np.arange(num_x) * len(curve) // num_x
    rows = np.round((1 - curve / curve.max()) * (num_y - 1)).astype(np.int64)
    firsts = rows[first_steps]
    tops, bottoms = np.minimum.reduceat(rows, first_steps), np.maximum.reduceat(rows, first_steps)
    tops[:-1] += (tops[:-1] == firsts[1:]) & (tops[:-1] < firsts[:-1])
    bottoms[:-1] -= (bottoms[:-1] == firsts[1:]) & (bottoms[:-1] > firsts[:-1])
    # A steep stretch is drawn as a vertical line from where the curve came.
    joined_tops = np.minimum(tops[1:], bottoms[:-1] + 1)
    bottoms[1:] = np.maximum(bottoms[1:], tops[:-1] - 1)
    tops[1:] = joined_tops
    cells = np.zeros((_PLOT_ROWS, num_columns), dtype=np.int64)
    for x in range(num_x):
        for dot in range(int(tops[x]), int(bottoms[x]) + 1):
            cells[dot // 4, x // 2] |= int(_DOTS[dot % 4, x % 2])
    return cells


def draw_schedule(plan: Plan) -> RenderableType:
    """Return a drawing of the learning rate over the steps, as wide as the terminal allows."""
    return _ScheduleDrawing(plan)


# The plan


def plan_summary(plan: Plan) -> RenderableType:
    """Return what a person reads before spending: facts, schedule, blend, cost, reasons."""
    parts: list[RenderableType] = [
        _headline(plan),
        "",
        Text("Learning rate", style="bold"),
        draw_schedule(plan),
        "",
        blend_table(plan),
        "",
        *packing_table(plan),
        *([exposure_table(plan), ""] if len(plan.science.phases) > 1 else []),
        *([evaluation_table(plan), ""] if plan.evaluation else []),
        _estimates(plan),
        "",
        *_preset(plan),
        _reasons(plan),
    ]
    if plan.warnings:
        parts += ["", Text("Warnings", style="bold yellow"), bullets(plan.warnings)]
    return Group(*parts)


def _headline(plan: Plan) -> Text:
    science, model = plan.science, plan.conduct.model
    text = Text()
    text.append(clean(plan.name), style="bold")
    text.append(
        f"  {counted(science.num_steps, 'step')} of "
        f"{format_count(science.tokens_per_step)} tokens, "
        f"{format_count(science.num_tokens)} in all\n"
    )
    text.append(
        f"base {clean(plan.conduct.base_name)}, {format_count(model.num_parameters)} parameters; "
        f"{counted(science.sequences_per_step, 'sequence')} of {science.sequence_length:,} "
        "a step\n"
    )
    text.append(f"plan {plan.fingerprint[:12]}", style="dim")
    if not plan.measured:
        text.append("  token counts are estimated from a sample", style="yellow")
    return text


def _estimates(plan: Plan) -> RenderableType:
    lines = [f"{e.name}: {numbers.in_unit(e.value, e.unit)}; {e.formula}" for e in plan.estimates]
    return ByWidth(_estimates_table(plan), Group(Text("Estimates", style="bold"), bullets(lines)))


def _estimates_table(plan: Plan) -> Table:
    table = titled_table("Estimates")
    table.add_column("quantity", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("formula", overflow="fold", style="dim")
    for estimate in plan.estimates:
        table.add_row(
            estimate.name, numbers.in_unit(estimate.value, estimate.unit), Text(estimate.formula)
        )
    return table


def _preset(plan: Plan) -> list[RenderableType]:
    """Return what the preset is, what it fills in, and where it is the wrong one."""
    preset = plan.preset
    if preset is None:
        return []
    head = Text.assemble(
        ("Preset ", "bold"),
        (preset.name, "bold cyan"),
        f": {preset.title}\n",
        (f"not for {preset.not_for}", "dim"),
    )
    if not preset.settings:
        return [head, Text("the recipe says all of it itself"), ""]
    return [head, _because("filled in by the preset", preset.settings), ""]


def _reasons(plan: Plan) -> RenderableType:
    return _because("Why", plan.reasons)


def _because(title: str, reasons: Sequence[Reason]) -> RenderableType:
    lines = [f"{r.field}: {r.value}; {r.reason} ({r.source})" for r in reasons]
    return ByWidth(_reasons_table(title, reasons), Group(Text(title, style="bold"), bullets(lines)))


def advice_summary(advice: Advice, chosen: str | None) -> RenderableType:
    """Return which preset fits what is declared, and why the others do not."""
    text = Text.assemble(("Advice: ", "bold"), (f'preset = "{advice.preset}"', "bold cyan"), "\n")
    if chosen == advice.preset:
        text.append("which this plan has\n", style="green")
    elif chosen is not None:
        text.append(f'this plan has preset = "{chosen}"\n', style="yellow")
    lines = [f"because: {reason}" for reason in advice.reasons]
    lines += [f"not {name}: {why}" for name, why in advice.others]
    return Group(text, bullets(lines), "")


def _reasons_table(title: str, reasons: Sequence[Reason]) -> Table:
    table = titled_table(title)
    table.add_column("field", overflow="fold", min_width=16)
    table.add_column("value", overflow="fold", min_width=8)
    table.add_column("because", overflow="fold")
    for reason in reasons:
        because = Text(clean(reason.reason))
        if reason.source:
            because.append(f" ({clean(reason.source)})", style="dim")
        table.add_row(Text(clean(reason.field)), Text(clean(reason.value)), because)
    return table
