"""What `rewarm inspect` shows on a terminal. Text of documents is quoted, and made harmless."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from rewarm.corpus.histogram import Histogram
from rewarm.corpus.looks import ShownDocument, ShownSpan, ShownWindow
from rewarm.corpus.spelling import Piece
from rewarm.reporting import numbers
from rewarm.reporting.inspection import (
    Inspection,
    bin_label,
    brief,
    document_facts,
    selection_sentence,
    span_note,
    window_facts,
)
from rewarm.reporting.terminal_table import titled_table
from rewarm.reporting.text import harmless
from rewarm.units import format_bytes, format_count

__all__ = ["TextBars", "inspection_view", "lengths_table", "window_strip"]

_EIGHTHS = " ▏▎▍▌▋▊▉"
_MOST_BAR = 48
_COLORS = ("cyan", "yellow", "green", "magenta", "blue", "red")


def inspection_view(found: Inspection) -> RenderableType:
    """Return all that was asked for of a source, one part under the other."""
    parts: list[RenderableType] = [_heading(found)]
    for histogram in found.histograms:
        parts += ["", TextBars(histogram)]
    if found.rejected is not None:
        parts += ["", *_rejects(found)]
    for which, document in found.examples:
        parts += ["", _document(document, which)]
    for document in found.documents:
        parts += ["", _document(document, "")]
    if found.windows:
        parts += ["", Text(found.windows_said, style="bold")]
        for window in found.windows:
            parts += ["", *_window(window)]
    return Group(*parts)


def lengths_table(sources: Sequence[Inspection]) -> RenderableType:
    """Return a row for each source: how long its documents are, and its tokens per byte."""
    table = titled_table("Lengths of documents, in tokens")
    table.add_column("source", overflow="fold", min_width=10)
    table.add_column("median", justify="right")
    table.add_column("shortest", justify="right")
    table.add_column("documents", no_wrap=True)
    table.add_column("longest", justify="right")
    table.add_column("tokens per byte", justify="right")
    for source in sources:
        if len(source.histograms) < 2:
            continue
        length, density = source.histograms[:2]
        first, last = int(length.edges[0]), int(length.edges[-1]) - 1
        table.add_row(
            Text(harmless(source.name)),
            "–" if length.median is None else brief(length.median),
            f"{first:,}+",
            _Spark(length.counts),
            f"≤ {last:,}",
            "–" if density.median is None else brief(density.median),
        )
    return table


@dataclass(frozen=True, slots=True)
class _Spark:
    """Counts as a line of small bars."""

    counts: tuple[int, ...]

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(len(self.counts), len(self.counts))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        steps = " .:-=+*#%@" if options.ascii_only else " ▁▂▃▄▅▆▇█"
        most = max(self.counts, default=0)
        line = (steps[-(-count * (len(steps) - 1) // max(most, 1))] for count in self.counts)
        yield Text("".join(line), style="cyan", no_wrap=True)


def _heading(found: Inspection) -> Text:
    title = Text(harmless(found.name), style="bold")
    facts = found.facts
    if facts is None:
        return title.append("  not prepared: only what was rejected can be looked at", style="dim")
    if found.held_out:
        counts = (facts.held_out_documents, facts.held_out_tokens, facts.held_out_bytes)
    else:
        counts = (facts.num_documents, facts.num_tokens, facts.num_bytes)
    side = "held out" if found.held_out else facts.role
    documents, tokens, num_bytes = counts
    title.append(
        f"  {side}: {documents:,} documents, {format_count(tokens)} tokens, "
        f"{format_bytes(num_bytes)}",
        style="not bold",
    )
    kept = "" if found.held_out else selection_sentence(facts)
    if kept:
        title.append(f"\n{kept}", style="dim not bold")
    if facts.num_label_tokens is not None:
        title.append("\nin ⟦ ⟧ stands what the loss counts", style="dim not bold")
    return title


@dataclass(frozen=True, slots=True)
class TextBars:
    """A histogram as bars of text, as wide as the terminal lets them be."""

    histogram: Histogram

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        histogram = self.histogram
        unit = f", {histogram.unit}" if histogram.unit else ""
        median = "" if histogram.median is None else f", median {brief(histogram.median)}"
        yield Text(f"{harmless(histogram.what)}{unit}{median}", style="bold")
        labels = [bin_label(histogram, index) for index in range(len(histogram.counts))]
        widest = max(map(len, labels), default=0)
        counts = [f"{count:,}" for count in histogram.counts]
        widest_count = max(map(len, counts), default=0)
        room = min(options.max_width - widest - widest_count - 18, _MOST_BAR)
        most = max(histogram.counts, default=0)
        for index in range(len(histogram.counts)):
            line = Text(no_wrap=True)
            line.append(f"{labels[index]:>{widest}} ")
            line.append_text(self._bar(index, most, max(room, 4), options))
            line.append(f" {counts[index]:>{widest_count}}")
            line.append(f" {numbers.share(histogram.shares[index]):>8}", style="dim")
            if self._holds_cut(index):
                line.append(" ◂ cut" if not options.ascii_only else " < cut", style="red")
            yield line
        yield Text("; ".join(self._notes()), style="dim")

    def _bar(self, index: int, most: int, room: int, options: ConsoleOptions) -> Text:
        histogram = self.histogram
        kept = histogram.counts[index] if histogram.kept is None else histogram.kept[index]
        whole = room * histogram.counts[index] / max(most, 1)
        solid = room * kept / max(most, 1)
        if options.ascii_only:
            bar = "#" * round(solid) + "-" * (round(whole) - round(solid))
            return Text(f"{bar:<{room}}")
        bar = _blocks(solid) if kept == histogram.counts[index] else "█" * round(solid)
        bar += "░" * max(0, round(whole) - len(bar)) if kept < histogram.counts[index] else ""
        if not bar.strip() and histogram.counts[index]:
            bar = "▏"
        return Text(f"{bar:<{room}}", style="cyan")

    def _holds_cut(self, index: int) -> bool:
        cut, edges = self.histogram.cut_at, self.histogram.edges
        if cut is None:
            return False
        is_last = index == len(edges) - 2 and cut >= edges[-1]
        return edges[index] <= cut < edges[index + 1] or is_last

    def _notes(self) -> Iterator[str]:
        histogram = self.histogram
        yield "bar and number: documents; per cent: of all tokens"
        if histogram.kept is not None:
            yield "█ kept, ░ not kept"
        for number, side in ((histogram.num_below, "below"), (histogram.num_above, "above")):
            if number:
                yield f"the {'first' if side == 'below' else 'last'} bar has {number:,} {side} it"
        if histogram.num_without:
            yield f"{histogram.num_without:,} have none"


def _blocks(length: float) -> str:
    eighths = round(8 * length)
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


@dataclass(frozen=True, slots=True)
class _Quoted:
    """Text behind a line, so that nothing in it can pass for what the program says."""

    text: Text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        bar = Segment("| " if options.ascii_only else "│ ", Style(dim=True))
        inner = options.update(width=max(options.max_width - 2, 8))
        for line in console.render_lines(self.text, inner, pad=False):
            yield bar
            yield from line
            yield Segment.line()


def _spelled(pieces: Sequence[Piece]) -> Text:
    """Return pieces as text: special tokens stand out, what the loss counts stands in ⟦ ⟧ where it
    does not count everything."""
    text = Text(overflow="fold")
    is_masked = any(not piece.counted for piece in pieces)
    inside = False
    for piece in pieces:
        if is_masked and piece.counted != inside:
            text.append("⟦" if piece.counted else "⟧", style="bold green")
            inside = piece.counted
        style = "bold magenta" if piece.is_special else ""
        if is_masked and not piece.counted:
            style = f"{style} dim".strip()
        text.append(harmless(piece.text), style=style)
    if inside:
        text.append("⟧", style="bold green")
    return text


def _document(document: ShownDocument, which: str) -> RenderableType:
    title = Text(f"document {document.number}  ", style="bold")
    title.append(harmless(document.id), style="not bold")
    if which:
        title.append(f"  {which}", style="not bold cyan")
    said = Text(harmless(document_facts(document)), style="dim")
    if not document.pieces:
        return Group(title, said)
    return Group(title, said, _Quoted(_spelled(document.pieces)))


def _rejects(found: Inspection) -> list[RenderableType]:
    assert found.rejected is not None
    if not found.rejected:
        return [Text("nothing was rejected", style="dim")]
    table = titled_table("Rejected")
    table.add_column("reason", overflow="fold")
    table.add_column("documents", justify="right")
    for reason, count in sorted(found.rejected.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(Text(harmless(reason)), f"{count:,}")
    parts: list[RenderableType] = [table]
    for reject in found.rejects:
        title = Text(f"{harmless(reject.reason)}  ", style="bold")
        title.append(harmless(reject.where), style="not bold")
        parts += ["", title]
        if reject.excerpt:
            parts.append(_Quoted(Text(harmless(reject.excerpt), overflow="fold")))
    return parts


def _window(window: ShownWindow) -> list[RenderableType]:
    title = Text(f"window {window.number}  ", style="bold")
    title.append(window_facts(window), style="not bold")
    parts: list[RenderableType] = [title, window_strip(window)]
    for index, span in enumerate(window.spans):
        parts.append(_span_line(index, span))
        if span.pieces:
            parts.append(_Quoted(_spelled(span.pieces)))
    return parts


def _span_line(index: int, span: ShownSpan) -> Text:
    line = Text("■ ", style=_COLORS[index % len(_COLORS)])
    line.append(f"document {span.number} ", style="default")
    line.append(harmless(span.id), style="default bold")
    line.append(
        f"  tokens {span.first:,} to {span.last - 1:,} of {span.num_tokens:,}, {span_note(span)}",
        style="default dim",
    )
    return line


def window_strip(window: ShownWindow) -> RenderableType:
    """Return a window as a strip, each document's part as long as its share; padding is dotted."""
    return _Strip(window)


@dataclass(frozen=True, slots=True)
class _Strip:
    window: ShownWindow

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, 100) - 2
        strip = Text("[", no_wrap=True)
        at = done = 0
        for index, span in enumerate(self.window.spans):
            at += span.last - span.first
            end = round(width * at / self.window.sequence_length)
            block = "#=" if options.ascii_only else "█▓"
            strip.append(block[index % 2] * (end - done), style=_COLORS[index % len(_COLORS)])
            done = max(done, end)
        strip.append("." * (width - done) if options.ascii_only else "·" * (width - done))
        yield strip.append("]")
