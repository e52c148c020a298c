"""A comparison on a terminal: what will be run, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rewarm.records.comparison import ComparedArm, ComparisonResult, PairedEffect, Primary
from rewarm.reporting import numbers
from rewarm.reporting.effects import (
    arm_estimate,
    detectable_of,
    effect_value,
    expectation,
    interval_of,
    mood_of_effect,
    p_value,
    per_seed,
    written,
    written_down,
)
from rewarm.reporting.terminal_table import bullets, titled_table
from rewarm.reporting.text import clean
from rewarm.units import counted, format_count, format_duration

__all__ = ["comparison_plan", "comparison_verdict"]

_STYLES = {"good": "green", "bad": "red", "open": "yellow", "": ""}
_GOOD_SEEDS = 5


def comparison_plan(
    *,
    name: str,
    claims: Mapping[str, Any],
    arms: Sequence[ComparedArm],
    measured: bool,
    known_later: Sequence[str],
    power: str,
    how: str,
    num_at_a_time: int,
    folder: Path,
) -> RenderableType:
    """Return arms by seeds with steps, tokens, rate, time and exposure, before anything runs."""
    seeds = claims["seeds"]
    num_runs = len(arms) * len(seeds)
    total_s = sum(arm.estimated_s for arm in arms) * len(seeds)
    wall_s = max(total_s / num_at_a_time, *(arm.estimated_s for arm in arms))
    lines = [
        f"{counted(len(arms), 'arm')} × {counted(len(seeds), 'seed')} "
        f"({', '.join(map(str, seeds))}): {counted(num_runs, 'run')}, "
        f"{how}",
        f"about {format_duration(total_s)} of computing, {format_duration(wall_s)} on the clock, "
        "if the plans' estimates hold",
        *(["tokens are estimates: the text is not prepared yet"] if not measured else []),
        *(
            f"{clean(metric)}: whether its task has this figure is known once the tasks are "
            "loaded, before anything is trained"
            for metric in known_later
        ),
        *([power] if power else []),
        f"everything is written to {folder}",
        *_advice_on_seeds(len(seeds)),
    ]
    return Group(
        Text(f"\n{name}", style="bold"),
        Padding(Text(clean(claims["hypothesis"])), (0, 0, 1, 2)),
        _primaries([Primary.model_validate(entry) for entry in claims["primary"]]),
        "",
        _arms(arms),
        "",
        _exposure("Exposure: tokens by source", {arm.name: arm.exposure for arm in arms}),
        "",
        bullets(lines),
    )


def _advice_on_seeds(num_seeds: int) -> list[str]:
    if num_seeds == 1:
        return ["one seed claims nothing about training: there will be no verdict"]
    if num_seeds < 3:
        return [f"{num_seeds} seeds find only very large effects; take 3, better {_GOOD_SEEDS}"]
    return []


def _primaries(primaries: Sequence[Primary]) -> Table:
    table = titled_table("Primary metrics, and where an arm is expected against the control")
    table.add_column("metric")
    table.add_column("expected")
    for primary in primaries:
        table.add_row(Text(clean(primary.metric)), expectation(primary.expect, primary.within))
    return table


def _arms(arms: Sequence[ComparedArm]) -> Table:
    table = titled_table("Arms, one run of each")
    table.add_column("arm", overflow="fold")
    for name in ("steps", "tokens", "lr area", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("shares with the control's run of its seed")
    for arm in arms:
        table.add_row(
            _name(arm),
            f"{arm.num_steps:,}",
            format_count(arm.num_tokens),
            numbers.rate(arm.lr_area),
            format_duration(arm.estimated_s),
            "" if arm.kind == "control" else arm.pairing,
        )
    return table


def _name(arm: ComparedArm) -> Text:
    told = {"control": " (control)", "noise floor": " (A/A)", "arm": ""}[arm.kind]
    shown = Text(clean(arm.name), style="bold")
    shown.append(told, style="dim")
    for more in (arm.description, "from scratch" if arm.from_scratch else "", arm.budget_differs):
        if more:
            shown.append(f"\n{clean(more)}", style="dim")
    return shown


def _exposure(title: str, by_arm: Mapping[str, Mapping[str, float]]) -> Table:
    table = titled_table(title)
    table.add_column("arm", overflow="fold")
    sources = list(dict.fromkeys(name for exposure in by_arm.values() for name in exposure))
    for name in sources:
        table.add_column(Text(clean(name)), justify="right", no_wrap=True)
    for arm, exposure in by_arm.items():
        cells = (exposure.get(name) for name in sources)
        table.add_row(
            Text(clean(arm), style="bold"),
            *(format_count(round(c)) if c is not None else numbers.MISSING for c in cells),
        )
    return table


def comparison_verdict(result: ComparisonResult) -> RenderableType:
    """Return the verdict with what was claimed beforehand, the paired differences, the arms."""
    parts: list[RenderableType] = [
        Text(f"\n{result.name}", style="bold"),
        Text(f"Hypothesis ({written_down(result.registration)}):", style="dim"),
        Padding(Text(clean(result.hypothesis)), (0, 0, 0, 2)),
        _primaries(result.primaries),
        "",
        Text(result.verdict, style="bold"),
        bullets([effect.sentence for effect in result.primary]),
        "",
        _effects("Primary: paired differences (arm − control, same seed)", result.primary, result),
        Text(
            "Intervals: 95 %, t over seeds. Detectable: found with 80 % power at Holm's strictest "
            "step by so many seeds of this spread. A/A: largest difference of the control's copy.",
            style="dim",
        ),
        "",
        _results(result),
        "",
        _exposure(
            "Exposure: tokens by source that a run saw",
            {arm.name: result.shown(arm.name) for arm in result.arms},
        ),
    ]
    if result.notes:
        parts += ["", bullets(result.notes)]
    return Group(*parts)


def _effects(title: str, effects: Sequence[PairedEffect], result: ComparisonResult) -> Table:
    table = titled_table(title)
    table.padding = (0, 1, 0, 0)
    table.add_column("contrast", overflow="fold", min_width=14)
    for name in ("mean", "95 % interval", "by seed", "p, Holm", "detect-\nable", "A/A"):
        table.add_column(name, justify="right")
    for effect in effects:
        contrast = Text(clean(effect.metric), style="bold")
        contrast.append(f"\n{clean(effect.arm)} − {clean(effect.against)}", style="dim")
        table.add_row(
            contrast,
            Text(effect_value(effect), style=_STYLES[mood_of_effect(effect)]),
            interval_of(effect).replace("\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}", "\nto "),
            per_seed(effect).replace(", ", "\n"),
            p_value(effect.p_holm),
            detectable_of(effect, effect.detectable_holm),
            _noise(effect, result),
        )
    return table


def _noise(effect: PairedEffect, result: ComparisonResult) -> str:
    noise = result.noise_of(effect.metric)
    if noise is None or not noise.differences:
        return numbers.MISSING
    return f"±{written(max(abs(d) for d in noise.differences), effect.unit)}"


def _results(result: ComparisonResult) -> Table:
    named = [primary.metric for primary in result.primaries]
    table = titled_table("Arms: means over seeds, and what each was given")
    table.add_column("arm", overflow="fold")
    for metric in named:
        table.add_column(Text(clean(metric)), justify="right")
    for name in ("tokens", "lr area", "time", "runs"):
        table.add_column(name, justify="right", no_wrap=True)
    units = {effect.metric: effect.unit for effect in result.primary}
    for arm in result.arms:
        runs = result.runs_of(arm.name)
        done = [run for run in runs if run.state == "done"]
        estimates = (arm_estimate(result, arm.name, metric) for metric in named)
        cells = [
            written(estimate.value if estimate else None, units[metric])
            for metric, estimate in zip(named, estimates, strict=True)
        ]
        told = f"{len(done)} of {len(runs)}"
        failed = any(run.state == "failed" for run in runs)
        table.add_row(
            _name(arm),
            *cells,
            format_count(arm.num_tokens),
            numbers.rate(result.lr_area(arm.name)),
            format_duration(sum(run.training_s for run in done)),
            Text(f"{told}, failed" if failed else told, style="red" if failed else ""),
        )
    return table
