"""What `rewarm inspect` found of a source, for the terminal, a page, and JSON alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rewarm.corpus.histogram import Histogram
from rewarm.corpus.looks import ShownDocument, ShownSpan, ShownWindow
from rewarm.corpus.records import Reject
from rewarm.corpus.spelling import Piece
from rewarm.records.facts import CorpusFacts, neighbour_words
from rewarm.reporting import numbers

__all__ = [
    "Inspection",
    "Inspections",
    "as_json",
    "bin_label",
    "brief",
    "document_facts",
    "selection_sentence",
    "span_note",
    "window_facts",
]


@dataclass(frozen=True, slots=True)
class Inspection:
    """One side of one source, as far as it was asked for: what was not is empty.

    `facts` is None where only what was rejected is there to look at. `examples` are the documents
    that scored best, worst and nearest to where a selection was cut, by those names.
    """

    name: str
    facts: CorpusFacts | None
    held_out: bool = False
    histograms: tuple[Histogram, ...] = ()
    documents: tuple[ShownDocument, ...] = ()
    is_sample: bool = True
    examples: tuple[tuple[str, ShownDocument], ...] = ()
    rejected: Mapping[str, int] | None = None
    rejects: tuple[Reject, ...] = ()
    windows: tuple[ShownWindow, ...] = ()
    windows_said: str = ""


@dataclass(frozen=True, slots=True)
class Inspections:
    """Everything that was asked for; `notes` say what could not be shown, and why."""

    title: str
    sources: tuple[Inspection, ...]
    notes: tuple[str, ...] = ()
    overview: bool = True


def as_json(found: Inspections) -> dict[str, Any]:
    """Return it as values of JSON; what is no number is null."""
    return {
        "title": found.title,
        "notes": list(found.notes),
        "sources": [_source_json(source) for source in found.sources],
    }


def _source_json(source: Inspection) -> dict[str, Any]:
    return {
        "name": source.name,
        "side": "held-out" if source.held_out else "training",
        "facts": None if source.facts is None else source.facts.model_dump(mode="json"),
        "histograms": [asdict(one) for one in source.histograms],
        "documents": [_document_json(one) for one in source.documents],
        "examples": [{"which": which, **_document_json(one)} for which, one in source.examples],
        "rejected": None if source.rejected is None else dict(source.rejected),
        "rejects": [asdict(one) for one in source.rejects],
        "windows": [_window_json(one) for one in source.windows],
    }


def _document_json(document: ShownDocument) -> dict[str, Any]:
    scores = {name: None if value != value else value for name, value in document.scores}
    return {
        **document._asdict(),
        "pieces": [piece._asdict() for piece in document.pieces],
        "scores": scores,
    }


def _window_json(window: ShownWindow) -> dict[str, Any]:
    spans = [
        {**span._asdict(), "pieces": [piece._asdict() for piece in span.pieces]}
        for span in window.spans
    ]
    return {**asdict(window), "spans": spans, "num_padding": window.num_padding}


def bin_label(histogram: Histogram, index: int) -> str:
    """Return what a bin holds: 64–90, or where it begins and ends to three digits."""
    low, high = histogram.edges[index], histogram.edges[index + 1]
    if histogram.are_whole:
        last = int(high) - 1
        return f"{int(low):,}" if last == int(low) else f"{int(low):,}–{last:,}"
    return f"{brief(low)} – {brief(high)}"


def brief(value: float) -> str:
    """Return a number to three digits, whole ones from a thousand on: 0.258, 12.5, 1,348."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def selection_sentence(facts: CorpusFacts) -> str:
    """Say what a selection keeps of a source; empty where it is kept whole."""
    selection = facts.selection
    if selection is None:
        return ""
    edge = "" if selection.edge is None else f", cut at {selection.edge}"
    return (
        f"kept, {selection.in_words}: {facts.num_documents:,} of {selection.of_documents:,} "
        f"documents, {facts.num_tokens:,} of {selection.of_tokens:,} tokens{edge}"
    )


def document_facts(document: ShownDocument) -> str:
    """Say how long a document is, what it scored, whether it is kept, how much of it is shown."""
    said = [f"{document.num_tokens:,} tokens", f"{document.num_bytes:,} bytes"]
    for name, value in document.scores:
        if value != value:
            said.append(f"{name} not scored")
        else:
            is_neighbour = name.startswith("neighbours")
            said.append(neighbour_words(value) if is_neighbour else f"{name} {brief(value)}")
    if document.is_kept is not None:
        said.append("kept" if document.is_kept else "not kept")
    if 0 < document.last < document.num_tokens:
        said.append(f"its first {document.last:,} tokens")
    return ", ".join(said)


def window_facts(window: ShownWindow) -> str:
    """Say what a window holds, and when a plan shows it."""
    said = [f"{len(window.spans)} document{'s' if len(window.spans) != 1 else ''}"]
    share = numbers.share(window.num_padding / window.sequence_length)
    said.append(f"{window.num_padding:,} of padding ({share})" if window.num_padding else "full")
    said.append(f"{window.num_counted:,} of {window.sequence_length:,} labels count")
    if window.step is not None:
        said.append(f"step {window.step}, epoch {window.epoch}")
    return ", ".join(said)


def span_note(span: ShownSpan) -> str:
    """Say where edges of the window cut a document: both, its beginning, its end, or nothing."""
    begins, ends = span.first == 0, span.last == span.num_tokens
    if begins and ends:
        return "whole"
    if begins:
        return "goes on in another window"
    return "begins in another window" if ends else "cut at both ends"


def text_of(pieces: tuple[Piece, ...]) -> str:
    """Return pieces as plain text."""
    return "".join(piece.text for piece in pieces)
