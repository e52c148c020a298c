"""The page of a stream: tests, the table, gains, and accuracy by task over time for every cell."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from rewarm.artifacts import write_atomically
from rewarm.records.comparison import PairedEffect
from rewarm.records.stream import StreamCell, StreamFigure, StreamResult
from rewarm.reporting import numbers
from rewarm.reporting.effects import (
    effect_value,
    interval_of,
    mood_of_effect,
    p_value,
    per_seed,
    written,
)
from rewarm.reporting.page import render_page
from rewarm.reporting.stream_terminal import METRICS, gain_headings, test_heading
from rewarm.reporting.svg import element, text
from rewarm.reporting.tables import Cell, Table, numeric, words

__all__ = ["matrix_figure", "render_stream_page", "write_stream_page"]

_MOST_SIDE, _LEAST_SIDE, _ROOM = 30, 11, 300
_LEFT, _TOP = 34, 24
_MOST_LABELS = 10
_MOST_SWAPS = 12


class _Drawn(NamedTuple):
    heading: str
    svg: Markup
    table: Table


def write_stream_page(result: StreamResult, folder: Path) -> Path:
    """Write `report.html` in a folder and return its path."""
    path = folder / "report.html"
    write_atomically(path, render_stream_page(result))
    return path


def render_stream_page(result: StreamResult) -> str:
    """Return the page."""
    sections = [
        ("table", "Figures"),
        *([("tests", "Tests")] if result.primary else []),
        *([("probe", "Probe")] if result.probes else []),
        *([("gains", "Gains from pre-training")] if result.gains else []),
        ("matrices", "Task by task"),
    ]
    seeds = "1 seed" if len(result.seeds) == 1 else f"{len(result.seeds)} seeds"
    return render_page(
        "stream.html",
        title=f"Stream {result.name}",
        sections=sections,
        hypothesis=result.hypothesis,
        verdict=result.verdict,
        facts=(
            f"{result.num_classes} classes in {result.num_tasks} tasks, {result.mode}; "
            f"{result.num_train} examples to train on, {result.num_test} to test on; {seeds}."
        ),
        notes=result.notes,
        registered=_registered(result),
        table=_figures(result),
        tests=_tests(result),
        test_heading=test_heading(result),
        probe=_probe(result),
        gains=_gains(result),
        swaps=_swaps(result),
        drawn=[_drawn(cell) for cell in result.cells],
    )


def _registered(result: StreamResult) -> str:
    known = result.registration
    if known is None:
        return ""
    when = "before the first run" if known.before_runs else "AFTER runs had begun"
    return f"{known.file_name}, SHA-256 {known.file_sha256[:12]}, {known.time}, {when}"


def _figures(result: StreamResult) -> Table:
    shown = [m for m in METRICS if any(m in cell.figures for cell in result.cells)]
    several = len(result.seeds) > 1
    note = "Proportions" + ("; below each mean its 95 % t interval over seeds." if several else ".")
    return Table(
        columns=words("backbone", "learner") + numeric(*(METRICS[m] for m in shown)),
        rows=tuple(
            (cell.backbone, cell.learner, *(_mean(cell.figures.get(m)) for m in shown))
            for cell in result.cells
        ),
        note=note,
    )


def _mean(figure: StreamFigure | None) -> Cell:
    if figure is None:
        return Cell(numbers.MISSING)
    if figure.low is None or figure.high is None:
        return Cell(numbers.plain(figure.mean))
    below = numbers.interval(numbers.plain(figure.low), numbers.plain(figure.high))
    return Cell(numbers.plain(figure.mean), below=below)


def _tests(result: StreamResult) -> Table:
    return Table(
        columns=words("difference", "of")
        + numeric("mean", "by seed", "p", "p after Holm")
        + words("came out"),
        rows=tuple(map(_test, result.primary)),
        note=f"Paired by seed; Holm over {len(result.primary)}. Points are per cent of examples.",
    )


def _test(effect: PairedEffect) -> tuple[str | Cell, ...]:
    return (
        f"{effect.arm} − {effect.against}",
        METRICS.get(effect.metric, effect.metric),
        Cell(effect_value(effect), below=interval_of(effect)),
        per_seed(effect).replace(" points", ""),
        p_value(effect.p),
        p_value(effect.p_holm),
        Cell(effect.word or numbers.MISSING, mood_of_effect(effect)),
    )


def _probe(result: StreamResult) -> Table:
    return Table(
        columns=words("backbone") + numeric("accuracy", "fitted to") + words(""),
        rows=tuple(
            (p.backbone, _mean(p.figure), f"{p.num_examples}", "best" if p.is_best else "")
            for p in result.probes
        ),
        note="A linear classifier on frozen features, measured on training examples left out.",
    )


def _gains(result: StreamResult) -> Table:
    backbones = gain_headings(result)
    learners = list(dict.fromkeys(gain.learner for gain in result.gains))
    by_place = {(gain.backbone, gain.learner): gain for gain in result.gains}
    rows: list[tuple[str | Cell, ...]] = []
    for learner in learners:
        found = [by_place[backbone, learner] for backbone in backbones]
        row: list[str | Cell] = [learner, f"{found[0].rank_scratch}"]
        for gain in found:
            row += [_gain(gain.figure), f"{gain.rank}"]
        rows.append(tuple(row))
    pairs = [name for backbone in backbones for name in (f"gain of {backbone}", "rank")]
    scratch = result.gains[0].scratch if result.gains else ""
    return Table(
        columns=words("learner") + numeric(f"rank in {scratch}", *pairs),
        rows=tuple(rows),
        note=f"Final accuracy less that of {scratch}, points, with 95 % t intervals; ranks are of "
        "learners by their means. Not adjusted for how many there are.",
    )


def _gain(figure: StreamFigure) -> Cell:
    def points(value: float) -> str:
        return written(value, "share right", sign=True).removesuffix(" points")

    if figure.low is None or figure.high is None:
        return Cell(points(figure.mean))
    below = numbers.interval(points(figure.low), points(figure.high))
    return Cell(points(figure.mean), below=below)


def _swaps(result: StreamResult) -> Table:
    resolved = sum(swap.is_resolved for swap in result.swaps)
    shown = result.swaps[:_MOST_SWAPS]
    return Table(
        columns=words("backbone", "ahead", "behind")
        + numeric("there", "from scratch")
        + words("both intervals leave 0 out"),
        rows=tuple(
            (
                swap.backbone,
                swap.ahead,
                swap.behind,
                Cell(effect_value(swap.effect), below=interval_of(swap.effect)),
                Cell(effect_value(swap.effect_scratch), below=interval_of(swap.effect_scratch)),
                "yes" if swap.is_resolved else "no",
            )
            for swap in shown
        ),
        note=f"{len(result.swaps)} pairs of learners change places in their means, {resolved} of "
        f"them with both intervals clear of 0"
        + (f"; {_MOST_SWAPS} are shown." if len(result.swaps) > _MOST_SWAPS else "."),
    )


def _drawn(cell: StreamCell) -> _Drawn:
    num_tasks = len(cell.mean_matrix)
    table = Table(
        columns=words("after task") + numeric(*(f"task {k + 1}" for k in range(num_tasks))),
        rows=tuple(
            (f"{t + 1}", *(f"{value:.3f}" for value in row), *[""] * (num_tasks - len(row)))
            for t, row in enumerate(cell.mean_matrix)
        ),
    )
    return _Drawn(f"{cell.backbone}, {cell.learner}", matrix_figure(cell), table)


def matrix_figure(cell: StreamCell) -> Markup:
    """Return squares whose depth of colour is the accuracy on task (row) after task (column)."""
    num_tasks = len(cell.mean_matrix)
    side = max(_LEAST_SIDE, min(_MOST_SIDE, _ROOM // num_tasks))
    every = -(-num_tasks // _MOST_LABELS)
    parts: list[str] = []
    for t, row in enumerate(cell.mean_matrix):
        x = _LEFT + t * side
        if t % every == 0:
            parts.append(text(str(t + 1), x + side / 2, _TOP - 8, anchor="middle"))
            parts.append(text(str(t + 1), _LEFT - 8, _TOP + t * side + side / 2 + 4, anchor="end"))
        for k, value in enumerate(row):
            y = _TOP + k * side
            square = {"x": x, "y": y, "width": side - 2, "height": side - 2}
            said = f"task {k + 1} after task {t + 1}: {value:.3f}"
            parts.append(element("rect", class_="band", **square))
            parts.append(
                element("rect", element("title", said), class_="mark", fill_opacity=value, **square)
            )
    width, height = _LEFT + num_tasks * side, _TOP + num_tasks * side
    label = f"Accuracy by task over time, {cell.backbone}, {cell.learner}"
    return Markup(
        element(
            "svg",
            *parts,
            class_="figure s0",
            role="img",
            aria_label=label,
            viewBox=f"0 0 {width} {height}",
            width=width,
            height=height,
        )
    )
