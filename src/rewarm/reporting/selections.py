"""What is kept of sources whose documents are selected by a score, on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from rewarm.records.facts import CorpusFacts
from rewarm.reporting.source_tables import SELECTION_NUMBERS, selection_rows
from rewarm.reporting.terminal_table import ByWidth, bullets, titled_table

__all__ = ["selection_table"]


def selection_table(corpora: Sequence[CorpusFacts]) -> RenderableType:
    """Return a row for each source with a selection: by what, how much of it, where it was cut."""
    table = titled_table("Kept by score")
    table.add_column("source", overflow="fold", min_width=10)
    table.add_column("keeps", overflow="fold")
    for name in SELECTION_NUMBERS:
        table.add_column(name, justify="right")
    lines: list[str] = []
    for source, keeps, cells in selection_rows(corpora):
        table.add_row(Text(source), Text(keeps), *cells)
        documents, of_documents, tokens, of_tokens, edge = cells
        lines.append(
            f"{source}: {keeps}, {documents} of {of_documents} documents, {tokens} of "
            f"{of_tokens} tokens, cut at {edge}"
        )
    return ByWidth(table, Group(Text("Kept by score", style="bold"), bullets(lines)))
