"""The parts of a comparison's page: figures with every seed's point, and tables."""

from __future__ import annotations

from collections.abc import Sequence

from rewarm.artifacts import canonical_json
from rewarm.records.comparison import ComparedArm, ComparisonResult, PairedEffect, Primary
from rewarm.reporting import numbers
from rewarm.reporting.effects import (
    detectable_of,
    effect_value,
    expectation,
    interval_of,
    mood_of_effect,
    p_value,
    peak_memory,
    per_seed,
    written,
)
from rewarm.reporting.figures import Axis, Estimate, Figure
from rewarm.reporting.intervals import IntervalChart, IntervalRow, interval_figure
from rewarm.reporting.pairs import Pair, PairChart, pair_figure
from rewarm.reporting.tables import Cell, Table, numeric, words
from rewarm.reporting.trade_off import ADAPTATION_AXIS, FORGETTING_AXIS
from rewarm.units import format_count, format_duration

__all__ = [
    "arms_table",
    "difference_figures",
    "effects_table",
    "front_figure",
    "primaries_table",
    "provenance_table",
]


def primaries_table(primaries: Sequence[Primary]) -> Table:
    """Return the primary metrics with what was expected of each, as written beforehand."""
    rows = tuple((p.metric, expectation(p.expect, p.within)) for p in primaries)
    return Table(words("primary metric", "expected of an arm against the control"), rows)


def difference_figures(result: ComparisonResult) -> list[Figure]:
    """Return a figure per primary metric: each contrast's mean, interval and seeds, A/A shaded."""
    metrics = dict.fromkeys(effect.metric for effect in result.primary)
    figures = [_difference_figure(result, metric) for metric in metrics]
    return [figure for figure in figures if figure is not None]


def _difference_figure(result: ComparisonResult, metric: str) -> Figure | None:
    effects = [e for e in result.primary if e.metric == metric and e.mean is not None]
    if not effects:
        return None
    noise = result.noise_of(metric)
    floor = max((abs(d) for d in noise.differences), default=0.0) if noise else 0.0
    shaded = "; shaded: how far the control's copy differs (A/A)" if noise else ""
    unit = effects[0].unit
    return interval_figure(
        IntervalChart(
            title=f"{metric}: paired differences",
            description="Each contrast's mean over seeds with its 95 % t interval (dot and line) "
            f"and every seed's difference (strokes){shaded}.",
            axis=Axis(
                f"{metric}, arm − control" + (", points" if unit == "share right" else f", {unit}"),
                form="points" if unit == "share right" else "signed",
                short=metric,
            ),
            rows=tuple(_row(effect) for effect in effects),
            kept=floor,
            row_name="contrast",
        )
    )


def _row(effect: PairedEffect) -> IntervalRow:
    assert effect.mean is not None
    return IntervalRow(
        name=effect.arm,
        note=f"− {effect.against}",
        change=Estimate(effect.mean, effect.low, effect.high),
        mood=mood_of_effect(effect),
        verdict=effect.word.removesuffix(" expectation"),
        points=effect.differences if len(effect.differences) > 1 else (),
    )


def front_figure(result: ComparisonResult) -> Figure | None:
    """Return adaptation against forgetting: each arm's mean and each seed's point.

    None where no arm measured both.
    """
    pairs = tuple(
        pair
        for index, arm in enumerate(result.arms)
        if (pair := _pair(result, arm, index)) is not None
    )
    if not pairs:
        return None
    return pair_figure(
        PairChart(
            title="Adaptation against forgetting",
            description="Each arm's bits per byte lost on old text (to the right: more forgotten) "
            "and gained on new text (up: more learned): its mean over seeds, and every seed small. "
            "The dashed staircase joins the arms whose means no other arm beats in both.",
            x=FORGETTING_AXIS,
            y=ADAPTATION_AXIS,
            pairs=pairs,
            origin="base",
        )
    )


def _pair(result: ComparisonResult, arm: ComparedArm, index: int) -> Pair | None:
    points = [
        (f"seed {run.seed}", run.values["forgetting"], run.values["adaptation"])
        for run in result.runs_of(arm.name)
        if {"forgetting", "adaptation"} <= run.values.keys()
    ]
    if not points:
        return None
    x = sum(forgot for _, forgot, _ in points) / len(points)
    y = sum(learned for _, _, learned in points) / len(points)
    singles = tuple(points) if len(points) > 1 else ()
    return Pair(arm.name, Estimate(x), Estimate(y), index, singles)


def effects_table(effects: Sequence[PairedEffect], result: ComparisonResult) -> Table:
    """Return a row per effect: mean, interval, every seed, tests, what could have been found."""
    judged = any(effect.word for effect in effects)
    rows: list[tuple[str | Cell, ...]] = []
    for effect in effects:
        noise = result.noise_of(effect.metric)
        floor = max((abs(d) for d in noise.differences), default=None) if noise else None
        row: list[str | Cell] = [
            Cell(effect.metric, below=f"{effect.arm} − {effect.against}"),
            Cell(effect_value(effect), below=interval_of(effect)),
            _by_seed(effect),
            p_value(effect.p),
        ]
        if judged:
            row += [
                p_value(effect.p_holm),
                Cell(
                    detectable_of(effect, effect.detectable),
                    below=detectable_of(effect, effect.detectable_holm),
                ),
            ]
        row.append(f"±{written(floor, effect.unit)}" if floor is not None else numbers.MISSING)
        if judged:
            row.append(Cell(effect.word, mood_of_effect(effect)))
        rows.append(tuple(row))
    columns = words("metric") + numeric("mean difference", "by seed", "p")
    if judged:
        columns += numeric("p, Holm", "detectable") + numeric("A/A") + words("came out")
        note = (
            "Mean over seeds of arm − control with the same seed, its 95 % t interval under it. "
            "Detectable: the smallest difference that so many seeds of this spread find with 80 % "
            "power at 5 %, under it with Holm's strictest step; with a sign, of a claim with a "
            "margin: the smallest margin within which they find no difference. A/A: the largest "
            "difference of the control's copy."
        )
    else:
        columns += numeric("A/A")
        note = "Not named beforehand, not adjusted for their number: ideas for the next experiment."
        if effects and effects[0].arm == result.noise_floor:
            note = "The control against itself with the data in another order: nothing but noise."
    return Table(columns, tuple(rows), note)


def _by_seed(effect: PairedEffect) -> Cell:
    count = len(effect.seeds)
    told = "1 seed" if count == 1 else f"{count} seeds"
    return Cell(told, below=per_seed(effect).replace(", ", "\n"))


def arms_table(result: ComparisonResult) -> Table:
    """Return what each arm was given and what it took: budget, area under the rate, exposure, time,
    memory, pairing.
    """
    shown = {arm.name: result.shown(arm.name) for arm in result.arms}
    sources = list(dict.fromkeys(name for exposure in shown.values() for name in exposure))
    rows: list[tuple[str | Cell, ...]] = []
    for arm in result.arms:
        done = [run for run in result.runs_of(arm.name) if run.state == "done"]
        seconds = sum(run.training_s for run in done) / len(done) if done else None
        about = [arm.description, "from scratch" if arm.from_scratch else ""]
        exposure = (_tokens(shown[arm.name].get(n), arm.exposure.get(n)) for n in sources)
        rows.append(
            (
                Cell(f"{arm.name}{_kind(arm)}", below="\n".join(filter(None, about))),
                Cell(format_count(arm.num_tokens), below=f"{arm.num_steps:,} steps"),
                numbers.rate(result.lr_area(arm.name)),
                *exposure,
                numbers.MISSING if seconds is None else format_duration(seconds),
                peak_memory(result, arm.name) or numbers.MISSING,
                "" if arm.kind == "control" else arm.pairing,
            )
        )
    measured = ("time of a run", "peak memory")
    columns = words("arm") + numeric("tokens", "area under the rate", *sources, *measured)
    columns += words("shares with the control's run of its seed")
    return Table(
        columns,
        tuple(rows),
        "Columns named after sources: tokens that a run of the arm saw of it. Peak memory: of "
        "steps, beside the process's own, as measured; the mean over seeds.",
    )


def _tokens(seen: float | None, planned: int | None) -> str | Cell:
    if seen is None:
        return numbers.MISSING
    if seen == planned:
        return format_count(planned)
    return Cell(format_count(round(seen)), below=f"planned {format_count(planned or 0)}")


def _kind(arm: ComparedArm) -> str:
    return {"control": " (control)", "noise floor": " (A/A)", "arm": ""}[arm.kind]


def provenance_table(result: ComparisonResult) -> Table:
    """Return what every number can be traced to."""
    known = result.registration
    rows = [
        ("experiment file", f"{known.file_name}, SHA-256 {known.file_sha256}"),
        (
            "claims written",
            f"{known.time}, {'before' if known.before_runs else 'after'} runs began",
        ),
        *((key, _shown(value)) for key, value in result.provenance.items()),
        *((f"{run.arm}, seed {run.seed}", run.fingerprint) for run in result.runs),
    ]
    return Table(words("what", "value"), tuple(rows))


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return ", ".join(f"{key} {entry}" for key, entry in value.items())
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else canonical_json(value)
