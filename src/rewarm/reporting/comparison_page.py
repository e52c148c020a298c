"""A comparison as one HTML file: the claim, the verdict, every seed's point."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from rewarm.artifacts import write_atomically
from rewarm.records.comparison import ComparedRun, ComparisonResult, PairedEffect
from rewarm.records.comparison_folder import ComparisonFolder
from rewarm.reporting import numbers
from rewarm.reporting.arm_curves import ArmCurves, arm_curves, arm_legend
from rewarm.reporting.comparison_sections import (
    arms_table,
    difference_figures,
    effects_table,
    front_figure,
    primaries_table,
    provenance_table,
)
from rewarm.reporting.effects import mood_of_effect, verdict_statement, written, written_down
from rewarm.reporting.page import render_page
from rewarm.reporting.tables import Mood
from rewarm.units import format_count, format_duration

__all__ = ["render_comparison_page", "write_comparison_page"]


class _Fact(NamedTuple):
    name: str
    value: str
    note: str = ""


class _Run(NamedTuple):
    """A run in the list of all."""

    name: str
    state: str
    mood: Mood
    values: str
    link: str
    why: str


def write_comparison_page(result: ComparisonResult, folder: ComparisonFolder) -> Path:
    """Write the page into the comparison's folder and return its path."""
    write_atomically(folder.page, render_comparison_page(result, folder=folder.path))
    return folder.page


def render_comparison_page(
    result: ComparisonResult,
    *,
    folder: Path | None = None,
    live: Mapping[tuple[str, int], str] | None = None,
) -> str:
    """Return the page; runs whose reports lie in `folder` are linked.

    With `live` style and scripts are files beside the page, of the server that shows it; these are
    the paths of the runs there, by arm and seed.
    """
    front = front_figure(result)
    return render_page(
        "experiment.html",
        live=live is not None,
        title=result.name,
        sections=(
            ("verdict", "Verdict"),
            ("differences", "Differences"),
            *([("front", "Trade-off")] if front else []),
            ("curves", "Curves"),
            ("arms", "Arms"),
            *([("noise", "Noise floor")] if result.noise else []),
            ("runs", "Runs"),
            ("more", "Exploratory"),
            ("provenance", "Provenance"),
        ),
        verdict=verdict_statement(result.verdict),
        hypothesis=result.hypothesis,
        registered=written_down(result.registration),
        facts=_facts(result),
        notes=result.notes,
        primaries=primaries_table(result.primaries),
        sentences=[_sentence(effect) for effect in result.primary],
        differences=difference_figures(result),
        effects=effects_table(result.primary, result),
        front=front,
        legend=arm_legend([arm.name for arm in result.arms]),
        curves=arm_curves(_curves(result)),
        elsewhere=[arm.name for arm in result.arms if arm.from_scratch],
        arms=arms_table(result),
        noise=effects_table(result.noise, result) if result.noise else None,
        runs=[
            _run(
                run,
                result,
                _report(run, folder) if live is None else live.get((run.arm, run.seed), ""),
            )
            for run in result.runs
        ],
        secondary=effects_table(result.secondary, result) if result.secondary else None,
        provenance=provenance_table(result),
    )


def _curves(result: ComparisonResult) -> list[ArmCurves]:
    return [
        ArmCurves(arm.name, tuple(one.curves for one in result.curves if one.arm == arm.name))
        for arm in result.arms
    ]


def _facts(result: ComparisonResult) -> list[_Fact]:
    control = result.arm(result.control)
    done = [run for run in result.runs if run.state == "done"]
    seconds = sum(run.training_s for run in done)
    return [
        _Fact("arms", str(len(result.arms)), f"against {result.control}"),
        _Fact("seeds", str(len(result.seeds)), ", ".join(map(str, result.seeds))),
        _Fact("runs", f"{len(done)} of {len(result.runs)}", "done"),
        _Fact("budget", format_count(control.num_tokens), "tokens an arm, unless it says why not"),
        _Fact("time", format_duration(seconds), "in steps, all runs"),
    ]


class _Sentence(NamedTuple):
    mood: Mood
    word: str
    text: str


def _sentence(effect: PairedEffect) -> _Sentence:
    return _Sentence(mood_of_effect(effect), effect.word, f"{effect.sentence}.")


def _report(run: ComparedRun, folder: Path | None) -> str:
    """Return the way from the page to a run's report, where there is one."""
    report = f"{run.folder}/report.html"
    return quote(report) if folder is not None and (folder / report).exists() else ""


def _run(run: ComparedRun, result: ComparisonResult, link: str) -> _Run:
    units: dict[str, str] = {effect.metric: effect.unit for effect in result.primary}
    values = [f"{metric} {written(run.values.get(metric), unit)}" for metric, unit in units.items()]
    moods: dict[str, Mood] = {"done": "good", "failed": "bad"}
    return _Run(
        name=f"{run.arm}, seed {run.seed}",
        state=run.state,
        mood=moods.get(run.state, "open"),
        values=", ".join(values) if run.state == "done" else numbers.MISSING,
        link=link,
        why=run.why,
    )
