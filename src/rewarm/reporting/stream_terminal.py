"""Streams on a terminal: what will be run, and what came of it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rewarm.records.comparison import PairedEffect
from rewarm.records.stream import Measure, StreamFigure, StreamResult
from rewarm.reporting import numbers
from rewarm.reporting.effects import effect_value, interval_of, mood_of_effect, p_value
from rewarm.reporting.terminal_table import ByWidth, bullets, cut, titled_table
from rewarm.reporting.text import clean

__all__ = [
    "figure_text",
    "gain_headings",
    "headings",
    "print_stream",
    "stream_plan",
    "stream_table",
    "test_heading",
]

_HEADINGS: Mapping[str, tuple[str, str]] = {
    "final": ("accuracy", "bits per byte"),
    "forgetting": ("forgetting", "forgetting"),
    "bwt": ("BWT", "BWT"),
    "min_acc": ("min-ACC", "worst"),
    "wc_acc": ("WC-ACC", "WC"),
    "stability_gap": ("stability gap", "stability gap"),
}

_STYLES = {"good": "green", "bad": "red", "open": "yellow", "": ""}
_LEAST_COLUMNS = 100


def headings(measure: Measure) -> dict[str, str]:
    """Return the headings of the metrics, by name, of accuracies or of bits per byte."""
    of = 0 if measure == "share right" else 1
    return {name: pair[of] for name, pair in _HEADINGS.items()}


def stream_plan(name: str, facts: Sequence[tuple[str, str]]) -> Table:
    """Return what an experiment will do, row by row."""
    table = titled_table(f"Stream {cut(name, 64)}")
    table.add_column("what")
    table.add_column("how")
    for what, how in facts:
        table.add_row(what, Text(clean(how)))
    return table


def print_stream(result: StreamResult, console: Console) -> None:
    """Write what came of an experiment."""
    console.print(stream_table(result, wide=console.width >= _LEAST_COLUMNS))
    if result.probes:
        console.print("", _probe_table(result), sep="\n")
    if result.primary:
        lines = bullets([f"{test_heading(result)}:", *(e.sentence for e in result.primary)])
        console.print("", ByWidth(_tests(result), lines), sep="\n")
    if result.verdict:
        console.print(Text(f"\n{clean(result.verdict)}", style="bold"))
    if result.notes:
        console.print("", bullets(result.notes), sep="\n")


def stream_table(result: StreamResult, *, wide: bool) -> Table:
    """Return the metrics of every backbone with every learner; without intervals where narrow."""
    named = headings(result.measure)
    shown = [m for m in named if any(m in cell.figures for cell in result.cells)]
    seeds = "1 seed" if len(result.seeds) == 1 else f"means of {len(result.seeds)} seeds"
    intervals = ", ± half a 95 % interval" if wide and len(result.seeds) > 1 else ""
    table = titled_table(f"{cut(result.name, 64)}: {seeds}{intervals}")
    for heading in ("backbone", "learner"):
        table.add_column(heading, overflow="fold")
    for metric in shown:
        table.add_column(named[metric].removeprefix("stability "), justify="right", no_wrap=True)
    for cell in result.cells:
        figures = [cell.figures.get(metric) for metric in shown]
        written = [
            figure_text(f) if wide else numbers.plain(f.mean if f else None) for f in figures
        ]
        width = 16 if wide else 13
        table.add_row(_in_lines(cell.backbone, width), _in_lines(cell.learner, width), *written)
    return table


def _in_lines(name: str, width: int) -> str:
    """Return a name in lines that end at its hyphens, where it is longer than the width."""
    return "\n".join(textwrap.wrap(cut(name, 24), width))


def _probe_table(result: StreamResult) -> Table:
    table = titled_table("Linear probe, share right")
    table.add_column("backbone")
    table.add_column("accuracy", justify="right")
    table.add_column("")
    for probe in result.probes:
        best = "best" if probe.is_best else ""
        table.add_row(cut(probe.backbone, 24), figure_text(probe.figure), best)
    return table


def test_heading(result: StreamResult) -> str:
    """Return what the primary tests are tests of."""
    if result.verdict:
        return "Contrasts, named before the first run"
    return f"Final {headings(result.measure)['final']} against {result.control}"


def _tests(result: StreamResult) -> Table:
    table = titled_table(f"{test_heading(result)}; Holm over {len(result.primary)}")
    table.add_column("difference", overflow="fold")
    for heading in ("mean", "95 % interval", "p", "Holm"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for effect in result.primary:
        table.add_row(
            Text(_difference(effect, result.measure)),
            effect_value(effect),
            interval_of(effect),
            p_value(effect.p),
            p_value(effect.p_holm),
            Text(effect.word, style=_STYLES[mood_of_effect(effect)]),
        )
    return table


def _difference(effect: PairedEffect, measure: Measure) -> str:
    metric = headings(measure).get(effect.metric, effect.metric)
    return clean(f"{metric}: {effect.arm} − {effect.against}")


def gain_headings(result: StreamResult) -> tuple[str, ...]:
    """Return the pre-trained backbones that gains are told of, in the order of the table."""
    return tuple(dict.fromkeys(gain.backbone for gain in result.gains))


def figure_text(figure: StreamFigure | None) -> str:
    """Return a mean and half the width of its interval."""
    if figure is None:
        return numbers.MISSING
    mean = numbers.plain(figure.mean)
    if figure.low is None or figure.high is None:
        return mean
    return f"{mean} ±{numbers.plain((figure.high - figure.low) / 2)}"  # t intervals are symmetric
