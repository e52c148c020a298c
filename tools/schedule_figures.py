"""Draws learning rates as the planner computes them, for docs/recipes and docs/schedules.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rewarm.planning.notes import Notes
from rewarm.planning.phases import PhaseSpan
from rewarm.planning.rates import resolve_rates
from rewarm.planning.schedule import Schedule, lr_at
from rewarm.planning.size import Size
from rewarm.recipe.load import parse_recipe
from rewarm.recipe.schema import Recipe
from rewarm.reporting.curves import LineChart, Point, Series, Span, line_figure
from rewarm.reporting.figures import Axis, Figure, standalone
from rewarm.reporting.theme import DARK, LIGHT

__all__ = ["DRAWINGS", "FOLDER", "Drawing", "drawn", "files_of", "rates_of"]

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "figures"
THEMES: Mapping[str, Mapping[str, str]] = {"": LIGHT, "-dark": DARK}
_NUM_STEPS = 2000
_POINTS_PER_PIECE = 48


@dataclass(frozen=True, slots=True)
class Drawing:
    """Curves of the recipe that stands above a figure: each has a name and overrides."""

    title: str
    description: str
    curves: tuple[tuple[str, tuple[str, ...]], ...] = (("learning rate", ()),)
    with_phases: bool = False


_RATE_SHAPE = "The learning rate from the first to the last step"
DRAWINGS: Mapping[str, Drawing] = {
    "presets": Drawing(
        "The rates of the presets on one base",
        "rewarm and infinite rise to the pretraining's peak of 3e-4 and fall to a tenth of it, "
        "infinite with a constant stretch; wsd holds the peak and falls to nothing over the last "
        "fifth; reuse, stability-gap and constant stay at 3e-5 or below.",
        tuple(
            (name, (f"preset={name}",))
            for name in ("wsd", "infinite", "rewarm", "stability-gap", "constant", "reuse")
        ),
    ),
    "reuse": Drawing(
        "Preset reuse: the learning rate and its two blends",
        f"{_RATE_SHAPE}: a cosine from the pretraining's final rate to a hundredth of it. The "
        "second blend begins when the rate has fallen to a fifth, after 71 % of the steps.",
        with_phases=True,
    ),
    "rewarm": Drawing(
        "Preset rewarm: the learning rate",
        f"{_RATE_SHAPE}: a short warm-up to the pretraining's peak, then a cosine to a tenth.",
        with_phases=True,
    ),
    "infinite": Drawing(
        "Preset infinite: the learning rate",
        f"{_RATE_SHAPE}: warm-up, a cosine down to 0.55 of the peak until 60 %, constant until "
        "85 %, then an exponential anneal to a tenth of the peak.",
        with_phases=True,
    ),
    "stability-gap": Drawing(
        "Preset stability-gap: the learning rate",
        f"{_RATE_SHAPE}: a warm-up over a tenth of the steps to 3e-5, then a cosine to a tenth.",
        with_phases=True,
    ),
    "wsd": Drawing(
        "Preset wsd: the learning rate",
        f"{_RATE_SHAPE}: warm-up, constant until 80 %, then a decay to nothing that is steep "
        "first.",
        with_phases=True,
    ),
    "summary": Drawing(
        "Preset summary: the learning rate",
        f"{_RATE_SHAPE}: a cosine from the pretraining's final rate to a hundredth of it, as that "
        "of reuse. Lower layers come to 0 and freeze before the end.",
        with_phases=True,
    ),
    "controls": Drawing(
        "The controls: three learning rates",
        "naive rises to the pretraining's peak and falls to a tenth; constant stays at the "
        "pretraining's final rate; baseline falls from there to a hundredth.",
        tuple((name, (f"preset={name}",)) for name in ("naive", "constant", "baseline")),
    ),
    "schedule-from-final": Drawing(
        "Going on from the final rate",
        f"{_RATE_SHAPE}, going on from where the pretraining ended: cosine, linear, constant.",
        (
            ("constant", ("schedule.kind=constant",)),
            ("linear", ("schedule.kind=linear",)),
            ("cosine", ()),
        ),
    ),
    "schedule-rewarm": Drawing(
        "Re-warm, then decay again",
        f"{_RATE_SHAPE}: a warm-up to the pretraining's peak, then a cosine or a line to a tenth.",
        (("linear", ("schedule.kind=linear",)), ("cosine", ())),
    ),
    "schedule-wsd": Drawing(
        "Warm-up, stable, decay",
        f"{_RATE_SHAPE}: constant until 80 %, then four shapes of decay to a hundredth.",
        tuple(
            (shape, (f"schedule.decay_shape={shape}",))
            for shape in ("linear", "cosine", "1-sqrt", "exponential")
        ),
    ),
    "schedule-infinite": Drawing(
        "Infinite: cooldown, constant, anneal",
        f"{_RATE_SHAPE}: a cooldown until 60 % by a cosine or an inverse square root, constant "
        "until 85 %, then an exponential anneal.",
        (
            ("never annealed", ("schedule.anneal_start=1",)),
            ("inverse-sqrt", ("schedule.cooldown_shape=inverse-sqrt",)),
            ("cosine", ()),
        ),
    ),
    "schedule-cyclic": Drawing(
        "Cyclic: a warm-up and a decay again and again",
        f"{_RATE_SHAPE}: three cycles of a warm-up to the peak and a cosine down to a tenth.",
    ),
    "schedule-pieces": Drawing(
        "Pieces of your own",
        f"{_RATE_SHAPE}: constant for 30 %, a line up to 2e-4, an exponential down to 2e-5.",
    ),
    "phases": Drawing(
        "Where phases end",
        f"{_RATE_SHAPE} with three phases: the first ends after a tenth of the steps, the second "
        "where the rate has fallen to a fifth of its peak.",
        with_phases=True,
    ),
}


def rates_of(
    text: str, overrides: Sequence[str] = ()
) -> tuple[Recipe, Schedule, tuple[PhaseSpan, ...]]:
    """Return the recipe with what the planner makes of its rates over 2,000 steps."""
    recipe = parse_recipe(text, overrides=overrides)
    size = Size(
        sequence_length=1,
        sequences_per_step=recipe.budget.tokens // _NUM_STEPS,
        num_steps=_NUM_STEPS,
    )
    notes = Notes()
    schedule, spans = resolve_rates(recipe, size, notes)
    notes.problems.raise_as(AssertionError)  # type: ignore[arg-type]
    assert schedule is not None
    return recipe, schedule, spans


def drawn(name: str, text: str, overrides: Sequence[str] = ()) -> Figure:
    """Return the figure of a drawing from the recipe that stands above it."""
    drawing = DRAWINGS[name]
    series: list[Series] = []
    spans: tuple[PhaseSpan, ...] = ()
    for index, (curve, more) in enumerate(drawing.curves):
        _, schedule, spans = rates_of(text, (*overrides, *more))
        series.append(Series(curve, _points(schedule), color=index))
    phases = (Span(s.start_step / _NUM_STEPS, s.end_step / _NUM_STEPS, s.name) for s in spans)
    return line_figure(
        LineChart(
            title=drawing.title,
            description=drawing.description,
            x=Axis("share of the steps", form="share", floor=0.0, margin=0.0),
            y=Axis("learning rate", form="rate", floor=0.0),
            series=tuple(series),
            phases=tuple(phases) if drawing.with_phases else (),
        )
    )


def _points(schedule: Schedule) -> list[Point]:
    """Return the ends of every piece, and places between where it is not straight."""
    points: list[Point] = []
    for piece in schedule:
        num = 2 if piece.shape in ("constant", "linear") else _POINTS_PER_PIECE
        # Steep at its beginning where it has a root in it: places are denser there.
        places = np.linspace(0, 1, num) ** 2 if "sqrt" in piece.shape else np.linspace(0, 1, num)
        steps = sorted(
            {round(piece.start_step + x * (piece.end_step - piece.start_step)) for x in places}
        )
        points += [Point(step / _NUM_STEPS, lr_at(schedule, step)) for step in steps[:-1]]
        points.append(Point(piece.end_step / _NUM_STEPS, piece.end_lr))
    return points


def files_of(name: str, figure: Figure) -> dict[Path, str]:
    """Return the files of a figure, light and dark, by path."""
    return {
        FOLDER / f"{name}{ending}.svg": standalone(figure, theme)
        for ending, theme in THEMES.items()
    }
