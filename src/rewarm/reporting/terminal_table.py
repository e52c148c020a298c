"""The one look of tables and lists on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from rewarm.reporting.text import harmless

__all__ = ["ByWidth", "bullets", "cut", "titled_table"]

_LEAST_TABLE_COLUMNS = 64


def titled_table(title: str) -> Table:
    """Return an empty table without frames, its title in bold at the left."""
    return Table(
        title=Text(title, style="bold"),
        title_justify="left",
        box=None,
        header_style="dim",
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )


@dataclass(frozen=True, slots=True)
class ByWidth:
    """A table where there is room for it, else the same in lines that wrap: nothing is cut."""

    table: Table
    lines: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.table if options.max_width >= _LEAST_TABLE_COLUMNS else self.lines


def bullets(lines: Sequence[str]) -> Table:
    """Return lines that wrap, each behind a dash."""
    grid = Table.grid(padding=(0, 1))
    for line in lines:
        grid.add_row("-", Text(harmless(line)))
    return grid


def cut(content: str, room: int) -> str:
    """Return text of at most `room` characters, an ellipsis where some is left out."""
    shown = harmless(content).replace("\n", " ")
    return shown if len(shown) <= room else f"{shown[: max(room - 1, 0)]}…" if room > 1 else ""
