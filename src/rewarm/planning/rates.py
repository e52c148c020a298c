"""The learning rate of a run: named rates to numbers, the schedule, and where phases end on it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rewarm.planning.notes import REUSE, REWARM, Notes
from rewarm.planning.phases import PhaseSpan, resolve_phases
from rewarm.planning.schedule import (
    Schedule,
    area_under,
    lr_at,
    peak_step,
    scaled,
    warmup_then_decay,
)
from rewarm.planning.size import Size
from rewarm.recipe.schema import LrExpression, Recipe

__all__ = ["resolve_rates"]

_ASSUMED_FINAL_FRACTION = 0.1
# AdamW moves every weight by about the rate a step: at 1 nothing of the base is left after one.
_LARGEST_LR = 1.0


def resolve_rates(
    recipe: Recipe, size: Size | None, notes: Notes
) -> tuple[Schedule | None, tuple[PhaseSpan, ...]]:
    """Return the schedule and the phases' spans; None and none where problems were noted."""
    rates = _known_rates(recipe, notes)
    ends = _resolve_ends(recipe, rates, notes)
    if ends is None or size is None:
        return None, ()
    schedule = _resolve_schedule(recipe, size, ends, notes)
    if schedule is None:
        return None, ()
    named = {**rates, "start": lr_at(schedule, 0), "peak": lr_at(schedule, peak_step(schedule))}
    spans = resolve_phases(
        recipe.phases,
        schedule,
        tokens_per_step=size.tokens_per_step,
        resolve_lr=named,
        problems=notes.problems,
    )
    return schedule, spans


def _known_rates(recipe: Recipe, notes: Notes) -> dict[str, float]:
    """Return the base's rates that are known; an unknown final rate is assumed aloud."""
    pretraining = recipe.base.pretraining
    rates: dict[str, float] = {}
    if pretraining.peak_lr is not None:
        rates["pretraining.peak"] = pretraining.peak_lr
    if pretraining.final_lr:
        rates["pretraining.final"] = pretraining.final_lr
    elif pretraining.peak_lr is not None and _names(recipe, "pretraining.final"):
        assumed = pretraining.peak_lr * _ASSUMED_FINAL_FRACTION
        rates["pretraining.final"] = assumed
        said = "is 0" if pretraining.final_lr == 0 else "is not known"
        notes.because(
            "base.pretraining.final_lr",
            f"{assumed:.4g} (ASSUMED)",
            f"the base's final rate {said}; peak × {_ASSUMED_FINAL_FRACTION:g} is offered instead",
            "assumption",
        )
        notes.warnings.append(
            f"ASSUMPTION: the base's final learning rate {said}, so peak × "
            f"{_ASSUMED_FINAL_FRACTION:g} = {assumed:.4g} stands in for it; give "
            "schedule.peak_lr a number if you know better"
        )
    return rates


def _names(recipe: Recipe, name: str) -> bool:
    expressions = [recipe.schedule.peak_lr, recipe.schedule.final_lr]
    expressions += [p.until.lr_below for p in recipe.phases if p.until and p.until.lr_below]
    return any(expression.name == name for expression in expressions)


def _resolve_ends(
    recipe: Recipe, rates: dict[str, float], notes: Notes
) -> tuple[float, float] | None:
    """Return the schedule's peak and final rate, or None with what is wrong noted."""
    wanted = recipe.schedule
    peak = _rate(wanted.peak_lr, rates, "schedule.peak_lr", notes)
    if peak is None:
        return None
    if peak > _LARGEST_LR:
        notes.problems.add(
            "schedule.peak_lr",
            f"{wanted.peak_lr} = {peak:.4g} is beyond any learning rate",
            "usual peaks lie between 1e-5 and 1e-2",
        )
        return None
    # `start` needs the schedule itself; in the final rate it can only mean the peak's own start.
    final = _rate(
        wanted.final_lr, {**rates, "peak": peak, "start": peak}, "schedule.final_lr", notes
    )
    if final is None:
        return None
    if final > peak:
        notes.problems.add(
            "schedule.final_lr",
            f"{wanted.final_lr} = {final:.4g} is above the peak of {peak:.4g}",
            "lower it, or raise schedule.peak_lr",
        )
        return None
    return peak, final


def _resolve_schedule(
    recipe: Recipe, size: Size, ends: tuple[float, float], notes: Notes
) -> Schedule | None:
    wanted = recipe.schedule
    peak, final = ends
    # 0.07 of 100 steps are 7, though the product of the two floats lies above it.
    warmup_steps = math.ceil(wanted.warmup_fraction * size.num_steps - 1e-9 * size.num_steps)
    if warmup_steps >= size.num_steps:
        notes.problems.add(
            "schedule.warmup_fraction",
            f"the warm-up takes all {size.num_steps} steps",
            "lower it or raise budget.tokens",
        )
        return None
    schedule = warmup_then_decay(
        kind=wanted.kind,
        num_steps=size.num_steps,
        warmup_steps=warmup_steps,
        peak_lr=peak,
        final_lr=final,
    )
    if wanted.match_area is not None:
        factor = wanted.match_area / area_under(schedule)
        peak, final = peak * factor, final * factor
        if peak > _LARGEST_LR:
            notes.problems.add(
                "schedule.match_area",
                f"{wanted.match_area:g} over {size.num_steps} steps takes a peak of {peak:.4g}, "
                "beyond any learning rate",
                f"the curve as it is has an area of {area_under(schedule):.4g}",
            )
            return None
        schedule = scaled(schedule, factor)
        notes.because(
            "schedule.match_area",
            f"{wanted.match_area:.6g}",
            f"the whole curve is multiplied by {factor:.4g} so that its rates sum to this",
        )
    _explain_schedule(recipe, schedule, warmup_steps, peak, final, notes)
    return schedule


def _rate(
    expression: LrExpression, rates: Mapping[str, float], where: str, notes: Notes
) -> float | None:
    if expression.name is None:
        return expression.factor
    if expression.name in rates:
        return expression.factor * rates[expression.name]
    key = expression.name.removeprefix("pretraining.")
    notes.problems.add(
        where,
        f"{str(expression)!r} needs the base's {key} learning rate, which the recipe does not say",
        f"give base.pretraining.{key}_lr (from the model's paper or card), or set {where} to a "
        "number"
        + ("; with base.pretraining.peak_lr, peak × 0.1 is assumed" if key == "final" else ""),
    )
    return None


def _explain_schedule(
    recipe: Recipe, schedule: Schedule, warmup_steps: int, peak: float, final: float, notes: Notes
) -> None:
    wanted = recipe.schedule
    if wanted.match_area is not None:
        notes.because(
            "schedule.peak_lr", f"{peak:.4g}", f"{wanted.peak_lr}, multiplied to match the area"
        )
    elif wanted.peak_lr.name == "pretraining.final":
        notes.because(
            "schedule.peak_lr",
            f"{peak:.4g}",
            "continue from the rate at which the pretraining ended, so that nothing jumps",
            REUSE,
        )
    elif wanted.peak_lr.name == "pretraining.peak":
        notes.because(
            "schedule.peak_lr", f"{peak:.4g}", "re-warmed to the pretraining's peak", REWARM
        )
    else:
        notes.because("schedule.peak_lr", f"{peak:.4g}", "as the recipe says")
    from_final = wanted.peak_lr.name == "pretraining.final" and wanted.match_area is None
    if warmup_steps:
        why, source = f"{wanted.warmup_fraction:g} of the steps, linear", "recipe"
    elif from_final:
        why = "no warm-up: the paper saw any to be worse when continuing from the final rate"
        source = REUSE
    else:
        why, source = "none is asked for", "recipe"
    notes.because("schedule.warmup", f"{warmup_steps} steps", why, source)
    if wanted.kind != "constant":
        notes.because(
            "schedule.final_lr",
            f"{final:.4g}",
            f"{wanted.kind} to {wanted.final_lr}",
            REUSE if str(wanted.final_lr) == "peak/100" else "recipe",
        )
    notes.because(
        "schedule.area",
        f"{area_under(schedule):.6g}",
        "sum of the rate over all steps: explains most differences between recipes",
        "n·s + (e − s)(n − 1)/2 per piece",
    )
