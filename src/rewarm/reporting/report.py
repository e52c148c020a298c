"""A run, or several arms, as one HTML file that opens offline and shows light and dark."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from rewarm.artifacts import write_atomically
from rewarm.planning.schedule import lr_curve
from rewarm.records.merging import MergeSweep
from rewarm.records.run_folder import RunFolder
from rewarm.reporting import arm_sections, numbers, run_sections, source_tables
from rewarm.reporting.against import (
    gap_table,
    recovered_table,
    weight_table,
    weights_sentence,
)
from rewarm.reporting.arm_curves import arm_legend
from rewarm.reporting.arms import ArmView, load_arm
from rewarm.reporting.figures import Figure, standalone
from rewarm.reporting.gap_figures import control_note, gaps_of, gaps_table
from rewarm.reporting.goodput import goodput_of, goodput_sentence, goodput_table, start_table
from rewarm.reporting.membership import comparison_of
from rewarm.reporting.page import render_page
from rewarm.reporting.run_view import RunView, load_run_view
from rewarm.reporting.tables import Mood, Table
from rewarm.reporting.text import clean
from rewarm.reporting.trade_off import (
    sweep_provenance,
    sweep_statement,
    sweep_table,
    trade_off_figure,
)
from rewarm.reporting.wording import ONE_SEED, Statement, statements
from rewarm.units import format_count, format_duration

__all__ = [
    "ArmView",
    "load_arm",
    "main_figure_svg",
    "main_merge_svg",
    "render_comparison_report",
    "render_file",
    "render_merge_report",
    "render_run_report",
    "render_waiting",
    "write_comparison_report",
    "write_merge_report",
    "write_run_report",
]


class KeyFigure(NamedTuple):
    """A fact that stands under the title."""

    name: str
    value: str
    note: str = ""


class State(NamedTuple):
    """How far a run is."""

    mood: Mood
    text: str


def write_run_report(run: RunFolder) -> Path:
    """Write the run's report into its folder and return its path."""
    write_atomically(run.report, render_run_report(run))
    return run.report


def render_run_report(run: RunFolder, *, live: bool = False, up: str = "") -> str:
    """Return the run's report; raises PlanError where the run has no plan that can be trusted.

    Everything else may be missing: the page then says what. With `live`, style and scripts are
    files beside the page, of the server that shows it (`reporting/watch.py`); `up` is the path of
    the experiment there that the run is shown in.
    """
    view = load_run_view(run)
    plan, membership = view.plan, view.membership
    spent = goodput_of(view)
    return render_page(
        "run.html",
        live=live,
        title=plan.name,
        sections=(
            ("verdict", "Verdict"),
            *([("comparison", "Comparison")] if view.membership else []),
            ("gap", "Gap"),
            ("curves", "Curves"),
            *([("merging", "Merging")] if view.merge_sweep else []),
            ("training", "Training"),
            ("data", "Data"),
            ("plan", "Plan"),
            ("events", "Events"),
            ("provenance", "Provenance"),
        ),
        state=_state(view),
        facts=_key_figures(view),
        statements=statements(view.verdicts),
        one_seed=ONE_SEED,
        no_verdict=_why_no_verdict(view),
        missing=view.missing,
        warnings=_warnings(view),
        verdict_blocks=run_sections.verdict_blocks(view),
        verdicts=run_sections.verdict_table(view.verdicts),
        average=run_sections.average_table(view),
        comparison=membership and comparison_of(membership, link=up if live else None),
        gap_figures=gaps_of(view),
        gap_numbers=gaps_table(view),
        control_note=control_note(view),
        gaps=None if view.against is None else gap_table(view.against),
        recovered=None if view.against is None else recovered_table(view.against),
        against=view.against,
        weights=None if view.weight_change is None else weight_table(view.weight_change),
        weights_sentence="" if view.weight_change is None else weights_sentence(view.weight_change),
        curve_blocks=run_sections.curve_blocks(view),
        merging=_merging(view.merge_sweep) if view.merge_sweep else None,
        lr=run_sections.lr_figure(view),
        lr_sentence=run_sections.lr_sentence(view),
        blend=run_sections.blend_figure(view),
        training=run_sections.training_figures(view),
        ledger=run_sections.ledger_table(view),
        exposure=run_sections.exposure_table(view),
        left_out=source_tables.left_out_page(plan),
        kept=source_tables.selection_page(plan),
        packing=source_tables.packing_page(plan),
        way=plan.science.packing,
        sequence_length=plan.science.sequence_length,
        reasons=run_sections.reasons_table(view),
        estimates=run_sections.estimates_table(view),
        goodput=None if spent is None else goodput_table(spent),
        goodput_sentence="" if spent is None else goodput_sentence(spent),
        starts=start_table(view),
        events=run_sections.events_table(view, routine=False),
        all_events=run_sections.events_table(view),
        provenance=run_sections.provenance_table(view),
        recipe=run_sections.recipe_text(view),
    )


def render_waiting(title: str, why: str) -> str:
    """Return the live page of a run that cannot be shown (yet)."""
    return render_page("waiting.html", live=True, title=title, sections=(), why=why)


def render_file(name: str) -> str:
    """Return a file that the live page needs beside it: sheet.css, page.js or live.js."""
    return render_page(name)


def write_merge_report(run: RunFolder, sweep: MergeSweep) -> Path:
    """Write the page of a merge's trade-off curve into a run's folder and return its path."""
    write_atomically(run.merge_report, render_merge_report(sweep))
    return run.merge_report


def render_merge_report(sweep: MergeSweep) -> str:
    """Return the page of a merge's trade-off curve: the choice, the curve, its numbers."""
    return render_page(
        "merge.html",
        title=f"{sweep.model}, merged into {sweep.base}",
        sections=(("curve", "Curve"), ("provenance", "Provenance")),
        merging=_merging(sweep),
        provenance=sweep_provenance(sweep),
    )


def main_merge_svg(sweep: MergeSweep) -> str:
    """Return a merge's trade-off curve as an SVG file of its own, on a light ground."""
    return clean(standalone(trade_off_figure(sweep)))


class _Merging(NamedTuple):
    statement: Statement
    figure: Figure
    table: Table


def _merging(sweep: MergeSweep) -> _Merging:
    return _Merging(sweep_statement(sweep), trade_off_figure(sweep), sweep_table(sweep))


def _state(view: RunView) -> State:
    if view.finished:
        return State("good", "finished")
    if not view.steps:
        return State("open", "not begun")
    return State("open", f"at step {view.num_steps_taken:,} of {view.plan.science.num_steps:,}")


def _key_figures(view: RunView) -> list[KeyFigure]:
    science = view.plan.science
    model = view.plan.conduct.model
    rates = lr_curve(science.schedule)
    spent = view.training_s + view.evaluation_s
    return [
        KeyFigure(
            "base",
            view.plan.conduct.base_name,
            f"{format_count(model.num_parameters)} parameters",
        ),
        KeyFigure(
            "steps",
            f"{view.num_steps_taken:,} of {science.num_steps:,}",
            f"{format_count(science.tokens_per_step)} tokens each",
        ),
        KeyFigure(
            "tokens seen",
            format_count(view.num_tokens),
            f"of {format_count(science.num_tokens)} planned",
        ),
        KeyFigure(
            "learning rate",
            f"{numbers.rate(float(rates.max()))} → {numbers.rate(float(rates[-1]))}",
            f"peak and last; sum {numbers.rate(view.planned_lr_area)}",
        ),
        KeyFigure(
            "time",
            format_duration(spent) if view.steps or view.evals else numbers.MISSING,
            "steps and evaluations",
        ),
    ]


def _why_no_verdict(view: RunView) -> str:
    if not view.evals:
        return "nothing was evaluated yet"
    if all(record.step > 0 for record in view.evals):
        return "the base (step 0) was not evaluated, so there is nothing to compare with"
    return "only the base (step 0) was evaluated so far"


def _warnings(view: RunView) -> list[str]:
    told = ("warning", "passed_over", "non_finite", "spike", "skip", "forgetting", "replay")
    events = [
        f"step {event.step:,}: {event.message}" for event in view.events if event.kind in told
    ]
    return [*view.plan.warnings, *events]


def write_comparison_report(
    path: Path, title: str, arms: Sequence[ArmView], notes: Sequence[str] = ()
) -> Path:
    """Write the comparison, with links to the arms' own reports where they exist; return `path`."""
    write_atomically(path, render_comparison_report(title, arms, notes, folder=path.parent))
    return path


def render_comparison_report(
    title: str,
    arms: Sequence[ArmView],
    notes: Sequence[str] = (),
    *,
    folder: Path | None = None,
) -> str:
    """Return the page that sets arms beside each other; raises ValueError for no arm.

    `folder` is where the page will lie: the arms' own reports are linked relative to it.
    """
    if not arms:
        raise ValueError("a comparison needs at least one arm")
    sections = [("arms", "Arms"), ("front", "Trade-off"), ("curves", "Curves"), ("rate", "Rate")]
    sections += [("data", "Data"), *([("notes", "Notes")] if notes else []), ("each", "Each arm")]
    return render_page(
        "comparison.html",
        title=title,
        sections=sections,
        statements=arm_sections.arms_statements(arms),
        one_seed=ONE_SEED,
        caveats=arm_sections.caveats(arms),
        table=arm_sections.arms_table(arms),
        front=arm_sections.front_figure(arms),
        legend=arm_legend([arm.name for arm in arms]),
        curves=arm_sections.curves_shown(arms),
        lr=arm_sections.arms_lr_figure(arms),
        ledger=arm_sections.arms_ledger(arms),
        exposure=arm_sections.arms_exposure(arms),
        notes=notes,
        arms=[_arm_details(arm, folder) for arm in arms],
    )


def main_figure_svg(arms: Sequence[ArmView]) -> str:
    """Return adaptation against forgetting as an SVG file of its own, on a light ground.

    Raises ValueError where no arm measured old and new text.
    """
    figure = arm_sections.front_figure(arms)
    if figure is None:
        raise ValueError("no arm was evaluated on old and new text at step 0 and later")
    return clean(standalone(figure))


class _ArmDetails(NamedTuple):
    name: str
    description: str
    link: str
    statements: list[Statement]
    blend: Figure
    verdicts: Table
    reasons: Table
    provenance: Table


def _arm_details(arm: ArmView, folder: Path | None) -> _ArmDetails:
    view = arm.view
    link = ""
    if folder is not None and arm.run.report.exists():
        link = Path(os.path.relpath(arm.run.report, folder)).as_posix()
    return _ArmDetails(
        name=arm.name,
        description=arm.description,
        link=quote(link),
        statements=statements(view.verdicts),
        blend=run_sections.blend_figure(view),
        verdicts=run_sections.verdict_table(view.verdicts),
        reasons=run_sections.reasons_table(view),
        provenance=run_sections.provenance_table(view),
    )
