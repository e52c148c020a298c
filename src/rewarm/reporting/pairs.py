"""Pairs of figures with their intervals: adaptation against forgetting."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from rewarm.reporting.figures import (
    LAYOUTS,
    Axis,
    Estimate,
    Figure,
    Layout,
    Place,
    color_class,
    draw_grid,
    drawing,
    hover_data,
    left_margin,
    width_of,
)
from rewarm.reporting.scales import Scale
from rewarm.reporting.svg import Frame, element, marker, path, shortened, text, text_width
from rewarm.reporting.tables import Table, numeric, words

__all__ = ["Pair", "PairChart", "pair_figure"]

_MOST_LABEL = 170.0
_NEAR = 14.0  # pixels between a point and its name without a line
_FURTHER = (-22, 31, -37, 46, -52, 61, -67, 76)

_Pixels = tuple[float, float]
_Line = tuple[_Pixels, _Pixels]
_Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two figures of one arm; `points` are those of its single runs, each with its name."""

    name: str
    x: Estimate
    y: Estimate
    color: int
    points: tuple[tuple[str, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class PairChart:
    """Pairs where left (x) and up (y) are better; `origin` names the hollow mark at (0, 0).

    The dashed path is the staircase of those that no other pair beats in both figures ("front"), or
    goes from the origin through all of them ("in order"). `row_name` is what the table's rows are.
    """

    title: str
    description: str
    x: Axis
    y: Axis
    pairs: tuple[Pair, ...]
    origin: str
    path: Literal["front", "in order"] = "front"
    row_name: str = "arm"


def pair_figure(chart: PairChart) -> Figure:
    """Draw the pairs with their intervals, and the path."""
    singles = [single for pair in chart.pairs for single in pair.points]
    x_ends = [end for p in chart.pairs for end in p.x if end is not None]
    y_ends = [end for p in chart.pairs for end in p.y if end is not None]
    x = chart.x.scale([0.0, *x_ends, *(single[1] for single in singles)])
    y = chart.y.scale([0.0, *y_ends, *(single[2] for single in singles)])
    wide, narrow = (_draw(chart, x, y, layout) for layout in LAYOUTS)
    found = [(pair.name, pair.color, pair.x, pair.y) for pair in chart.pairs]
    found += [
        (f"{pair.name}, {name}", pair.color, Estimate(at_x), Estimate(at_y))
        for pair in chart.pairs
        for name, at_x, at_y in pair.points
    ]
    places = (
        Place(
            x.fraction(at_x.value),
            y.fraction(at_y.value),
            name,
            color_class(color),
            f"{chart.x.short or chart.x.label}: {chart.x.with_interval(at_x)}\n"
            f"{chart.y.short or chart.y.label}: {chart.y.with_interval(at_y)}",
        )
        for name, color, at_x, at_y in found
    )
    rows = tuple(row for pair in chart.pairs for row in _rows(chart, pair))
    columns = words(chart.row_name) + numeric(
        chart.x.label, "95 % interval", chart.y.label, "95 % interval"
    )
    return Figure(
        title=chart.title,
        heading=chart.title,
        description=chart.description,
        wide=wide,
        narrow=narrow,
        hover=hover_data("nearest", places),
        table=Table(columns, rows),
    )


def _rows(chart: PairChart, pair: Pair) -> list[tuple[str, ...]]:
    """Return what the figure's table says of a pair, and of its single runs under it."""
    told = f"mean of {len(pair.points)}" if pair.points else ""
    whole = (
        pair.name,
        chart.x.written(pair.x.value),
        told or chart.x.interval(pair.x),
        chart.y.written(pair.y.value),
        told or chart.y.interval(pair.y),
    )
    singles = [
        (f"{pair.name}, {name}", chart.x.written(x), "", chart.y.written(y), "")
        for name, x, y in pair.points
    ]
    return [whole, *singles]


def _draw(chart: PairChart, x: Scale, y: Scale, layout: Layout) -> Markup:
    width, height = width_of(layout), 400.0 if layout == "wide" else 340.0
    top, bottom = 30.0, height - 40
    left = left_margin(chart.y, y, bottom - top)
    frame = Frame(width, height, left=left, top=top, right=width - 14, bottom=bottom)

    def at(pair: tuple[float, float]) -> _Pixels:
        return frame.x(x.fraction(pair[0])), frame.y(y.fraction(pair[1]))

    parts = draw_grid(chart.x, chart.y, x, y, frame)
    # Over the plot, where no point's name can be.
    parts.append(text("↖ better", frame.right, top - 3, anchor="end", class_="name"))
    steps = front_steps(chart.pairs)
    if chart.path == "in order":
        steps = [(0.0, 0.0), *((pair.x.value, pair.y.value) for pair in chart.pairs)]
    front = [at(step) for step in steps]
    if len(front) > 1:
        parts.append(path(front, "front"))
    parts.append(marker(0, *at((0.0, 0.0)), 4.5, "origin"))
    parts += [_draw_singles(pair, at) for pair in chart.pairs if pair.points]
    parts += [_draw_pair(pair, at) for pair in chart.pairs]
    centres = [at((0.0, 0.0)), *(at((pair.x.value, pair.y.value)) for pair in chart.pairs)]
    names = [chart.origin, *(pair.name for pair in chart.pairs)]
    classes = ["", *(color_class(pair.color) for pair in chart.pairs)]
    lines = [
        *itertools.pairwise(front),
        *(line for pair in chart.pairs for line in _whiskers(pair, at)),
    ]
    corners = place_labels(centres, names, frame, lines)
    for name, class_, corner, centre in zip(names, classes, corners, centres, strict=True):
        shown = shortened(name, _MOST_LABEL, bold=True)
        label = text(shown, *corner, class_="direct" if class_ else "")
        parts.append(element("g", *_leader(centre, corner, shown), label, class_=class_))
    return drawing(layout, frame, chart.title, chart.description, parts)


def _leader(centre: _Pixels, corner: _Pixels, name: str) -> list[str]:
    """Return the line from a point to its name, where that stands too far off to be seen as its."""
    top, base = corner[1] - 11, corner[1] + 3
    nearest = base if base < centre[1] else top
    if abs(nearest - centre[1]) <= _NEAR:
        return []
    x = min(max(centre[0], corner[0]), corner[0] + text_width(name, bold=True))
    return [element("line", class_="leader", x1=centre[0], y1=centre[1], x2=x, y2=nearest)]


def _draw_singles(pair: Pair, at: Callable[[_Pixels], _Pixels]) -> str:
    marks = (marker(pair.color, *at((x, y)), 3.2) for _, x, y in pair.points)
    return element("g", *marks, class_=f"{color_class(pair.color)} pale")


def _draw_pair(pair: Pair, at: Callable[[_Pixels], _Pixels]) -> str:
    whiskers = [path(ends, "whisker") for ends in _whiskers(pair, at)]
    mark = marker(pair.color, *at((pair.x.value, pair.y.value)), 5)
    return element("g", *whiskers, mark, class_=color_class(pair.color))


def _whiskers(pair: Pair, at: Callable[[_Pixels], _Pixels]) -> list[_Line]:
    """Return the ends of the two intervals, where they are known."""
    x, y = pair.x, pair.y
    lines: list[_Line] = []
    if x.low is not None and x.high is not None:
        lines.append((at((x.low, y.value)), at((x.high, y.value))))
    if y.low is not None and y.high is not None:
        lines.append((at((x.value, y.low)), at((x.value, y.high))))
    return lines


def front_steps(pairs: Sequence[Pair]) -> list[tuple[float, float]]:
    """Return the staircase along the pairs that no other one beats in both figures.

    It goes from the pair with the least x to the one with the greatest y: right, then up.
    """
    steps: list[tuple[float, float]] = []
    for x, y in sorted((pair.x.value, -pair.y.value) for pair in pairs):
        if steps and -y <= steps[-1][1]:
            continue
        if steps:
            steps.append((x, steps[-1][1]))
        steps.append((x, -y))
    return steps


def place_labels(
    centres: Sequence[_Pixels], names: Sequence[str], frame: Frame, lines: Sequence[_Line] = ()
) -> list[_Pixels]:
    """Return where each label's baseline begins: beside its point and clear of the others.

    Greedy: of the places around the point the one that covers least of what already stands; of
    equal ones the nearest. None leaves the drawing.
    """
    taken: list[_Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in centres]
    taken += [
        (min(a[0], b[0]) - 2, min(a[1], b[1]) - 2, max(a[0], b[0]) + 2, max(a[1], b[1]) + 2)
        for a, b in lines
    ]
    corners: list[_Pixels] = []
    for (x, y), name in zip(centres, names, strict=True):
        width = min(text_width(name, bold=True), _MOST_LABEL)
        right, left, middle = x + 9, x - 9 - width, x - width / 2
        candidates = [(side, y + sink) for sink in (-7, 16) for side in (right, left)]
        candidates += [(middle, y - 14), (middle, y + 24)]
        candidates += [(side, y + sink) for sink in _FURTHER for side in (right, left)]
        most = frame.width - width - 2
        candidates = [(max(2.0, min(a, most)), b) for a, b in candidates]
        boxes: list[_Box] = [(a, b - 11, a + width, b + 3) for a, b in candidates]
        costs = [
            sum(_overlap(box, other) for other in taken) + _outside(box, frame) for box in boxes
        ]
        best = costs.index(min(costs))
        taken.append(boxes[best])
        corners.append(candidates[best])
    return corners


def _overlap(a: _Box, b: _Box) -> float:
    """Return the area that two boxes share, in square pixels."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def _outside(box: _Box, frame: Frame) -> float:
    """Return a cost, in square pixels, for a label that leaves the drawing or the plot."""
    sides = max(0.0, frame.left - box[0]) + max(0.0, box[2] - frame.width)
    ends = max(0.0, frame.top - box[1]) + max(0.0, box[3] - frame.bottom)
    return 60 * (sides + ends)
