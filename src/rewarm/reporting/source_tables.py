"""What is kept of sources, and how they share sequences: rows, for terminals and for pages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from rewarm.planning.plan import Plan
from rewarm.records.facts import CorpusFacts
from rewarm.records.packing import WAYS, Packing
from rewarm.reporting import numbers
from rewarm.reporting.tables import Cell, Table, numeric, words
from rewarm.units import format_count

__all__ = [
    "PACKING_NUMBERS",
    "SELECTION_NUMBERS",
    "PackingRow",
    "SelectionRow",
    "left_out_page",
    "packing_page",
    "packing_rows",
    "selection_page",
    "selection_rows",
    "text_of_run",
]

PACKING_NUMBERS = ("sequences", "text", "padding", "cut", "cut although short")
SELECTION_NUMBERS = ("documents", "of", "tokens", "of", "cut at")


class PackingRow(NamedTuple):
    """One way of packing a source; `cells` are under PACKING_NUMBERS."""

    source: str
    way: Packing
    cells: tuple[str, ...]


def packing_rows(plan: Plan) -> list[PackingRow]:
    """Return both ways of cutting documents into sequences, of each source where they are known."""
    rows = []
    for source in plan.science.sources:
        facts = plan.conduct.packing.get(source.name)
        for way in WAYS if facts is not None else ():
            assert facts is not None
            found = facts.way(way)
            cells = (
                f"{found.num_windows:,}",
                format_count(found.num_text_tokens),
                numbers.share(found.padding_share(facts.sequence_length)),
                numbers.share(found.num_cut / max(facts.num_documents, 1)),
                numbers.share((found.num_cut - facts.num_long) / max(facts.num_documents, 1)),
            )
            rows.append(PackingRow(source.name, way, cells))
    return rows


def text_of_run(plan: Plan) -> str:
    """Say how many of the run's tokens are text and not padding; empty where that is not known."""
    science = plan.science
    text = 0.0
    for index, source in enumerate(science.sources):
        facts = plan.conduct.packing.get(source.name)
        if facts is None:
            return ""
        padding = facts.way(science.packing).padding_share(science.sequence_length)
        sequences = sum(phase.samples[index] for phase in science.phases)
        text += sequences * science.sequence_length * (1 - padding)
    return (
        f"{science.packing}: of the run's {format_count(science.num_tokens)} tokens "
        f"{format_count(round(text))} are text ({numbers.share(text / science.num_tokens)})"
    )


def packing_page(plan: Plan) -> Table:
    """Return the table of a report; without rows where nothing is known."""
    rows = tuple((row.source, row.way, *row.cells) for row in packing_rows(plan))
    return Table(words("source", "way") + numeric(*PACKING_NUMBERS), rows, text_of_run(plan))


def left_out_page(plan: Plan) -> Table:
    """Return what was left out of every source, by reason; without rows where nothing was.

    Shares are of all documents that were read, held-out ones included.
    """
    rows: list[tuple[str | Cell, ...]] = []
    for facts in plan.conduct.corpora.values():
        kept = facts.num_documents if facts.selection is None else facts.selection.of_documents
        total = kept + facts.held_out_documents + sum(facts.rejected.values())
        found_in = {reason: drop.by for drop in facts.drops for reason in drop.reasons}
        for reason, count in sorted(facts.rejected.items(), key=lambda one: (-one[1], one[0])):
            by = ", ".join(f"{name} {n:,}" for name, n in found_in.get(reason, {}).items())
            rows.append(
                (
                    facts.name,
                    Cell(reason, below=f"text of {by}" if by else ""),
                    f"{count:,}",
                    numbers.share(count / total, 2),
                )
            )
    columns = words("source", "reason") + numeric("documents", "of all")
    return Table(columns, tuple(rows), _dropped_tokens(plan))


def _dropped_tokens(plan: Plan) -> str:
    """Say how much was tokenized and then dropped: copies, and what is measured on."""
    told = [
        f"{facts.name} {drop.num_documents:,} {drop.kind}, {format_count(drop.num_tokens)} tokens"
        for facts in plan.conduct.corpora.values()
        for drop in facts.drops
        if drop.num_documents
    ]
    return f"Dropped after tokenization: {'; '.join(told)}." if told else ""


class SelectionRow(NamedTuple):
    """What is kept of a source; `cells` are under SELECTION_NUMBERS."""

    source: str
    keeps: str
    cells: tuple[str, ...]


def selection_rows(corpora: Iterable[CorpusFacts]) -> list[SelectionRow]:
    """Return a row for each source with a selection: by what, how much of it, where it was cut."""
    rows = []
    for facts in corpora:
        selection = facts.selection
        if selection is None:
            continue
        cells = (
            f"{facts.num_documents:,}",
            f"{selection.of_documents:,}",
            format_count(facts.num_tokens),
            format_count(selection.of_tokens),
            selection.edge or "–",
        )
        rows.append(SelectionRow(facts.name, selection.in_words, cells))
    return rows


def selection_page(plan: Plan) -> Table:
    """Return the table of a report; without rows where every source is kept whole."""
    rows = selection_rows(plan.conduct.corpora.values())
    return Table(
        words("source", "keeps") + numeric(*SELECTION_NUMBERS),
        tuple((row.source, row.keeps, *row.cells) for row in rows),
    )
