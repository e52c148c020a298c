"""What is kept of sources whose documents are selected by a score, in words and as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from rewarm.records.facts import CorpusFacts, SelectionFacts
from rewarm.reporting.terminal_table import ByWidth, bullets, titled_table
from rewarm.units import format_count

__all__ = ["selection_table"]


def selection_table(corpora: Sequence[CorpusFacts]) -> RenderableType:
    """Return a row for each source with a selection: by what, how much of it, where it was cut."""
    table = titled_table("Kept by score")
    table.add_column("source", overflow="fold", min_width=10)
    table.add_column("keeps", overflow="fold")
    for name in ("documents", "of", "tokens", "of", "cut at"):
        table.add_column(name, justify="right")
    lines: list[str] = []
    for facts in corpora:
        selection = facts.selection
        assert selection is not None
        keeps = _words(selection)
        documents, of_documents = f"{facts.num_documents:,}", f"{selection.of_documents:,}"
        tokens, of_tokens = format_count(facts.num_tokens), format_count(selection.of_tokens)
        edge = selection.edge or "–"
        table.add_row(
            Text(facts.name), Text(keeps), documents, of_documents, tokens, of_tokens, edge
        )
        lines.append(
            f"{facts.name}: {keeps}, {documents} of {of_documents} documents, {tokens} of "
            f"{of_tokens} tokens, cut at {edge}"
        )
    return ByWidth(table, Group(Text("Kept by score", style="bold"), bullets(lines)))


def _words(selection: SelectionFacts) -> str:
    if selection.of_neighbours:
        return f"nearest to {selection.reference}"
    against = "" if selection.reference is None else f" ({selection.reference})"
    return f"{'lowest' if selection.lowest else 'highest'} {selection.score}{against}"
