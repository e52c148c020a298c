"""Curves over steps, with the phases shaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from markupsafe import Markup

from rewarm.reporting import numbers
from rewarm.reporting.figures import (
    LAYOUTS,
    Axis,
    Figure,
    Layout,
    LegendEntry,
    Place,
    color_class,
    draw_grid,
    drawing,
    hover_data,
    left_margin,
    thinned,
    width_of,
)
from rewarm.reporting.scales import Scale
from rewarm.reporting.svg import Frame, element, marker, path, shortened, text, text_width
from rewarm.reporting.tables import Table, numeric, words

__all__ = ["LineChart", "Mark", "Point", "Series", "Span", "line_figure"]

_MOST_TABLE_ROWS = 40
_LABEL_HEIGHT = 15.0
_MOST_LABEL = 150.0
_MARK_GAP = 7.0


class Point(NamedTuple):
    """A point of a curve; `noise` is how far its 95 % interval reaches to either side."""

    x: float
    y: float
    noise: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """A curve with its colour.

    Styles: `faint` for raw values under a smoothed curve, `planned` for a broad underlay, `over`
    (dashed) for a curve that lies on another one, so that both are seen.
    """

    name: str
    points: Sequence[Point]
    color: int = 0
    style: Literal["line", "faint", "planned", "over"] = "line"
    marks: bool = False

    @property
    def class_(self) -> str:
        """The CSS class of its colour."""
        return "open" if self.style == "planned" else color_class(self.color)


class Mark(NamedTuple):
    """A place on a curve that is told in words.

    `drops`: a line goes from zero to the place, and the words stand over it; otherwise they stand
    under zero.
    """

    x: float
    y: float
    words: str
    color: int
    drops: bool = False


class Span(NamedTuple):
    """A stretch of the horizontal axis with a name: a phase."""

    start: float
    end: float
    name: str


@dataclass(frozen=True, slots=True)
class LineChart:
    """Several curves over one axis; `kept` shades ± this much around zero.

    `heading` stands over the figure where its surroundings make the whole title too long.
    """

    title: str
    description: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    phases: tuple[Span, ...] = ()
    kept: float | None = None
    marks: tuple[Mark, ...] = ()
    heading: str = ""

    @property
    def named(self) -> tuple[Series, ...]:
        """The series that legend, table and pointer know."""
        return tuple(series for series in self.series if series.style != "faint" and series.points)


def line_figure(chart: LineChart) -> Figure:
    """Draw curves with their names at their ends (wide) or in a legend (narrow)."""
    points = [point for series in chart.series for point in series.points]
    x = chart.x.scale([*(point.x for point in points), *(span.end for span in chart.phases)])
    ends = () if chart.kept is None else (-chart.kept, chart.kept)
    noise = [point.y + sign * (point.noise or 0.0) for point in points for sign in (-1, 1)]
    y = chart.y.scale([*noise, *ends])
    wide, narrow = (_draw(chart, x, y, layout) for layout in LAYOUTS)
    places = (
        Place(
            x.fraction(point.x),
            y.fraction(point.y),
            chart.x.named(point.x),
            series.class_,
            f"{series.name} {chart.y.written(point.y)}",
        )
        for series in chart.named
        for point in series.points
        if _drawable(point, y)
    )
    return Figure(
        title=chart.title,
        heading=chart.heading or chart.title,
        description=chart.description,
        wide=wide,
        narrow=narrow,
        hover=hover_data("column", places),
        legend=tuple(LegendEntry(series.class_, series.name) for series in chart.named),
        table=_table(chart),
    )


def _drawable(point: Point, y: Scale) -> bool:
    return math.isfinite(point.y) and (y.kind != "log" or point.y > 0)


def _table(chart: LineChart) -> Table:
    values = [{point.x: point.y for point in series.points} for series in chart.named]
    every_x = sorted({x for by_x in values for x in by_x})
    kept = thinned(every_x, _MOST_TABLE_ROWS)
    rows = tuple(
        (
            chart.x.written(x),
            *(chart.y.written(by_x[x]) if x in by_x else numbers.MISSING for by_x in values),
        )
        for x in kept
    )
    note = ""
    if len(kept) < len(every_x):
        note = f"{len(kept)} of {len(every_x):,} points, evenly spread; first and last are kept."
    columns = numeric(chart.x.short or chart.x.label) + numeric(
        *(series.name for series in chart.named)
    )
    return Table(columns or words(""), rows, note)


def _draw(chart: LineChart, x: Scale, y: Scale, layout: Layout) -> Markup:
    direct = layout == "wide" and len(chart.named) > 1
    widest = max((text_width(series.name) for series in chart.named), default=0.0)
    width, height = width_of(layout), 300 if layout == "wide" else 260
    top, bottom = (44 if chart.phases else 26), height - 40
    frame = Frame(
        width=width,
        height=height,
        left=left_margin(chart.y, y, bottom - top),
        top=top,
        right=width - (min(widest, _MOST_LABEL) + 34 if direct else 12),
        bottom=bottom,
    )
    parts = [
        *_draw_phases(chart.phases, x, frame),
        *draw_grid(chart.x, chart.y, x, y, frame),
        *_draw_kept(chart.kept, y, frame),
    ]
    for series in chart.series:
        parts += _draw_series(series, x, y, frame)
    for mark in chart.marks:
        parts += _draw_mark(mark, x, y, frame)
    if direct:
        parts += _draw_names(chart.named, x, y, frame)
    return drawing(layout, frame, chart.title, chart.description, parts)


def _draw_phases(phases: Sequence[Span], x: Scale, frame: Frame) -> list[str]:
    parts: list[str] = []
    limit = frame.width - 2
    for index, span in reversed(list(enumerate(phases))):
        left = frame.x(x.fraction(span.start))
        right = frame.x(min(1.0, x.fraction(span.end)))
        if index % 2:
            height = frame.bottom - frame.top
            area = element(
                "rect", class_="band", x=left, y=frame.top, width=right - left, height=height
            )
            parts.append(area)
        # A phase squeezed by a logarithmic axis moves its name to the left where there is room.
        name = shortened(span.name, _MOST_LABEL)
        start = max(frame.left, min(left + 4, limit - text_width(name)))
        if index:
            top = frame.top - (14 if start > left else 1)
            parts.append(element("line", class_="edge", x1=left, x2=left, y1=top, y2=frame.bottom))
        name = shortened(name, limit - start)
        parts.append(text(name, start, frame.top - 5))
        limit = start - 10
    return parts


def _draw_kept(kept: float | None, y: Scale, frame: Frame) -> list[str]:
    if kept is None:
        return []
    top, bottom = frame.y(y.fraction(kept)), frame.y(y.fraction(-kept))
    width, height = frame.right - frame.left, bottom - top
    return [element("rect", class_="kept", x=frame.left, y=top, width=width, height=height)]


def _draw_series(series: Series, x: Scale, y: Scale, frame: Frame) -> list[str]:
    places = [
        (frame.x(x.fraction(point.x)), frame.y(y.fraction(point.y)))
        for point in series.points
        if _drawable(point, y)
    ]
    if not places:
        return []
    parts = _draw_noise(series, x, y, frame)
    parts += [path(places, series.style)] if len(places) > 1 else []
    if series.marks or len(places) == 1:
        parts += [marker(series.color, *place, 2.6, "mark") for place in _apart(places)]
    return [element("g", *parts, class_=series.class_)]


def _draw_mark(mark: Mark, x: Scale, y: Scale, frame: Frame) -> list[str]:
    column, row = frame.x(x.fraction(mark.x)), frame.y(y.fraction(mark.y))
    zero = frame.y(y.fraction(0.0))
    half = text_width(mark.words) / 2
    middle = min(max(column, frame.left + half), frame.right - half)
    parts = []
    if mark.drops:
        parts.append(element("line", class_="drop", x1=column, x2=column, y1=zero, y2=row))
    parts.append(element("circle", class_="ring", cx=column, cy=row, r=4.5))
    baseline = row - 10 if mark.drops else max(row, zero) + 20
    parts.append(text(mark.words, middle, baseline, anchor="middle", class_="direct"))
    return [element("g", *parts, class_=color_class(mark.color))]


def _draw_noise(series: Series, x: Scale, y: Scale, frame: Frame) -> list[str]:
    """Return the band of the points' intervals, where all of them have one."""
    points = [point for point in series.points if _drawable(point, y)]
    if len(points) < 2 or any(point.noise is None for point in points):
        return []
    upper = [(point.x, point.y + (point.noise or 0.0)) for point in points]
    lower = [(point.x, point.y - (point.noise or 0.0)) for point in reversed(points)]
    edge = [
        (frame.x(x.fraction(at)), frame.y(min(1.0, max(0.0, y.fraction(value)))))
        for at, value in upper + lower
    ]
    return [path(edge, "noise")]


def _apart(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the places that are far enough from the one before for marks not to touch."""
    kept = [places[0]]
    for place in places[1:]:
        if math.dist(place, kept[-1]) >= _MARK_GAP:
            kept.append(place)
    return kept


def _draw_names(named: Sequence[Series], x: Scale, y: Scale, frame: Frame) -> list[str]:
    """Return the names at the curves' ends, moved apart where they would overlap."""
    last = [series.points[-1] for series in named]
    ends = [(frame.x(x.fraction(p.x)), frame.y(min(1.0, max(0.0, y.fraction(p.y))))) for p in last]
    rows = spread([row for _, row in ends], _LABEL_HEIGHT, frame.top, frame.bottom)
    column = frame.right + 22
    parts: list[str] = []
    for series, (end_x, end_y), row in zip(named, ends, rows, strict=True):
        name = shortened(series.name, frame.width - column - 2)
        parts.append(
            element(
                "g",
                element("line", class_="leader", x1=end_x + 5, y1=end_y, x2=column - 4, y2=row),
                text(name, column, row + 4, class_="direct"),
                class_=series.class_,
            )
        )
    return parts


def spread(rows: Sequence[float], gap: float, top: float, bottom: float) -> list[float]:
    """Return the rows moved so that they are `gap` apart, and inside where they all fit."""
    order = sorted(range(len(rows)), key=lambda index: rows[index])
    placed = [0.0] * len(rows)
    lowest = top
    for index in order:
        placed[index] = max(rows[index], lowest)
        lowest = placed[index] + gap
    highest = bottom
    for index in reversed(order):
        placed[index] = min(placed[index], highest)
        highest = placed[index] - gap
    return placed
