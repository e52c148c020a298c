"""Blends as stacked bars: what each phase was planned to show, and what it showed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rewarm.reporting import numbers
from rewarm.reporting.figures import (
    LAYOUTS,
    Figure,
    Layout,
    LegendEntry,
    Place,
    drawing,
    hover_data,
    width_of,
)
from rewarm.reporting.svg import Frame, element, shortened, text, text_width
from rewarm.reporting.tables import Table, numeric, words

__all__ = ["ShareBar", "ShareChart", "ShareGroup", "share_figure"]

_BAR_HEIGHT, _BAR_GAP, _HEAD_HEIGHT, _GROUP_GAP = 22.0, 3.0, 24.0, 12.0


@dataclass(frozen=True, slots=True)
class ShareBar:
    """Shares of the sources in one bar; they sum to 1, or are all 0 where nothing was seen."""

    name: str
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ShareGroup:
    """The bars of one phase."""

    name: str
    note: str
    bars: tuple[ShareBar, ...]


@dataclass(frozen=True, slots=True)
class ShareChart:
    """Groups of bars over the same sources; all but a group's first bar are drawn paler."""

    title: str
    description: str
    sources: tuple[LegendEntry, ...]
    groups: tuple[ShareGroup, ...]


def share_figure(chart: ShareChart) -> Figure:
    """Draw the bars; names and shares stand inside where they fit."""
    height = _height(chart)
    wide, narrow = (_draw(chart, layout) for layout in LAYOUTS)
    places = (
        Place(
            start + share / 2,
            1 - (top + _BAR_HEIGHT / 2) / height,
            f"{group.name}, {bar.name}",
            source.class_,
            f"{source.name} {numbers.share(share, 2)}",
        )
        for group, bar, top in _bars(chart)
        for source, share, start in _parts(chart, bar)
    )
    rows = tuple(
        (group.name, bar.name, *(numbers.share(share, 2) for share in bar.shares))
        for group in chart.groups
        for bar in group.bars
    )
    columns = words("phase", "") + numeric(*(source.name for source in chart.sources))
    return Figure(
        title=chart.title,
        heading=chart.title,
        description=chart.description,
        wide=wide,
        narrow=narrow,
        hover=hover_data("nearest", places),
        legend=chart.sources,
        always_legend=True,
        table=Table(columns, rows),
    )


def _bars(chart: ShareChart) -> Iterator[tuple[ShareGroup, ShareBar, float]]:
    """Yield every bar with its group and the row of its top."""
    row = 0.0
    for group in chart.groups:
        row += _HEAD_HEIGHT
        for bar in group.bars:
            yield group, bar, row
            row += _BAR_HEIGHT + _BAR_GAP
        row += _GROUP_GAP


def _height(chart: ShareChart) -> float:
    per_bar = _BAR_HEIGHT + _BAR_GAP
    heights = [_HEAD_HEIGHT + len(group.bars) * per_bar + _GROUP_GAP for group in chart.groups]
    return sum(heights) - _GROUP_GAP


def _parts(chart: ShareChart, bar: ShareBar) -> Iterator[tuple[LegendEntry, float, float]]:
    """Yield the sources that a bar holds, with share and where it starts."""
    starts = itertools.accumulate(bar.shares, initial=0.0)
    for source, share, start in zip(chart.sources, bar.shares, starts, strict=False):
        if share > 0:
            yield source, share, start


def _draw(chart: ShareChart, layout: Layout) -> Markup:
    width, height = width_of(layout), _height(chart)
    frame = Frame(width=width, height=height, left=64, top=0, right=width - 2, bottom=height)
    parts: list[str] = []
    for group, bar, top in _bars(chart):
        if bar is group.bars[0]:
            room = width - text_width(group.note) - 24
            parts.append(text(shortened(group.name, room), 2, top - 9, class_="strong"))
            parts.append(text(group.note, width - 2, top - 9, anchor="end"))
        parts.append(text(bar.name, 2, top + 15))
        if not any(bar.shares):
            parts.append(text("nothing yet", frame.left + 7, top + 15))
        parts += _draw_bar(chart, bar, frame, top, pale=bar is not group.bars[0])
    return drawing(layout, frame, chart.title, chart.description, parts)


def _draw_bar(
    chart: ShareChart, bar: ShareBar, frame: Frame, top: float, *, pale: bool
) -> Sequence[str]:
    parts: list[str] = []
    for source, share, start in _parts(chart, bar):
        left, right = frame.x(start), frame.x(start + share)
        rect = element(
            "rect",
            class_="share pale" if pale else "share",
            x=left,
            y=top,
            width=right - left,
            height=_BAR_HEIGHT,
        )
        label = "" if pale else _label(source.name, share, right - left - 12)
        written = text(label, left + 7, top + 15, class_="inside") if label else ""
        parts.append(element("g", rect, written, class_=source.class_))
    return parts


def _label(name: str, share: float, room: float) -> str:
    """Return name and share, the share alone, or nothing, as fits."""
    written = f"{100 * share:.3g} %"
    full = f"{name} {written}"
    if text_width(full) <= room:
        return full
    return written if text_width(written) <= room else ""
