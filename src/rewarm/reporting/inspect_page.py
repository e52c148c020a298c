"""The page of `rewarm inspect`: sources with histograms, documents, rejects and windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rewarm.artifacts import write_atomically
from rewarm.corpus.looks import ShownDocument, ShownSpan, ShownWindow
from rewarm.corpus.spelling import Piece
from rewarm.reporting.figures import Figure, color_class
from rewarm.reporting.histogram_figure import histogram_figure
from rewarm.reporting.inspection import (
    Inspection,
    Inspections,
    document_facts,
    selection_sentence,
    span_note,
    window_facts,
)
from rewarm.reporting.page import render_page
from rewarm.reporting.tables import Table, numeric, words
from rewarm.reporting.text import harmless
from rewarm.units import format_bytes, format_count

__all__ = ["render_inspection_page", "write_inspection_page"]


class _Part(NamedTuple):
    """A stretch of a quoted text, with the class that it is shown in."""

    class_: str
    text: str


class _Quote(NamedTuple):
    """A text that is quoted, with what stands over it."""

    title: str
    id: str
    which: str
    facts: str
    parts: list[_Part]


class _SpanShown(NamedTuple):
    """A document's part of a window: its colour, its share of the window in per cent, its text."""

    class_: str
    share: float
    quote: _Quote


class _WindowShown(NamedTuple):
    title: str
    facts: str
    spans: list[_SpanShown]
    padding: float


@dataclass(frozen=True, slots=True)
class _Section:
    """One source on the page."""

    anchor: str
    name: str
    line: str
    selection: str
    figures: list[Figure]
    is_masked: bool
    has_rejects: bool
    reasons: Table | None
    rejects: list[_Quote]
    examples: list[_Quote]
    documents: list[_Quote]
    windows: list[_WindowShown]
    windows_said: str


def write_inspection_page(path: Path, found: Inspections) -> None:
    """Write the page, whole or not at all; raises EnvironmentFault where the disk refuses."""
    write_atomically(path, render_inspection_page(found))


def render_inspection_page(found: Inspections) -> str:
    """Return the page: one file without a link to anything outside it."""
    sections = [_section(index, source) for index, source in enumerate(found.sources)]
    return render_page(
        "inspect.html",
        title=harmless(found.title),
        sections=[(section.anchor, section.name) for section in sections],
        ledger=_ledger(found.sources),
        notes=[harmless(note) for note in found.notes],
        sources=sections,
    )


def _ledger(sources: Sequence[Inspection]) -> Table:
    rows = []
    for source in sources:
        facts = source.facts
        rejected = f"{sum((source.rejected or {}).values()):,}"
        if facts is None:
            rows.append((harmless(source.name), "not prepared", "–", "–", "–", "–", rejected))
            continue
        rows.append(
            (
                harmless(source.name),
                facts.role,
                f"{facts.num_documents:,}",
                format_count(facts.num_tokens),
                format_bytes(facts.num_bytes),
                f"{facts.held_out_documents:,}",
                f"{sum(facts.rejected.values()):,}",
            )
        )
    columns = words("source", "role") + numeric(
        "documents", "tokens", "bytes", "held out", "rejected"
    )
    return Table(columns, tuple(rows))


def _section(index: int, source: Inspection) -> _Section:
    facts = source.facts
    rejected = source.rejected
    return _Section(
        anchor=f"source-{index}",
        name=harmless(source.name),
        line=_line(source),
        selection="" if facts is None or source.held_out else selection_sentence(facts),
        figures=[
            histogram_figure(one, title=f"{harmless(source.name)}: {one.what}")
            for one in source.histograms
        ],
        is_masked=facts is not None and facts.num_label_tokens is not None,
        has_rejects=rejected is not None,
        reasons=_reasons(source) if rejected else None,
        rejects=[
            _Quote(harmless(one.reason), harmless(one.where), "", "", _plain(one.excerpt))
            for one in source.rejects
        ],
        examples=[_quote(document, which) for which, document in source.examples],
        documents=[_quote(document, "") for document in source.documents],
        windows=[_window(window) for window in source.windows],
        windows_said=source.windows_said,
    )


def _line(source: Inspection) -> str:
    facts = source.facts
    if facts is None:
        return "It is not prepared: only what was rejected can be looked at."
    if source.held_out:
        counts = (facts.held_out_documents, facts.held_out_tokens, facts.held_out_bytes)
    else:
        counts = (facts.num_documents, facts.num_tokens, facts.num_bytes)
    side = "held out" if source.held_out else facts.role
    return (
        f"{side}: {counts[0]:,} documents, {format_count(counts[1])} tokens, "
        f"{format_bytes(counts[2])}"
    )


def _reasons(source: Inspection) -> Table:
    ranked = sorted((source.rejected or {}).items(), key=lambda item: (-item[1], item[0]))
    rows = tuple((harmless(reason), f"{count:,}") for reason, count in ranked)
    return Table(words("reason") + numeric("documents"), rows)


def _quote(document: ShownDocument, which: str) -> _Quote:
    return _Quote(
        f"document {document.number}",
        harmless(document.id),
        harmless(which),
        harmless(document_facts(document)),
        _parts(document.pieces),
    )


def _plain(content: str) -> list[_Part]:
    return [_Part("", harmless(content))] if content else []


def _parts(pieces: Sequence[Piece]) -> list[_Part]:
    is_masked = any(not piece.counted for piece in pieces)
    parts = []
    for piece in pieces:
        classes = ["special"] if piece.is_special else []
        if is_masked:
            classes.append("counted" if piece.counted else "uncounted")
        parts.append(_Part(" ".join(classes), harmless(piece.text)))
    return parts


def _window(window: ShownWindow) -> _WindowShown:
    return _WindowShown(
        title=f"window {window.number}",
        facts=window_facts(window),
        spans=[_span(index, span, window) for index, span in enumerate(window.spans)],
        padding=round(100 * window.num_padding / window.sequence_length, 3),
    )


def _span(index: int, span: ShownSpan, window: ShownWindow) -> _SpanShown:
    size = span.last - span.first
    facts = f"tokens {span.first:,} to {span.last - 1:,} of {span.num_tokens:,}, {span_note(span)}"
    quote = _Quote(f"document {span.number}", harmless(span.id), "", facts, _parts(span.pieces))
    return _SpanShown(color_class(index), round(100 * size / window.sequence_length, 3), quote)
