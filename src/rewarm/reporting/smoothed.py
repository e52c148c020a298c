"""Curves of what every step records: means of neighbouring steps, the steps themselves faint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rewarm.reporting.curves import LineChart, Point, Series, Span, line_figure
from rewarm.reporting.figures import Axis, Figure, thinned

__all__ = ["MOST_DRAWN", "STEP_AXIS", "smoothed_figure"]

STEP_AXIS = Axis("step", form="count", floor=0.0, margin=0.0)
MOST_DRAWN = 200
_MOST_BUCKETS = 240


def smoothed_figure(
    title: str,
    axis: Axis,
    points: Sequence[Point],
    phases: tuple[Span, ...] = (),
    *,
    heading: str = "",
) -> Figure:
    """Return the curve of a value of each step."""
    window = max(1, len(points) // 40) | 1
    smooth = thinned(_running_mean(points, window), MOST_DRAWN)
    series = [Series(f"mean of {window} steps" if window > 1 else "each step", smooth)]
    if window > 1:
        series.insert(0, Series("each step", _extremes(points), style="faint"))
    chart = LineChart(
        title=title,
        description=f"Each recorded step (faint) and the mean of {window} neighbouring steps.",
        x=STEP_AXIS,
        y=axis,
        series=tuple(series),
        phases=phases,
        heading=heading,
    )
    return line_figure(chart)


def _running_mean(points: Sequence[Point], window: int) -> list[Point]:
    """Return means over centred windows, cut off at both ends."""
    values = np.asarray([point.y for point in points])
    sums = np.concatenate([[0.0], np.cumsum(values)])
    last = len(points) - 1
    found: list[Point] = []
    for index, point in enumerate(points):
        low, high = max(0, index - window // 2), min(last, index + window // 2) + 1
        found.append(Point(point.x, float((sums[high] - sums[low]) / (high - low))))
    return found


def _extremes(points: Sequence[Point]) -> list[Point]:
    """Return least and greatest value of each bucket, so that no spike is thinned away."""
    if len(points) <= 2 * _MOST_BUCKETS:
        return list(points)
    found: list[Point] = []
    for bucket in np.array_split(np.arange(len(points)), _MOST_BUCKETS):
        mine = [points[index] for index in bucket]
        ends = {min(mine, key=lambda p: p.y), max(mine, key=lambda p: p.y)}
        found += sorted(ends)
    return found
