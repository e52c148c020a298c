"""What both ways of packing documents into sequences come to, on a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from rewarm.planning.plan import Plan
from rewarm.records.packing import WAYS
from rewarm.reporting import numbers
from rewarm.reporting.terminal_table import ByWidth, bullets, titled_table
from rewarm.units import format_count

__all__ = ["packing_table"]


def packing_table(plan: Plan) -> list[RenderableType]:
    """Return what both ways of cutting documents into sequences come to, where it is known."""
    science = plan.science
    known = {
        source.name: plan.conduct.packing[source.name]
        for source in science.sources
        if source.name in plan.conduct.packing
    }
    if not known:
        return []
    table = titled_table("Packing")
    table.add_column("source", overflow="fold", min_width=10)
    table.add_column("way")
    for name in ("sequences", "text", "padding", "cut", "cut although short"):
        table.add_column(name, justify="right")
    lines: list[str] = []
    for name, facts in known.items():
        for way in WAYS:
            found = facts.way(way)
            cells = (
                f"{found.num_windows:,}",
                format_count(found.num_text_tokens),
                numbers.share(found.padding_share(facts.sequence_length)),
                numbers.share(found.num_cut / max(facts.num_documents, 1)),
                numbers.share((found.num_cut - facts.num_long) / max(facts.num_documents, 1)),
            )
            style = "" if way == science.packing else "dim"
            table.add_row(Text(name), way, *cells, style=style)
            headers = [str(column.header) for column in table.columns][2:]
            values = ", ".join(f"{h} {cell}" for h, cell in zip(headers, cells, strict=True))
            lines.append(f"{name}, {way}: {values}")
    parts: list[RenderableType] = [
        ByWidth(table, Group(Text("Packing", style="bold"), bullets(lines)))
    ]
    if known.keys() == {source.name for source in science.sources}:
        parts.append(Text(_text_of_run(plan), style="dim"))
    return [*parts, ""]


def _text_of_run(plan: Plan) -> str:
    """Say how many of the run's tokens are text and not padding."""
    science = plan.science
    text = 0.0
    for index, source in enumerate(science.sources):
        facts = plan.conduct.packing[source.name]
        padding = facts.way(science.packing).padding_share(science.sequence_length)
        sequences = sum(phase.samples[index] for phase in science.phases)
        text += sequences * science.sequence_length * (1 - padding)
    return (
        f"{science.packing}: of the run's {format_count(science.num_tokens)} tokens "
        f"{format_count(round(text))} are text ({numbers.share(text / science.num_tokens)})"
    )
