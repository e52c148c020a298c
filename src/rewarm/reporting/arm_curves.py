"""Every arm's curves beside each other: the gap of old text first, then all else that moved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rewarm.evaluation.forgetting import KEPT_WITHIN, OLD_ROLES
from rewarm.records.curves import DomainCurve
from rewarm.records.facts import Metric
from rewarm.reporting.curves import LineChart, Point, Series, line_figure
from rewarm.reporting.figures import Figure, LegendEntry, color_class
from rewarm.reporting.run_sections import UPDATE_AXIS, Block, change_axis
from rewarm.reporting.run_view import METRICS, MetricWords

__all__ = ["ArmCurves", "CurvesShown", "arm_curves", "arm_legend"]

_GAP: Metric = "bits_per_byte"


@dataclass(frozen=True, slots=True)
class ArmCurves:
    """The curves of an arm's runs, one entry for each of its seeds; `begun` are not finished."""

    name: str
    by_seed: tuple[tuple[DomainCurve, ...], ...]
    begun: tuple[tuple[DomainCurve, ...], ...] = ()

    @property
    def runs(self) -> tuple[tuple[DomainCurve, ...], ...]:
        """The curves of all runs, finished first."""
        return (*self.by_seed, *self.begun)

    def finished(self, domain: str, metric: Metric) -> list[DomainCurve]:
        """Return a domain's curve with each seed that is finished and has one."""
        return _of(self.by_seed, domain, metric)

    def unfinished(self, domain: str, metric: Metric) -> list[DomainCurve]:
        """Return a domain's curve with each seed that has begun."""
        return _of(self.begun, domain, metric)


def _of(runs: Sequence[Sequence[DomainCurve]], domain: str, metric: Metric) -> list[DomainCurve]:
    return [
        curve
        for curves in runs
        for curve in curves
        if (curve.domain, curve.metric) == (domain, metric)
    ]


class CurvesShown(NamedTuple):
    """`gaps` is a figure for each old domain's text; `blocks` are all others, by metric.

    `has_seeds`: curves are means, with their single seeds behind them.
    """

    gaps: list[Figure]
    blocks: list[Block]
    has_seeds: bool


def arm_legend(names: Sequence[str]) -> tuple[LegendEntry, ...]:
    """Return the colour of each arm, the same on the whole page."""
    return tuple(LegendEntry(color_class(index), name) for index, name in enumerate(names))


def arm_curves(arms: Sequence[ArmCurves]) -> CurvesShown:
    """Return the figures of whatever was measured at step 0 and at two later steps at least.

    A curve of several seeds is the mean of those that are finished, over the steps that all of them
    have; every seed stands behind it, faint. Where none is finished, the furthest stands in front.
    """
    gaps: list[Figure] = []
    blocks: list[Block] = []
    for metric in METRICS:
        figures: list[Figure] = []
        for domain, role in _domains(arms, metric.metric):
            figure = _figure(arms, metric, domain)
            if figure is None:
                continue
            is_gap = metric.metric == _GAP and role in OLD_ROLES
            (gaps if is_gap else figures).append(figure)
        if figures:
            better = "down is better" if metric.lower_is_better else "up is better"
            blocks.append(Block(metric.name, tuple(figures), better))
    return CurvesShown(gaps, blocks, any(len(arm.runs) > 1 for arm in arms))


def _domains(arms: Sequence[ArmCurves], metric: Metric) -> list[tuple[str, str]]:
    found = {
        curve.domain: curve.role
        for arm in arms
        for curves in arm.runs
        for curve in curves
        if curve.metric == metric
    }
    return list(found.items())


def _figure(arms: Sequence[ArmCurves], metric: MetricWords, domain: str) -> Figure | None:
    series = [
        one for index, arm in enumerate(arms) for one in _series(arm, domain, metric.metric, index)
    ]
    # Two evaluations are told by the verdict; a curve needs more.
    if not any(len(one.points) > 2 for one in series):
        return None
    several = any(one.style == "faint" for one in series)
    behind = " Faint: its single seeds; in front their mean." if several else ""
    chart = LineChart(
        title=f"{metric.name}: {domain}",
        description=f"Change since step 0 of every arm.{behind} The shaded strip is what counts as "
        "kept.",
        x=UPDATE_AXIS,
        y=change_axis(metric),
        series=tuple(series),
        kept=KEPT_WITHIN,
        heading=domain,
    )
    return line_figure(chart)


def _series(arm: ArmCurves, domain: str, metric: Metric, color: int) -> Iterator[Series]:
    finished, begun = arm.finished(domain, metric), arm.unfinished(domain, metric)
    every = [*finished, *begun]
    if not every:
        return
    for curve in every if len(every) > 1 else ():
        yield Series(arm.name, _points(curve), color, "faint")
    in_front = finished or [max(begun, key=lambda curve: curve.steps[-1])]
    yield Series(arm.name, _mean(in_front), color, marks=True)


def _points(curve: DomainCurve) -> list[Point]:
    return [Point(step, change) for step, change in zip(curve.steps, curve.changes, strict=True)]


def _mean(curves: Sequence[DomainCurve]) -> list[Point]:
    by_step = [dict(zip(curve.steps, curve.changes, strict=True)) for curve in curves]
    shared = sorted(set.intersection(*(set(one) for one in by_step)))
    return [Point(step, sum(one[step] for one in by_step) / len(by_step)) for step in shared]
