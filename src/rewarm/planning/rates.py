"""The learning rate of a run: named rates to numbers, the schedule, and where phases end on it."""

from __future__ import annotations

import math

from rewarm.planning.curves import CurveRates, build_schedule, rate_of
from rewarm.planning.notes import REUSE, REWARM, WSD, Notes
from rewarm.planning.phases import PhaseSpan, resolve_phases
from rewarm.planning.schedule import (
    Schedule,
    area_under,
    joins,
    lr_at,
    peak_step,
    scaled,
)
from rewarm.planning.size import Size
from rewarm.recipe.schedule import ScheduleRecipe
from rewarm.recipe.schema import Recipe

__all__ = ["resolve_rates"]

_ASSUMED_FINAL_FRACTION = 0.1
# AdamW moves every weight by about the rate a step: at 1 nothing of the base is left after one.
_LARGEST_LR = 1.0
_MOST_PIECES = 8
_SOURCE_OF = {"wsd": WSD, "infinite": REWARM, "cyclic": "recipe", "pieces": "recipe"}


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
            "schedule.peak_lr a number if you know better, or let `rewarm tune --lr` find one"
        )
    return rates


def _names(recipe: Recipe, name: str) -> bool:
    schedule = recipe.schedule
    expressions = [] if schedule.kind == "pieces" else [schedule.peak_lr, schedule.final_lr]
    if schedule.kind == "infinite":
        expressions.append(schedule.constant_lr)
    for piece in schedule.pieces:
        expressions += [rate for rate in (piece.start_lr, piece.end_lr) if rate is not None]
    expressions += [p.until.lr_below for p in recipe.phases if p.until and p.until.lr_below]
    return any(expression.name == name for expression in expressions)


def _resolve_ends(recipe: Recipe, named: dict[str, float], notes: Notes) -> CurveRates | None:
    """Return the schedule's peak and final rate, or None with what is wrong noted."""
    wanted = recipe.schedule
    if wanted.kind == "pieces" and not _pieces_have_peak(wanted, named):
        return CurveRates(None, 0.0, named)
    peak = rate_of(wanted.peak_lr, named, "schedule.peak_lr", notes.problems)
    if peak is None:
        return None
    if peak > _LARGEST_LR:
        is_number = wanted.peak_lr.name is None
        told = f"{peak:.4g}" if is_number else f"{wanted.peak_lr} = {peak:.4g}"
        notes.problems.add(
            "schedule.peak_lr",
            f"{told} is beyond any learning rate",
            "usual peaks lie between 1e-5 and 1e-2",
        )
        return None
    # `start` needs the schedule itself; in the final rate it can only mean the peak's own start.
    final = rate_of(
        wanted.final_lr,
        {**named, "peak": peak, "start": peak},
        "schedule.final_lr",
        notes.problems,
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
    return CurveRates(peak, final, named)


def _pieces_have_peak(wanted: ScheduleRecipe, named: dict[str, float]) -> bool:
    """Tell whether pieces may name a peak: it is given, or its default is known."""
    is_default = wanted.peak_lr == ScheduleRecipe().peak_lr
    return not is_default or wanted.peak_lr.name in named


def _resolve_schedule(
    recipe: Recipe, size: Size, rates: CurveRates, notes: Notes
) -> Schedule | None:
    wanted = recipe.schedule
    schedule = build_schedule(
        wanted,
        rates,
        num_steps=size.num_steps,
        tokens_per_step=size.tokens_per_step,
        problems=notes.problems,
    )
    if schedule is None:
        return None
    if wanted.match_area is not None:
        area = area_under(schedule)
        factor = wanted.match_area / area if area else math.inf
        schedule = scaled(schedule, factor) if area else schedule
        notes.because(
            "schedule.match_area",
            f"{wanted.match_area:.6g}",
            f"the whole curve is multiplied by {factor:.4g} so that its rates sum to this",
        )
    highest = lr_at(schedule, peak_step(schedule))
    if not 0 < highest <= _LARGEST_LR:
        key = "match_area" if wanted.match_area is not None else "pieces"
        notes.problems.add(
            f"schedule.{key}",
            f"over {size.num_steps} steps this takes a peak of {highest:.4g}"
            + (", beyond any learning rate" if highest else ": nothing would be learned"),
            "usual peaks lie between 1e-5 and 1e-2",
        )
        return None
    _explain_schedule(recipe, schedule, notes)
    return schedule


def _explain_schedule(recipe: Recipe, schedule: Schedule, notes: Notes) -> None:
    wanted = recipe.schedule
    _explain_peak(wanted, lr_at(schedule, peak_step(schedule)), notes)
    if wanted.kind != "pieces":
        _explain_warmup(wanted, schedule, notes)
    if wanted.kind in ("wsd", "infinite", "cyclic", "pieces"):
        notes.because("schedule.kind", wanted.kind, _told(schedule), _SOURCE_OF[wanted.kind])
    if wanted.kind not in ("constant", "pieces"):
        notes.because(
            "schedule.final_lr",
            f"{schedule[-1].end_lr:.4g}",
            f"{schedule[-1].shape} to {wanted.final_lr}",
            REUSE if str(wanted.final_lr) == "peak/100" else "recipe",
        )
    for step, was, is_now in joins(schedule) if wanted.kind in ("pieces", "infinite") else ():
        notes.warnings.append(
            f"the learning rate jumps from {was:.4g} to {is_now:.4g} at step {step}"
        )
    notes.because(
        "schedule.area",
        f"{area_under(schedule):.6g}",
        "sum of the rate over all steps: explains most differences between recipes",
        "n·s + (e − s)(n − 1)/2 per linear or cosine piece, added up in others",
    )


def _told(schedule: Schedule) -> str:
    """Return the pieces in words: shape, steps and rates of each."""
    parts = [
        f"{piece.shape} until step {piece.end_step}"
        + ("" if piece.shape == "constant" else f" to {piece.end_lr:.4g}")
        for piece in schedule[:_MOST_PIECES]
    ]
    more = len(schedule) - len(parts)
    return ", ".join(parts) + (f", and {more} pieces more" if more else "")


def _explain_peak(wanted: ScheduleRecipe, peak: float, notes: Notes) -> None:
    if wanted.match_area is not None:
        why, source = f"{wanted.peak_lr}, multiplied to match the area", "recipe"
    elif wanted.kind == "pieces":
        why, source = "the highest rate of the pieces", "recipe"
    elif wanted.peak_lr.name == "pretraining.final":
        why = "continue from the rate at which the pretraining ended, so that nothing jumps"
        source = REUSE
    elif wanted.peak_lr.name == "pretraining.peak":
        why, source = "re-warmed to the pretraining's peak", REWARM
        if wanted.peak_lr.factor != 1.0:
            why = f"re-warmed to the pretraining's peak × {wanted.peak_lr.factor:.4g}"
    else:
        why, source = "as the recipe says", "recipe"
    notes.because("schedule.peak_lr", f"{peak:.4g}", why, source)


def _explain_warmup(wanted: ScheduleRecipe, schedule: Schedule, notes: Notes) -> None:
    from_final = wanted.peak_lr.name == "pretraining.final" and wanted.match_area is None
    warmup_steps = schedule[0].end_step if schedule[0].start_lr < schedule[0].end_lr else 0
    source = "recipe"
    if warmup_steps and wanted.warmup_steps is not None:
        why = "linear, as the recipe says"
    elif warmup_steps:
        each = " of each cycle" if wanted.kind == "cyclic" else " of the steps"
        why = f"{wanted.warmup_fraction:g}{each}, linear"
    elif from_final:
        why = "no warm-up: the paper saw any to be worse when continuing from the final rate"
        source = REUSE
    else:
        why = "none is asked for"
    notes.because("schedule.warmup", f"{warmup_steps} steps", why, source)
