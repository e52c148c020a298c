"""What both ways of packing documents into sequences come to, on a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from rewarm.planning.plan import Plan
from rewarm.reporting.source_tables import PACKING_NUMBERS, packing_rows, text_of_run
from rewarm.reporting.terminal_table import ByWidth, bullets, titled_table

__all__ = ["packing_table"]


def packing_table(plan: Plan) -> list[RenderableType]:
    """Return what both ways of cutting documents into sequences come to, where it is known."""
    rows = packing_rows(plan)
    if not rows:
        return []
    table = titled_table("Packing")
    table.add_column("source", overflow="fold", min_width=10)
    table.add_column("way")
    for name in PACKING_NUMBERS:
        table.add_column(name, justify="right")
    lines: list[str] = []
    for source, way, cells in rows:
        table.add_row(Text(source), way, *cells, style="" if way == plan.science.packing else "dim")
        pairs = zip(PACKING_NUMBERS, cells, strict=True)
        lines.append(f"{source}, {way}: {', '.join(f'{name} {cell}' for name, cell in pairs)}")
    parts: list[RenderableType] = [
        ByWidth(table, Group(Text("Packing", style="bold"), bullets(lines)))
    ]
    if told := text_of_run(plan):
        parts.append(Text(told, style="dim"))
    return [*parts, ""]
