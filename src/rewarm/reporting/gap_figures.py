"""The stability gap: how old text got worse and came back, beside a control where one is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rewarm.evaluation.forgetting import (
    KEPT_WITHIN,
    CurvePoint,
    StabilityGap,
    delta_curve,
    stability_gap,
)
from rewarm.records.curves import DomainCurve
from rewarm.records.facts import SHARE_METRICS, Metric
from rewarm.reporting import numbers
from rewarm.reporting.curves import LineChart, Mark, Point, Series, line_figure
from rewarm.reporting.figures import Axis, Figure
from rewarm.reporting.run_sections import UPDATE_AXIS, phase_spans
from rewarm.reporting.run_view import METRICS, RunView
from rewarm.reporting.tables import Cell, Table, numeric, words
from rewarm.reporting.theme import NUM_SERIES_COLORS

__all__ = ["GAP_AXIS", "Gap", "control_note", "gaps_of", "gaps_table"]

# Words stand over the peak and under zero.
GAP_AXIS = Axis("bits per byte against step 0", form="signed", short="change", margin=0.17)

_METRIC: Metric = "bits_per_byte"
_CONTROL_COLOR = NUM_SERIES_COLORS - 1


class Gap(NamedTuple):
    """An old domain's gap, drawn and said."""

    figure: Figure
    sentence: str


def gaps_of(view: RunView) -> list[Gap]:
    """Return the gap of each old domain whose held-out loss was measured at step 0 and twice more.

    A gap lies between evaluations of the same text: it is at least as deep as this shows.
    """
    found: list[Gap] = []
    for domain in _old_domains(view, _METRIC):
        curve = delta_curve(view.evals, domain, _METRIC)
        if len(curve) > 2:
            gap = stability_gap(view.evals, domain, _METRIC)
            controls = _controls(view, domain)
            found.append(
                Gap(_figure(view, domain, curve, gap, controls), _sentence(view, curve, gap))
            )
    return found


def _old_domains(view: RunView, metric: Metric) -> list[str]:
    return [
        domain
        for domain in view.evaluated_domains(metric)
        if view.is_old(domain) and view.has_base(domain, metric)
    ]


def _controls(view: RunView, domain: str) -> list[tuple[str, DomainCurve]]:
    """Return the curves of runs that this one is held against, by what they are called."""
    known: list[tuple[str, Sequence[DomainCurve]]] = []
    if view.membership is not None:
        known.append((f"{view.membership.control}, control", view.membership.control_curves))
    if view.against is not None:
        known.append(("control", view.against.control_curves))
    return [
        (name, curve)
        for name, curves in known
        for curve in curves
        if (curve.domain, curve.metric) == (domain, _METRIC)
    ]


def control_note(view: RunView) -> str:
    """Say which run the control of the figures is; empty where none is known."""
    told = []
    if view.membership is not None and view.membership.control_curves:
        member = view.membership
        told.append(f"{member.control} is the control of the comparison, with seed {member.seed}")
    if view.against is not None and view.against.control_curves:
        told.append(f"the control is {view.against.control}")
    return "; ".join(told)


def _figure(
    view: RunView,
    domain: str,
    curve: Sequence[CurvePoint],
    gap: StabilityGap,
    controls: Sequence[tuple[str, DomainCurve]],
) -> Figure:
    color = view.color(domain)
    last = view.plan.science.num_steps
    others = tuple(
        Series(name, _points(other, last), _CONTROL_COLOR, "over") for name, other in controls
    )
    mine = Series("this run", [Point(p.step, p.delta, p.noise) for p in curve], color, marks=True)
    chart = LineChart(
        title=f"The gap of {domain}",
        heading=domain,
        description="Held-out loss against step 0 after each evaluated update, with its 95 % "
        f"interval as a band. The shaded strip, ±{KEPT_WITHIN:g}, is what counts as recovered.",
        x=UPDATE_AXIS,
        y=GAP_AXIS,
        series=(*others, mine),
        phases=phase_spans(view),
        kept=KEPT_WITHIN,
        marks=tuple(_marks(curve, gap, color)),
    )
    return line_figure(chart)


def _points(curve: DomainCurve, last: int) -> list[Point]:
    places = zip(curve.steps, curve.changes, curve.noise, strict=True)
    return [Point(*place) for place in places if place[0] <= last]


def _marks(curve: Sequence[CurvePoint], gap: StabilityGap, color: int) -> list[Mark]:
    """Return the peak and the recovery, where there is a gap to speak of."""
    if gap.depth <= gap.tolerance:
        return []
    depth = numbers.signed(gap.depth)
    found = [Mark(gap.steps_to_peak, gap.depth, f"depth {depth}", color, drops=True)]
    if gap.recovery_step is not None:
        height = next(point.delta for point in curve if point.step == gap.recovery_step)
        words_ = f"recovered, update {gap.recovery_step:,}"
        found.append(Mark(gap.recovery_step, height, words_, color))
    return found


def _sentence(view: RunView, curve: Sequence[CurvePoint], gap: StabilityGap) -> str:
    noise = next(point.noise for point in curve if point.step == gap.steps_to_peak)
    if gap.depth == 0:
        return "It never rose above the base's."
    depth = numbers.plain(gap.depth)
    if noise is not None:
        depth += f" ± {numbers.plain(noise)}"
    told = f"It rose by {depth} at most, after {_updates(gap.steps_to_peak)}"
    if noise is not None and noise >= gap.depth:
        told += " (no more than evaluation noise)"
    so_far = "" if view.finished else " so far"
    end = f"stands at {numbers.signed(gap.forgetting)}{so_far or ' at the end'}"
    if gap.depth <= gap.tolerance:
        return f"{told}: never by more than {gap.tolerance:g}. It {end}."
    if gap.recovery_step is None:
        return f"{told}, was not back within {gap.tolerance:g}{so_far}, and {end}."
    back = _updates(gap.recovery_step)
    return f"{told}, was back within {gap.tolerance:g} for good after {back}, and {end}."


def _updates(count: int) -> str:
    return "1 update" if count == 1 else f"{count:,} updates"


def gaps_table(view: RunView) -> Table:
    """Return depth, what came back, recovery and area of every old domain, by every metric."""
    rows = tuple(
        _row(view, domain, metric.metric, metric.short)
        for metric in METRICS
        if metric.metric != "task_perplexity"
        for domain in _old_domains(view, metric.metric)
        if len(delta_curve(view.evals, domain, metric.metric)) > 1
    )
    columns = words("domain") + numeric(
        "depth", "at update", "came back", "recovered", "area", "at the end"
    )
    note = (
        "Depth: how much worse than step 0 at most. Recovered: the update since when it stayed "
        f"within {KEPT_WITHIN:g} of step 0. Area: how much worse, times updates."
    )
    return Table(columns, rows, note)


def _row(view: RunView, domain: str, metric: Metric, short: str) -> tuple[str | Cell, ...]:
    gap = stability_gap(view.evals, domain, metric)
    recovered: str | Cell = Cell("not", "bad") if view.finished else "not yet"
    if gap.depth <= gap.tolerance:
        recovered = "never left"
    elif gap.recovery_step is not None:
        recovered = f"update {gap.recovery_step:,}"
    unit = 100 if metric in SHARE_METRICS else 1
    return (
        Cell(domain, below=f"{view.role(domain)}, {short}"),
        _amount(metric, gap.depth),
        f"{gap.steps_to_peak:,}",
        _amount(metric, gap.transient),
        recovered,
        numbers.brief(gap.area * unit),
        _signed(metric, gap.forgetting),
    )


def _amount(metric: Metric, value: float) -> str:
    if metric in SHARE_METRICS:
        return f"{numbers.plain(100 * value, 1)} points"
    return numbers.brief(value)


def _signed(metric: Metric, value: float) -> str:
    if metric in SHARE_METRICS:
        return f"{numbers.signed(100 * value, 1)} points"
    return numbers.signed(value)
