"""Histograms as figures: bars at their true places, what a selection keeps in full colour."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from rewarm.corpus.histogram import Histogram
from rewarm.reporting import numbers
from rewarm.reporting.figures import (
    LAYOUTS,
    Axis,
    Figure,
    Layout,
    LegendEntry,
    Place,
    draw_grid,
    drawing,
    hover_data,
    left_margin,
    width_of,
)
from rewarm.reporting.inspection import bin_label, brief
from rewarm.reporting.scales import Scale
from rewarm.reporting.svg import Frame, element, text
from rewarm.reporting.tables import Table, numeric, words

__all__ = ["histogram_figure"]

_KEPT, _LEFT = "s0", "s7"
_HEIGHT = 210.0


def histogram_figure(histogram: Histogram, *, title: str) -> Figure:
    """Draw a histogram in two widths, with its numbers as a table."""
    unit = f" ({histogram.unit})" if histogram.unit else ""
    x_axis = Axis(f"{histogram.what}{unit}", form="count" if histogram.are_whole else "plain")
    y_axis = Axis("documents", form="count", floor=0.0)
    x = _x_scale(histogram)
    y = y_axis.scale([0.0, *map(float, histogram.counts)])
    description = f"{sum(histogram.counts):,} documents in {len(histogram.counts)} bars"
    wide, narrow = (
        _draw(histogram, layout, (x_axis, y_axis), (x, y), title, description) for layout in LAYOUTS
    )
    median = "" if histogram.median is None else f", median {brief(histogram.median)}"
    legend: tuple[LegendEntry, ...] = ()
    if histogram.kept is not None:
        legend = (LegendEntry(_KEPT, "kept"), LegendEntry(_LEFT, "not kept"))
    return Figure(
        title=title,
        heading=f"{histogram.what}{unit}{median}",
        description=description,
        wide=wide,
        narrow=narrow,
        hover=hover_data("column", _places(histogram, x, y)),
        table=_table(histogram),
        legend=legend,
        always_legend=True,
    )


def _x_scale(histogram: Histogram) -> Scale:
    low, high = histogram.edges[0], histogram.edges[-1]
    if (histogram.is_log or histogram.are_whole) and low > 0:
        return Scale("log", low, high)
    return Scale("steps", 0.0, high) if histogram.are_whole else Scale("linear", low, high)


def _draw(
    histogram: Histogram,
    layout: Layout,
    axes: tuple[Axis, Axis],
    scales: tuple[Scale, Scale],
    title: str,
    description: str,
) -> Markup:
    (x_axis, y_axis), (x, y) = axes, scales
    width, top, bottom = width_of(layout), 26.0, _HEIGHT - 40
    frame = Frame(
        width=width,
        height=_HEIGHT,
        left=left_margin(y_axis, y, bottom - top),
        top=top,
        right=width - 14,
        bottom=bottom,
    )
    parts = draw_grid(x_axis, y_axis, x, y, frame)
    for index, count in enumerate(histogram.counts):
        kept = count if histogram.kept is None else histogram.kept[index]
        parts += _bar(histogram, index, 0, kept, _KEPT, scales, frame)
        parts += _bar(histogram, index, kept, count, _LEFT, scales, frame)
    if histogram.cut_at is not None:
        column = frame.x(min(max(x.fraction(histogram.cut_at), 0.0), 1.0))
        parts.append(
            element("line", class_="zero", x1=column, x2=column, y1=frame.top - 4, y2=frame.bottom)
        )
        at_right = column > frame.right - 90
        parts.append(
            text(
                f"cut at {brief(histogram.cut_at)}",
                column + (-5 if at_right else 5),
                frame.top + 6,
                anchor="end" if at_right else "",
                class_="name",
            )
        )
    return drawing(layout, frame, title, description, parts)


def _bar(
    histogram: Histogram,
    index: int,
    low: int,
    high: int,
    class_: str,
    scales: tuple[Scale, Scale],
    frame: Frame,
) -> list[str]:
    if high <= low:
        return []
    x, y = scales
    left, right = (frame.x(x.fraction(edge)) for edge in histogram.edges[index : index + 2])
    top, bottom = frame.y(y.fraction(high)), frame.y(y.fraction(low))
    rect = element(
        "rect",
        class_="share pale" if class_ == _LEFT else "share",
        x=left,
        y=top,
        width=max(right - left, 1.0),
        height=max(bottom - top, 1.0),
    )
    return [element("g", rect, class_=class_)]


def _places(histogram: Histogram, x: Scale, y: Scale) -> Iterator[Place]:
    for index, count in enumerate(histogram.counts):
        low, high = histogram.edges[index : index + 2]
        middle = (x.fraction(low) + x.fraction(high)) / 2
        label = f"{count:,} documents, {numbers.share(histogram.shares[index])} of all tokens"
        if histogram.kept is not None:
            label += f", {histogram.kept[index]:,} kept"
        yield Place(middle, y.fraction(count), bin_label(histogram, index), _KEPT, label)


def _table(histogram: Histogram) -> Table:
    columns = words(histogram.what) + numeric("documents", "share of all tokens")
    has_kept = histogram.kept is not None
    if has_kept:
        columns += numeric("kept")
    rows = tuple(
        (
            bin_label(histogram, index),
            f"{count:,}",
            numbers.share(histogram.shares[index]),
            *((f"{histogram.kept[index]:,}",) if histogram.kept is not None else ()),
        )
        for index, count in enumerate(histogram.counts)
    )
    return Table(columns, rows, " ".join(_notes(histogram)))


def _notes(histogram: Histogram) -> Iterator[str]:
    if histogram.num_below:
        yield f"The first row has {histogram.num_below:,} below it."
    if histogram.num_above:
        yield f"The last row has {histogram.num_above:,} above it."
    if histogram.num_without:
        yield f"{histogram.num_without:,} documents have none."
