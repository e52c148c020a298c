"""Changes around zero, one dot with its interval per row: what a run did to each domain."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from rewarm.reporting.figures import (
    LAYOUTS,
    Axis,
    Estimate,
    Figure,
    Layout,
    Place,
    drawing,
    hover_data,
    width_of,
)
from rewarm.reporting.scales import Scale
from rewarm.reporting.svg import Frame, element, marker, path, shortened, text, text_width
from rewarm.reporting.tables import Cell, Mood, Table, numeric, words

__all__ = ["IntervalChart", "IntervalRow", "interval_figure"]

_TICK_GAP = 60.0
_WORDS_ABOVE = 20.0  # their baseline over a narrow row's interval
_NAME_WIDTH, _VERDICT_WIDTH = 196.0, 186.0


@dataclass(frozen=True, slots=True)
class IntervalRow:
    """A change with its interval and the word that follows from it.

    `points` are those of single runs, of which the change is the mean.
    """

    name: str
    note: str
    change: Estimate
    mood: Mood
    verdict: str
    points: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class IntervalChart:
    """Rows over one axis; ± `kept` around zero is shaded. `row_name` is what the rows are."""

    title: str
    description: str
    axis: Axis
    rows: tuple[IntervalRow, ...]
    kept: float
    row_name: str = "domain"


def interval_figure(chart: IntervalChart) -> Figure:
    """Draw names at the left, intervals in the middle, numbers and words at the right (wide)."""
    ends = [end for row in chart.rows for end in (*row.change, *row.points) if end is not None]
    scale = chart.axis.scale([*ends, -chart.kept, chart.kept])
    wide, narrow = (_draw(chart, scale, layout) for layout in LAYOUTS)
    places = (
        Place(
            scale.fraction(row.change.value),
            _height(index, chart),
            f"{row.name}, {row.note}",
            row.mood,
            f"{chart.axis.with_interval(row.change)}: {row.verdict}",
        )
        for index, row in enumerate(chart.rows)
    )
    rows = tuple(
        (
            Cell(row.name, below=row.note),
            chart.axis.written(row.change.value),
            chart.axis.interval(row.change),
            Cell(row.verdict, row.mood),
        )
        for row in chart.rows
    )
    columns = words(chart.row_name) + numeric(chart.axis.label, "95 % interval") + words("verdict")
    return Figure(
        title=chart.title,
        heading=chart.title,
        description=chart.description,
        wide=wide,
        narrow=narrow,
        hover=hover_data("nearest", places),
        table=Table(columns, rows),
    )


def _height(index: int, chart: IntervalChart) -> float:
    """Return the fraction of the plot's height at which a row's dot stands."""
    return 1 - (index + 0.5) / len(chart.rows)


def _draw(chart: IntervalChart, scale: Scale, layout: Layout) -> Markup:
    width = width_of(layout)
    # A narrow row has its words above its interval, which therefore stands lower in the row.
    row_height, sink = (42.0, 0.0) if layout == "wide" else (56.0, 12.0)
    bottom = 4 + sink + row_height * len(chart.rows)
    frame = Frame(
        width=width,
        height=bottom + 40,
        left=_NAME_WIDTH if layout == "wide" else 12,
        top=4 + sink,
        right=width - (_VERDICT_WIDTH if layout == "wide" else 12),
        bottom=bottom,
    )
    parts = _ground(chart, scale, frame, layout)
    for index, row in enumerate(chart.rows):
        line = frame.y(_height(index, chart))
        draw_words = _words_beside if layout == "wide" else _words_above
        parts += draw_words(chart.axis, row, frame, line)
        parts.append(_mark(row, scale, frame, line))
    return drawing(layout, frame, chart.title, chart.description, parts)


def _ground(chart: IntervalChart, scale: Scale, frame: Frame, layout: Layout) -> list[str]:
    """Return what lies under the dots: what counts as kept, zero, axis and ticks."""
    left, right = frame.x(scale.fraction(-chart.kept)), frame.x(scale.fraction(chart.kept))
    zero = frame.x(scale.fraction(0.0))
    height = frame.bottom - frame.top
    ends = {"x1": frame.left, "x2": frame.right, "y1": frame.bottom, "y2": frame.bottom}
    parts = [
        element("rect", class_="kept", x=left, y=frame.top, width=right - left, height=height),
        *(
            element("line", class_="zero", x1=zero, x2=zero, y1=top, y2=bottom)
            for top, bottom in _stretches(chart, frame, layout)
        ),
        element("line", class_="axis", **ends),
    ]
    ticks = scale.ticks(_TICK_GAP / (frame.right - frame.left))
    for tick, label in zip(ticks, chart.axis.tick_labels(ticks), strict=True):
        x = frame.x(scale.fraction(tick))
        parts.append(
            element("line", class_="axis", x1=x, x2=x, y1=frame.bottom, y2=frame.bottom + 4)
        )
        middle = min(x, frame.width - text_width(label) / 2)
        parts.append(text(label, middle, frame.bottom + 17, anchor="middle"))
    centre = (frame.left + frame.right) / 2
    parts.append(text(chart.axis.label, centre, frame.bottom + 34, class_="name", anchor="middle"))
    return parts


def _stretches(chart: IntervalChart, frame: Frame, layout: Layout) -> list[tuple[float, float]]:
    """Return from where to where the line at zero goes: in a narrow drawing not through words.

    A minus with a line across it reads as a plus.
    """
    if layout == "wide":
        return [(frame.top, frame.bottom + 4)]
    lines = [frame.y(_height(index, chart)) for index in range(len(chart.rows))]
    ends = [*(line - _WORDS_ABOVE - 12 for line in lines[1:]), frame.bottom + 4]
    return [(line - _WORDS_ABOVE + 6, end) for line, end in zip(lines, ends, strict=True)]


def _words_beside(axis: Axis, row: IntervalRow, frame: Frame, line: float) -> list[str]:
    room = frame.left - 16
    value = axis.brief(row.change.value)
    verdict = text(row.verdict, frame.right + 92, line + 4, class_="direct")
    return [
        text(shortened(row.name, room, bold=True), 2, line - 3, class_="strong"),
        text(shortened(row.note, room), 2, line + 13),
        text(value, frame.right + 82, line + 4, class_="strong", anchor="end"),
        element("g", verdict, class_=row.mood),
    ]


def _words_above(axis: Axis, row: IntervalRow, frame: Frame, line: float) -> list[str]:
    verdict = f"{axis.brief(row.change.value)} {row.verdict}"
    room = frame.width - text_width(verdict, bold=True) - 14
    name = shortened(row.name, room, bold=True)
    after = text_width(name, bold=True) + 6
    note = shortened(row.note, room - after)
    written = text(verdict, frame.width - 2, line - _WORDS_ABOVE, class_="direct", anchor="end")
    return [
        text(name, 2, line - _WORDS_ABOVE, class_="strong"),
        *([text(note, 2 + after, line - _WORDS_ABOVE)] if note else []),
        element("g", written, class_=row.mood),
    ]


def _mark(row: IntervalRow, scale: Scale, frame: Frame, line: float) -> str:
    parts: list[str] = []
    if row.change.low is not None and row.change.high is not None:
        low = frame.x(scale.fraction(row.change.low))
        high = frame.x(scale.fraction(row.change.high))
        parts.append(path([(low, line), (high, line)], "whisker"))
        parts += [path([(end, line - 4), (end, line + 4)], "whisker") for end in (low, high)]
    for point in row.points:
        x = frame.x(scale.fraction(point))
        parts.append(path([(x, line - 9), (x, line + 9)], "whisker"))
    parts.append(marker(0, frame.x(scale.fraction(row.change.value)), line, 4.5))
    return element("g", *parts, class_=row.mood)
