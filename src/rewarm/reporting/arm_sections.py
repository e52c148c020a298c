"""The parts of a comparison: what stands beside what, drawn and tabled from the arms' runs."""

from __future__ import annotations

from collections.abc import Sequence

from rewarm.evaluation.curves import domain_curves
from rewarm.planning.schedule import lr_curve
from rewarm.reporting import numbers
from rewarm.reporting.arm_curves import ArmCurves, CurvesShown, arm_curves
from rewarm.reporting.arms import Accuracy, ArmView, Change
from rewarm.reporting.curves import LineChart, Point, Series, line_figure
from rewarm.reporting.figures import Axis, Estimate, Figure, thinned
from rewarm.reporting.pairs import Pair, PairChart, pair_figure
from rewarm.reporting.run_view import Exposure
from rewarm.reporting.smoothed import STEP_AXIS
from rewarm.reporting.tables import Cell, Table, numeric, words
from rewarm.reporting.trade_off import ADAPTATION_AXIS, FORGETTING_AXIS
from rewarm.reporting.wording import Statement
from rewarm.units import format_bytes, format_count, format_duration

__all__ = [
    "arms_exposure",
    "arms_ledger",
    "arms_lr_figure",
    "arms_statements",
    "arms_table",
    "caveats",
    "curves_shown",
    "front_figure",
]

_MOST_DRAWN = 160
_SAME_BASE_WITHIN = 1e-6
# From this ratio of the arms' peak rates on, the lowest would lie flat on a linear axis.
_LOG_FROM_RATIO = 4.0


def arms_statements(arms: Sequence[ArmView]) -> list[Statement]:
    """Return which arm learned most and which forgot least, by the estimates alone."""
    learned = [(arm.new.change.value, arm.name) for arm in arms if arm.new is not None]
    forgot = [(arm.old.change.value, arm.name) for arm in arms if arm.old is not None]
    found: list[Statement] = []
    for verb, text, changes in (
        ("Learned most:", "new text", learned),
        ("Forgot least:", "old text", forgot),
    ):
        if len(changes) > 1:
            change, name = min(changes)
            told = f"{name}, {numbers.signed(change)} bits per byte on {text}."
            found.append(Statement("", verb, told))
    return found


def caveats(arms: Sequence[ArmView]) -> list[str]:
    """Return what makes the arms less comparable, and what is missing from them."""
    found: list[str] = []
    for what, changes in (
        ("old", [arm.old for arm in arms]),
        ("new", [arm.new for arm in arms]),
    ):
        firsts = [change.first for change in changes if change is not None]
        if firsts and max(firsts) - min(firsts) > _SAME_BASE_WITHIN:
            found.append(
                f"the arms do not share one base: on {what} text their step 0 lies between "
                f"{numbers.plain(min(firsts), 4)} and {numbers.plain(max(firsts), 4)} bits per byte"
            )
    for arm in arms:
        view = arm.view
        if view.steps and not view.finished:
            found.append(
                f"{arm.name} stands at step {view.num_steps_taken:,} of "
                f"{view.plan.science.num_steps:,}"
            )
        found += [f"{arm.name}: {line}" for line in view.missing]
    return found


# The table


def arms_table(arms: Sequence[ArmView]) -> Table:
    """Return a row per arm: changes against step 0 with intervals, accuracy, exposure, cost."""
    columns: list[tuple[str, list[str | Cell]]] = [
        ("old text, bits per byte", [_change_cell(arm.old) for arm in arms]),
        ("new text, bits per byte", [_change_cell(arm.new) for arm in arms]),
        ("answers, bits per byte", [_change_cell(arm.answers) for arm in arms]),
        ("matched continu\u00adation, old", [_accuracy_cell(arm.matched_old) for arm in arms]),
        ("matched continu\u00adation, new", [_accuracy_cell(arm.matched_new) for arm in arms]),
        ("tokens", [format_count(arm.view.num_tokens) for arm in arms]),
        ("area under the rate", [numbers.rate(arm.view.lr_area) for arm in arms]),
        ("time", [format_duration(arm.view.training_s) for arm in arms]),
    ]
    measured = [
        (name, cells) for name, cells in columns if any(c != numbers.MISSING for c in cells)
    ]
    rows = tuple(
        (Cell(arm.name, below=arm.description), *(cells[index] for _, cells in measured))
        for index, arm in enumerate(arms)
    )
    return Table(
        words("arm") + numeric(*(name for name, _ in measured)),
        rows,
        "Bits per byte: change against the base (step 0), its 95 % interval, the figure at the "
        "end; less is better. Matched continuation: share right ± standard error; more is better. "
        "Several domains of one kind count with their mean.",
    )


def _change_cell(change: Change | None) -> str | Cell:
    if change is None:
        return numbers.MISSING
    low, high = change.change.low, change.change.high
    interval = "interval not known"
    if low is not None and high is not None:
        interval = numbers.interval(numbers.signed(low), numbers.signed(high))
    return Cell(
        numbers.signed(change.change.value), below=f"{interval}\n→ {numbers.plain(change.last)}"
    )


def _accuracy_cell(accuracy: Accuracy | None) -> str | Cell:
    if accuracy is None:
        return numbers.MISSING
    error = accuracy.standard_error
    shown = numbers.plain(100 * accuracy.value, 1)
    if error is not None:
        shown += f" ± {numbers.plain(100 * error, 1)}"
    return Cell(f"{shown} %", below=f"base {numbers.share(accuracy.first)}")


# Figures


def front_figure(arms: Sequence[ArmView]) -> Figure | None:
    """Return adaptation against forgetting, a point with its intervals per arm.

    None where fewer than one arm measured both.
    """
    pairs = tuple(
        Pair(arm.name, arm.old.change, _negated(arm.new.change), index)
        for index, arm in enumerate(arms)
        if arm.old is not None and arm.new is not None
    )
    if not pairs:
        return None
    chart = PairChart(
        title="Adaptation against forgetting",
        description="Each arm's bits per byte lost on old text (to the right: more forgotten) and "
        "gained on new text (up: more learned), with 95 % intervals of evaluation noise. The "
        "dashed staircase joins the arms that no other arm beats in both.",
        x=FORGETTING_AXIS,
        y=ADAPTATION_AXIS,
        pairs=pairs,
        origin="base",
    )
    return pair_figure(chart)


def _negated(estimate: Estimate) -> Estimate:
    low, high = estimate.low, estimate.high
    return Estimate(-estimate.value, None if high is None else -high, None if low is None else -low)


def curves_shown(arms: Sequence[ArmView]) -> CurvesShown:
    """Return the curves of all arms: the gap of old text, and everything else."""
    return arm_curves([ArmCurves(arm.name, (domain_curves(arm.view.evals),)) for arm in arms])


def arms_lr_figure(arms: Sequence[ArmView]) -> Figure:
    """Return the planned rates of all arms, logarithmic where their peaks are far apart."""
    curves = [lr_curve(arm.view.plan.science.schedule) for arm in arms]
    peaks = [float(curve.max()) for curve in curves]
    positive = all(float(curve.min()) > 0 for curve in curves)
    logarithmic = positive and max(peaks) >= _LOG_FROM_RATIO * min(peaks)
    series: list[Series] = []
    for index, (arm, curve) in enumerate(zip(arms, curves, strict=True)):
        points = [Point(k, float(curve[k])) for k in thinned(range(len(curve)), _MOST_DRAWN)]
        hides = any(points == earlier.points for earlier in series)
        series.append(Series(arm.name, points, index, "over" if hides else "line"))
    if logarithmic:
        y = Axis("rate, log scale", kind="log", form="rate")
    else:
        y = Axis("rate", form="rate", floor=0.0)
    chart = LineChart(
        title="Learning rate",
        description="The planned rate of every step of every arm.",
        x=STEP_AXIS,
        y=y,
        series=tuple(series),
    )
    return line_figure(chart)


def arms_ledger(arms: Sequence[ArmView]) -> Table:
    """Return documents, tokens and held-out part of every source of any arm."""
    corpora = {
        name: arm.view.plan.conduct.corpora[name]
        for arm in arms
        for name in arm.view.domains
        if name in arm.view.plan.conduct.corpora
    }
    rows = tuple(
        (
            Cell(name, below=corpus.role),
            corpus.stated_licence or "not stated",
            f"{corpus.num_documents:,}",
            format_count(corpus.num_tokens),
            format_bytes(corpus.num_bytes),
            Cell(f"{corpus.held_out_documents:,}", below=format_bytes(corpus.held_out_bytes)),
        )
        for name, corpus in corpora.items()
    )
    columns = words("source", "licence") + numeric("documents", "tokens", "text", "held out")
    return Table(columns, rows)


def arms_exposure(arms: Sequence[ArmView]) -> Table:
    """Return how much of every source each arm saw: epochs, and tokens below."""
    exposures = [arm.view.exposures() for arm in arms]
    shown = dict.fromkeys(name for arm in arms for name in arm.view.domains)
    sources = [name for name in shown if any(name in exposure for exposure in exposures)]
    rows = tuple(
        (arm.name, *(_exposure_cell(exposure.get(source)) for source in sources))
        for arm, exposure in zip(arms, exposures, strict=True)
    )
    return Table(words("arm") + numeric(*sources), rows)


def _exposure_cell(exposure: Exposure | None) -> str | Cell:
    if exposure is None:
        return numbers.MISSING
    return Cell(f"{exposure.seen_epochs:.2f}", below=format_count(exposure.seen_tokens))
