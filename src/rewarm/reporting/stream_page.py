"""The page of a stream: tests, the table, gains, and accuracy by task over time for every cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from rewarm.artifacts import write_atomically
from rewarm.records.comparison import PairedEffect
from rewarm.records.stream import Measure, StreamCell, StreamFigure, StreamResult
from rewarm.reporting import numbers
from rewarm.reporting.effects import (
    effect_value,
    interval_of,
    mood_of_effect,
    p_value,
    per_seed,
    written,
)
from rewarm.reporting.figures import Axis, Estimate, Figure
from rewarm.reporting.intervals import IntervalChart, IntervalRow, interval_figure
from rewarm.reporting.page import render_page
from rewarm.reporting.stream_losses import loss_figures
from rewarm.reporting.stream_terminal import gain_headings, headings, test_heading
from rewarm.reporting.svg import element, text
from rewarm.reporting.tables import Cell, Mood, Table, numeric, words
from rewarm.reporting.terminal_table import cut

__all__ = [
    "gain_figures",
    "matrix_figure",
    "render_stream_page",
    "stream_tables",
    "write_stream_page",
]

_MOST_SIDE, _LEAST_SIDE, _ROOM = 30, 11, 300
_LEFT, _TOP = 34, 24
_MOST_LABELS = 10
_LONGEST_NAME, _CHARACTER = 14, 7
_FAINTEST = 0.12
_LARGEST_SCALE = 1.3
_MOST_SWAPS = 12
_SECOND_STAGE, _APART = "S2", 12  # what stands over its column, and the room before it

_UNITS: Mapping[Measure, str] = {
    "share right": "Proportions",
    "bits per byte": "Bits per byte of held-out text: lower is better, but of BWT higher; worst "
    "and WC are min-ACC and WC-ACC of a loss",
}
_LEGENDS: Mapping[Measure, str] = {
    "share right": "a deeper square is a higher accuracy (mean of the seeds), an empty one a "
    "task that had not come.",
    "bits per byte": "a deeper square is fewer bits per byte (mean of the seeds), the deepest the "
    "fewest on its task anywhere on this page. Column 0 is before the first step.",
}
_DIFFERENCES: Mapping[Measure, str] = {
    "share right": "Points are per cent of examples.",
    "bits per byte": "Differences are in bits per byte.",
}


class _Drawn(NamedTuple):
    heading: str
    svg: Markup
    table: Table


def write_stream_page(result: StreamResult, folder: Path) -> Path:
    """Write `report.html` in a folder and return its path."""
    path = folder / "report.html"
    write_atomically(path, render_stream_page(result, tuple(loss_figures(result, folder))))
    return path


def render_stream_page(result: StreamResult, losses: Sequence[Figure] = ()) -> str:
    """Return the page; `losses` are figures of each cell's training."""
    sections = [
        ("table", "Figures"),
        *([("tests", "Tests")] if result.primary else []),
        *([("probe", "Probe")] if result.probes else []),
        *([("gains", "Gains from pre-training")] if result.gains else []),
        ("matrices", "Task by task"),
        *([("losses", "Training loss")] if losses else []),
    ]
    seeds = "1 seed" if len(result.seeds) == 1 else f"{len(result.seeds)} seeds"
    return render_page(
        "stream.html",
        title=f"Stream {result.name}",
        sections=sections,
        hypothesis=result.hypothesis,
        verdict=result.verdict,
        facts=f"{result.about}; {seeds}.",
        notes=result.notes,
        registered=_registered(result),
        tables=stream_tables(result),
        test_heading=test_heading(result),
        gain_figures=gain_figures(result),
        legend=_legend(result),
        losses=losses,
        drawn=[_drawn(cell, result) for cell in result.cells],
    )


def stream_tables(result: StreamResult) -> dict[str, Table]:
    """Return the tables: `figures`, and those of `tests`, `probe`, `gains`, `swaps` with rows."""
    tables = {
        "figures": _figures(result),
        "tests": _tests(result),
        "probe": _probe(result),
        "gains": _gains(result),
        "swaps": _swaps(result),
    }
    return {name: table for name, table in tables.items() if table.rows or name == "figures"}


def gain_figures(result: StreamResult) -> list[Figure]:
    """Return for each pre-trained backbone what learners gain from it, the most first."""
    what = headings(result.measure)["final"]
    unit = "points" if result.measure == "share right" else result.measure
    figures = []
    for backbone in gain_headings(result):
        found = [gain for gain in result.gains if gain.backbone == backbone]
        found.sort(key=lambda gain: (-gain.figure.mean, gain.learner))
        scratch = found[0].scratch
        label = f"final {what} less that of {scratch}, {unit}"
        chart = IntervalChart(
            title=f"What learners gain from {backbone}",
            description=f"Each learner's {label}: mean over seeds with its 95 % t interval.",
            axis=Axis(
                label, form="points" if unit == "points" else "signed", short=f"gain in {what}"
            ),
            rows=tuple(
                IntervalRow(
                    name=gain.learner,
                    note=f"rank {gain.rank_scratch} in {scratch}, {gain.rank} here",
                    change=Estimate(gain.figure.mean, gain.figure.low, gain.figure.high),
                    mood=_mood(gain.figure, result.measure),
                    verdict="",
                )
                for gain in found
            ),
            kept=0.0,
            row_name="learner",
        )
        figures.append(interval_figure(chart))
    return figures


def _mood(gain: StreamFigure, measure: Measure) -> Mood:
    """Return the judgement of a gain: open where its interval holds 0, or there is none."""
    if gain.low is None or gain.high is None or gain.low <= 0 <= gain.high:
        return "open"
    return "good" if (gain.mean > 0) == (measure == "share right") else "bad"


def _registered(result: StreamResult) -> str:
    known = result.registration
    if known is None:
        return ""
    when = "before the first run" if known.before_runs else "AFTER runs had begun"
    return f"{known.file_name}, SHA-256 {known.file_sha256[:12]}, {known.time}, {when}"


def _figures(result: StreamResult) -> Table:
    named = headings(result.measure)
    shown = [m for m in named if any(m in cell.figures for cell in result.cells)]
    note = _UNITS[result.measure]
    note += "; below each mean its 95 % t interval over seeds." if len(result.seeds) > 1 else "."
    return Table(
        columns=words("backbone", "learner") + numeric(*(named[m] for m in shown)),
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
        rows=tuple(_test(effect, headings(result.measure)) for effect in result.primary),
        note=f"Paired by seed; Holm over {len(result.primary)}. {_DIFFERENCES[result.measure]}",
    )


def _test(effect: PairedEffect, named: Mapping[str, str]) -> tuple[str | Cell, ...]:
    return (
        f"{effect.arm} − {effect.against}",
        named.get(effect.metric, effect.metric),
        Cell(effect_value(effect), below=_points_once(effect)),
        per_seed(effect).replace(" points", ""),
        p_value(effect.p),
        p_value(effect.p_holm),
        Cell(effect.word or numbers.MISSING, mood_of_effect(effect)),
    )


def _points_once(effect: PairedEffect) -> str:
    """Return an interval without its unit, which stands above it."""
    return interval_of(effect).replace(" points", "")


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
            row += [_gain(gain.figure, result.measure), f"{gain.rank}"]
        rows.append(tuple(row))
    pairs = [name for backbone in backbones for name in (f"gain of {backbone}", "rank")]
    scratch = result.gains[0].scratch if result.gains else ""
    return Table(
        columns=words("learner") + numeric(f"rank in {scratch}", *pairs),
        rows=tuple(rows),
        note=f"Final {headings(result.measure)['final']} less that of {scratch}"
        f"{', points' if result.measure == 'share right' else ''}, with 95 % t intervals; ranks "
        "are of learners by their means, 1 the best. Not adjusted for how many there are.",
    )


def _gain(figure: StreamFigure, measure: Measure) -> Cell:
    def points(value: float) -> str:
        return written(value, measure, sign=True).removesuffix(" points")

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
                Cell(effect_value(swap.effect), below=_points_once(swap.effect)),
                Cell(effect_value(swap.effect_scratch), below=_points_once(swap.effect_scratch)),
                "yes" if swap.is_resolved else "no",
            )
            for swap in shown
        ),
        note=f"{len(result.swaps)} pairs of learners change places in their means, {resolved} of "
        f"them with both intervals clear of 0"
        + (f"; {_MOST_SWAPS} are shown." if len(result.swaps) > _MOST_SWAPS else "."),
    )


class _Column(NamedTuple):
    """A moment: its name over a figure and in words, and the figures there on the tasks from the
    first on."""

    name: str
    when: str
    values: Sequence[float]


def _columns(cell: StreamCell) -> list[_Column]:
    """Return what was known before the first task and after a second stage, where they are on
    record, and between them after each task."""
    rows = enumerate(cell.mean_matrix, start=1)
    found = [_Column(f"{task}", f"after task {task}", row) for task, row in rows]
    if cell.mean_before:
        found.insert(0, _Column("0", "after task 0", cell.mean_before))
    if cell.mean_second_stage:
        found.append(_Column(_SECOND_STAGE, "after the second stage", cell.mean_second_stage))
    return found


def _legend(result: StreamResult) -> str:
    has_second = any(cell.mean_second_stage for cell in result.cells)
    told = f" Column {_SECOND_STAGE}, set apart, is after the second stage." if has_second else ""
    return _LEGENDS[result.measure] + told


def _task_name(result: StreamResult, task: int) -> str:
    return result.task_names[task] if result.task_names else f"task {task + 1}"


def _drawn(cell: StreamCell, result: StreamResult) -> _Drawn:
    num_tasks = len(cell.mean_matrix)
    table = Table(
        columns=words("after task")
        + numeric(*(_task_name(result, task) for task in range(num_tasks))),
        rows=tuple(
            (name, *(f"{v:.3f}" for v in values), *[""] * (num_tasks - len(values)))
            for name, _, values in _columns(cell)
        ),
    )
    return _Drawn(f"{cell.backbone}, {cell.learner}", matrix_figure(cell, result), table)


def _depths(result: StreamResult) -> list[Callable[[float], float]]:
    """Return for each task the depth of colour of a figure, from 0 to 1.

    An accuracy is its own. Bits per byte have no common end, and some text is harder than other:
    the deepest is the least on a task anywhere on the page, the faintest the most.
    """
    if result.measure == "share right":
        return [lambda value: value] * result.num_tasks
    found: list[Callable[[float], float]] = []
    for task in range(result.num_tasks):
        values = [
            c.values[task] for cell in result.cells for c in _columns(cell) if task < len(c.values)
        ]
        found.append(partial(_depth, min(values), max(values)))
    return found


def _depth(least: float, most: float, value: float) -> float:
    share = (value - least) / (most - least) if most > least else 0.0
    return 1 - (1 - _FAINTEST) * share


def matrix_figure(cell: StreamCell, result: StreamResult) -> Markup:
    """Return squares: the deeper, the better known is the row's task at the column's moment."""
    columns, depths = _columns(cell), _depths(result)
    num_tasks = len(cell.mean_matrix)
    side = max(_LEAST_SIDE, min(_MOST_SIDE, _ROOM // len(columns)))
    every = -(-num_tasks // _MOST_LABELS)
    names = [cut(name, _LONGEST_NAME) for name in result.task_names] or [
        f"{task + 1}" for task in range(num_tasks)
    ]
    left = max(_LEFT, 12 + _CHARACTER * max(map(len, names)))
    parts: list[str] = []
    for task in range(0, num_tasks, every):
        y = _TOP + task * side + side / 2 + 4
        parts.append(text(names[task], left - 8, y, anchor="end"))
    for place, (moment, when, values) in enumerate(columns):
        is_apart = moment == _SECOND_STAGE
        x = left + place * side + (_APART if is_apart else 0)
        if place % every == 0 or is_apart:
            parts.append(text(moment, x + side / 2, _TOP - 8, anchor="middle"))
        for task, value in enumerate(values):
            square = {"x": x, "y": _TOP + task * side, "width": side - 2, "height": side - 2}
            said = f"{_task_name(result, task)} {when}: {value:.3f}"
            depth = round(depths[task](value), 4)
            parts.append(element("rect", class_="band", **square))
            parts.append(
                element("rect", element("title", said), class_="mark", fill_opacity=depth, **square)
            )
    apart = _APART if cell.mean_second_stage else 0
    width, height = left + len(columns) * side + apart, _TOP + num_tasks * side
    what = headings(result.measure)["final"].capitalize()
    label = f"{what} by task over time, {cell.backbone}, {cell.learner}"
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
            style=f"max-width: {round(_LARGEST_SCALE * width)}px",
        )
    )
