"""The trade-off curve of a merge on a terminal: a drawing and its numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from rewarm.records.merging import MergeSweep, TradeOff
from rewarm.reporting import numbers
from rewarm.reporting.terminal_table import titled_table
from rewarm.reporting.text import harmless

__all__ = ["trade_off_summary"]

_PLOT_ROWS = 12
_MOST_PLOT_COLUMNS = 60


def trade_off_summary(sweep: MergeSweep) -> RenderableType:
    """Return the curve, a row per weight, and the choice with its rule."""
    table = titled_table("")
    table.title = None
    for name in ("weight", "forgetting", "95 % interval", "adaptation", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for point in sweep.points:
        is_chosen = point.weight == sweep.chosen
        table.add_row(
            f"{point.weight:g}",
            numbers.signed(point.forgetting.value),
            _interval(point.forgetting),
            numbers.signed(point.adaptation.value),
            _interval(point.adaptation),
            "chosen" if is_chosen else "",
            style="bold green" if is_chosen else "",
        )
    choice = Text("chosen: ", style="bold")
    choice.append(f"{sweep.chosen:g}; {sweep.rule}: {harmless(sweep.reason)}", style="not bold")
    note = Text(
        "Bits per byte against the base: forgetting is above it on old text "
        f"({harmless(', '.join(sweep.old_domains))}), adaptation below it on new text "
        f"({harmless(', '.join(sweep.new_domains))}). Intervals are evaluation noise.",
        style="dim",
    )
    return Group(_Plot(sweep), "", table, "", choice, note)


def _interval(change: TradeOff) -> str:
    if change.low is None or change.high is None:
        return "not known"
    return f"{numbers.signed(change.low)} to {numbers.signed(change.high)}"


@dataclass(frozen=True, slots=True)
class _Plot:
    """Adaptation (up) against forgetting (to the right), a mark per weight."""

    sweep: MergeSweep

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        points = self.sweep.points
        xs = [point.forgetting.value for point in points]
        ys = [point.adaptation.value for point in points]
        top, bottom = numbers.signed(max(ys)), numbers.signed(min(ys))
        gutter = max(len(top), len(bottom)) + 1
        num_columns = min(options.max_width - gutter - 2, _MOST_PLOT_COLUMNS)
        if num_columns < 16:
            return
        cells = [[" "] * num_columns for _ in range(_PLOT_ROWS)]
        plain, chosen = ("o", "X") if options.ascii_only else ("•", "◆")
        for point, x, y in zip(points, xs, ys, strict=True):
            column = _place(x, min(xs), max(xs), num_columns)
            row = _PLOT_ROWS - 1 - _place(y, min(ys), max(ys), _PLOT_ROWS)
            if cells[row][column] != chosen:
                cells[row][column] = chosen if point.weight == self.sweep.chosen else plain
        yield Text("adaptation", style="bold")
        yield from self._rows(cells, chosen, (top, bottom), gutter, options)
        left, right = numbers.signed(min(xs)), numbers.signed(max(xs))
        gap = max(1, num_columns - len(left) - len(right))
        yield Text(f"{'':{gutter}} {left}{'':{gap}}{right}", style="dim", no_wrap=True)
        yield Text(f"{'forgetting':>{gutter + 1 + num_columns}}", style="bold", no_wrap=True)

    @staticmethod
    def _rows(
        cells: list[list[str]],
        chosen: str,
        ends: tuple[str, str],
        gutter: int,
        options: ConsoleOptions,
    ) -> Iterator[Text]:
        for index, row in enumerate(cells):
            label = ends[0] if index == 0 else ends[1] if index == len(cells) - 1 else ""
            line = Text(f"{label:>{gutter - 1}} ", style="dim", no_wrap=True)
            line.append("|" if options.ascii_only else "│", style="dim")
            for cell in row:
                line.append(cell, style="bold green" if cell == chosen else "cyan")
            yield line


def _place(value: float, low: float, high: float, size: int) -> int:
    """Return which of `size` cells from `low` to `high` a value stands in."""
    return round((value - low) / (high - low) * (size - 1)) if high > low else 0
