"""What every figure has: axes, a drawing in two widths, its numbers, and what its script needs.

A figure is drawn twice, wide and narrow, so that its text stays readable on a phone; the page shows
the one that fits. Where points lie is also given as fractions of the plot, from which the page's
script shows the numbers under a pointer, a finger or the arrow keys. Nothing depends on the script:
every figure carries a table.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from markupsafe import Markup, escape

from rewarm.artifacts import canonical_json
from rewarm.reporting import numbers
from rewarm.reporting.scales import Kind, Scale
from rewarm.reporting.svg import Frame, element, text, text_width
from rewarm.reporting.tables import Table
from rewarm.reporting.text import clean
from rewarm.reporting.theme import FIGURE_STYLE, LIGHT, NUM_SERIES_COLORS, variables
from rewarm.units import format_count

__all__ = [
    "LAYOUTS",
    "Axis",
    "Estimate",
    "Figure",
    "Layout",
    "LegendEntry",
    "Place",
    "color_class",
    "draw_grid",
    "drawing",
    "hover_data",
    "left_margin",
    "standalone",
    "thinned",
    "width_of",
]

Form = Literal["plain", "signed", "rate", "count", "share", "points"]
Layout = Literal["wide", "narrow"]
LAYOUTS: tuple[Layout, Layout] = ("wide", "narrow")

_T = TypeVar("_T")
_WIDTHS = {"wide": 760.0, "narrow": 380.0}
_BORDER = 18.0  # around a drawing that stands alone
_TICK_GAP_X, _TICK_GAP_Y = 46.0, 34.0  # least pixels between ticks
_LABEL_GAP = 8.0  # and between what is written under them


class Estimate(NamedTuple):
    """A figure with its 95 % interval, where one is known."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis shows: its label with the unit, its scale, and how its numbers are written.

    `short` names one value ("update" 8) where the label is longer; `floor` is an end by nature
    (0 for a rate), `margin` the share of the range left free at the other ends.
    """

    label: str
    short: str = ""
    kind: Kind = "linear"
    form: Form = "plain"
    floor: float | None = None
    margin: float = 0.06

    def scale(self, values: Iterable[float]) -> Scale:
        """Return the scale that shows these values."""
        return Scale.covering(
            self.kind,
            values,
            margin=self.margin,
            floor=self.floor,
            whole=self.form == "count",
        )

    def written(self, value: float) -> str:
        """Return a value as it stands in tables and under the pointer."""
        return _written(value, self.form, 1 if self.form in ("share", "points") else 4)

    def brief(self, value: float) -> str:
        """Return a value as it stands inside a figure."""
        return _written(value, self.form, 1 if self.form in ("share", "points") else 3)

    def interval(self, estimate: Estimate) -> str:
        """Return the 95 % interval in words: −0.0120 to +0.0080."""
        if estimate.low is None or estimate.high is None:
            return "not known"
        return numbers.interval(self.written(estimate.low), self.written(estimate.high))

    def named(self, value: float) -> str:
        """Return a value with what it is: update 8."""
        return f"{self.short or self.label} {self.written(value)}"

    def with_interval(self, estimate: Estimate) -> str:
        """Return value and interval: −0.0020 (95 %: −0.0120 to +0.0080)."""
        if estimate.low is None or estimate.high is None:
            return self.written(estimate.value)
        return f"{self.written(estimate.value)} (95 %: {self.interval(estimate)})"

    def tick_labels(self, ticks: Sequence[float]) -> list[str]:
        """Return the ticks with just as many decimals as tell them apart."""
        if self.form == "count" and max(ticks, default=0.0) >= 10_000:
            return [format_count(tick) for tick in ticks]
        scale = 100 if self.form in ("share", "points") else 1
        gaps = [scale * (after - before) for before, after in itertools.pairwise(ticks)]
        decimals = max((numbers.decimals_of_gap(gap) for gap in gaps), default=2)
        if self.form == "points":  # the axis' label names the unit
            return [numbers.signed(100 * tick, decimals) for tick in ticks]
        return [_written(tick, self.form, decimals) for tick in ticks]


def _written(value: float, form: Form, decimals: int) -> str:
    if form == "signed":
        return numbers.signed(value, decimals)
    if form == "rate":
        return numbers.rate(value)
    if form == "count":
        return numbers.count(round(value))
    if form == "share":
        return numbers.share(value, decimals)
    if form == "points":
        return f"{numbers.signed(100 * value, decimals)} points"
    return numbers.plain(value, decimals)


class LegendEntry(NamedTuple):
    """A colour class with what it stands for."""

    class_: str
    name: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing in two widths, with its legend, its numbers and what its script needs.

    `heading` stands over it on the page; it may be shorter than the title, which stands alone.
    A legend stands beside the narrow drawing, and beside the wide one where it does not name its
    series itself (`always_legend`).
    """

    title: str
    heading: str
    description: str
    wide: Markup
    narrow: Markup
    hover: Markup
    table: Table
    legend: tuple[LegendEntry, ...] = ()
    always_legend: bool = False


class Place(NamedTuple):
    """A point to be found by the pointer: fractions of the plot, what stands there, its number."""

    x: float
    y: float
    heading: str
    class_: str
    label: str


def color_class(index: int) -> str:
    """Return the CSS class that carries the colour of a series."""
    return f"s{index % NUM_SERIES_COLORS}"


def thinned(items: Sequence[_T], most: int) -> list[_T]:
    """Return at most `most` items, evenly spread; the first and the last are always kept."""
    if len(items) <= most:
        return list(items)
    gap = (len(items) - 1) / (most - 1)
    return [items[round(k * gap)] for k in range(most)]


def width_of(layout: Layout) -> float:
    """Return the width of a layout in pixels."""
    return _WIDTHS[layout]


def drawing(
    layout: Layout, frame: Frame, title: str, description: str, parts: Iterable[str]
) -> Markup:
    """Return the svg element; the plot's rectangle is written down for the page's script."""
    plot = (frame.left, frame.top, frame.right - frame.left, frame.bottom - frame.top)
    return Markup(
        element(
            "svg",
            element("title", str(escape(clean(title)))),
            element("desc", str(escape(clean(description)))),
            *parts,
            class_=f"figure {layout}",
            viewBox=f"0 0 {frame.width:g} {frame.height:g}",
            role="img",
            data_plot=" ".join(f"{value:g}" for value in plot),
        )
    )


def hover_data(mode: Literal["column", "nearest"], places: Iterable[Place]) -> Markup:
    """Return the points for the page's script as JSON that is safe inside a script element.

    `column`: the pointer picks a column and sees all that stands there; `nearest`: one point.
    """
    columns: dict[tuple[float, str], list[list[object]]] = {}
    for place in places:
        key = (round(place.x, 4), clean(place.heading))
        columns.setdefault(key, []).append([place.class_, round(place.y, 4), clean(place.label)])
    ordered = [
        [x, heading, items]
        for (x, heading), items in sorted(columns.items(), key=lambda column: column[0][0])
    ]
    json = canonical_json({"mode": mode, "columns": ordered})
    for character in "<>&":
        json = json.replace(character, f"\\u{ord(character):04x}")
    return Markup(json)


def left_margin(axis: Axis, scale: Scale, plot_height: float) -> float:
    """Return the room that the labels of a vertical axis take."""
    labels = axis.tick_labels(scale.ticks(_TICK_GAP_Y / plot_height))
    return 14 + max((text_width(label) for label in labels), default=20.0)


def draw_grid(x_axis: Axis, y_axis: Axis, x: Scale, y: Scale, frame: Frame) -> list[str]:
    """Return grid lines, the axis, ticks and labels; lines at zero are stronger."""
    parts: list[str] = []
    y_ticks = y.ticks(_TICK_GAP_Y / (frame.bottom - frame.top))
    for tick, label in zip(y_ticks, y_axis.tick_labels(y_ticks), strict=True):
        row = frame.y(y.fraction(tick))
        kind = "zero" if tick == 0 and y.low < 0 else "grid"
        parts.append(element("line", class_=kind, x1=frame.left, x2=frame.right, y1=row, y2=row))
        parts.append(text(label, frame.left - 6, row + 4, anchor="end"))
    # The early labels of a `steps` axis are single digits and may stand closer.
    gap = _TICK_GAP_X * (0.42 if x.kind == "steps" else 1.0)
    written_to = 0.0
    for tick, label in _ticks_with_room(x_axis, x, frame.right - frame.left, gap):
        column = frame.x(x.fraction(tick))
        crosses = tick == 0 and x.low < 0
        parts.append(
            element(
                "line",
                class_="zero" if crosses else "axis",
                x1=column,
                x2=column,
                y1=frame.top if crosses else frame.bottom,
                y2=frame.bottom + 4,
            )
        )
        half = text_width(label) / 2
        middle = min(column, frame.width - half)
        # The last label is moved into the drawing, and left out where it meets the one before.
        if middle == column or middle - half > written_to + _LABEL_GAP:
            parts.append(text(label, middle, frame.bottom + 17, anchor="middle"))
            written_to = middle + half
    parts.append(
        element(
            "line", class_="axis", x1=frame.left, x2=frame.right, y1=frame.bottom, y2=frame.bottom
        )
    )
    parts.append(text(y_axis.label, 2, 12, class_="name"))
    parts.append(text(x_axis.label, frame.right, frame.bottom + 33, anchor="end", class_="name"))
    return parts


def _ticks_with_room(
    axis: Axis, scale: Scale, width: float, least_gap: float
) -> list[tuple[float, str]]:
    """Return ticks and labels of a linear axis so far apart that no label touches the next.

    Others have single digits at their dense end, and take the least gap as it is.
    """
    gap = least_gap
    while True:
        ticks = scale.ticks(gap / width)
        labels = axis.tick_labels(ticks)
        room = max(map(text_width, labels), default=0.0) + _LABEL_GAP
        if scale.kind != "linear" or len(ticks) < 3 or room <= gap:
            return list(zip(ticks, labels, strict=True))
        gap = room


def standalone(figure: Figure, theme: Mapping[str, str] = LIGHT) -> str:
    """Return the wide drawing as an SVG file of its own, with a border and its style inside."""
    style = element("style", f"svg {{ {variables(theme)} }}\n{FIGURE_STYLE}")
    viewbox = re.search(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"', figure.wide)
    assert viewbox is not None
    width, height = (float(side) + 2 * _BORDER for side in viewbox.groups())
    ground = element("rect", x=-_BORDER, y=-_BORDER, width=width, height=height, fill=theme["page"])
    opening, rest = str(figure.wide).split(">", 1)
    opening = opening.replace(
        viewbox[0], f'viewBox="{-_BORDER:g} {-_BORDER:g} {width:g} {height:g}"'
    )
    size = f'xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}"'
    return f"{opening} {size}>{style}{ground}{rest}\n"
