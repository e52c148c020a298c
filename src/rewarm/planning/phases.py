"""From the phases of the recipe to exact steps: where each blend begins and ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rewarm.errors import Problems
from rewarm.planning.schedule import Schedule, first_step_below, lowest_after_peak, lr_at
from rewarm.recipe.phases import PhaseRecipe, Until
from rewarm.recipe.schedule import LrExpression
from rewarm.units import format_count

__all__ = ["PhaseSpan", "resolve_phases"]


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """Steps [start_step, end_step) of one phase, and why it ends where it ends."""

    name: str
    start_step: int
    end_step: int
    reason: str


def resolve_phases(
    phases: Sequence[PhaseRecipe],
    schedule: Schedule,
    *,
    tokens_per_step: int,
    resolve_lr: dict[str, float],
    problems: Problems,
) -> tuple[PhaseSpan, ...]:
    """Return contiguous spans that cover the schedule, or note what is wrong.

    `resolve_lr` gives the values of the named rates (`start`, `peak`, `pretraining.*`) that are
    known; an expression with another name is noted as a problem.
    """
    num_steps = schedule[-1].end_step
    spans: list[PhaseSpan] = []
    start = 0
    for index, phase in enumerate(phases):
        where = f"phases[{index}].until"
        if phase.until is None:
            end: int | None = num_steps
            reason = "the budget ends"
        else:
            end, reason = _end_of(
                phase.until,
                schedule,
                tokens_per_step=tokens_per_step,
                resolve_lr=resolve_lr,
                where=where,
                problems=problems,
            )
        if end is None:
            return ()
        if not start < end <= num_steps:
            problems.add(
                where,
                f"phase {phase.name!r} would end at step {end}, but it begins at step {start} "
                f"of {num_steps}: it has no steps",
                "move the ends of the phases apart, or raise budget.tokens",
            )
            return ()
        spans.append(PhaseSpan(phase.name, start, end, reason))
        start = end
    return tuple(spans)


def _end_of(
    until: Until,
    schedule: Schedule,
    *,
    tokens_per_step: int,
    resolve_lr: dict[str, float],
    where: str,
    problems: Problems,
) -> tuple[int | None, str]:
    """Return the first step that no longer belongs to the phase, with the reason in words."""
    num_steps = schedule[-1].end_step
    if until.lr_below is not None:
        return _first_below(until.lr_below, schedule, resolve_lr, where, problems)
    if until.fraction is not None:
        return round(until.fraction * num_steps), f"{until.fraction:g} of {num_steps} steps"
    if until.step is not None:
        return until.step, f"before step {until.step}"
    assert until.tokens is not None
    step = -(-until.tokens // tokens_per_step)
    return step, f"the first step boundary at or after {format_count(until.tokens)} tokens"


def _first_below(
    expression: LrExpression,
    schedule: Schedule,
    resolve_lr: dict[str, float],
    where: str,
    problems: Problems,
) -> tuple[int | None, str]:
    if expression.name is not None and expression.name not in resolve_lr:
        problems.add(
            f"{where}.lr_below",
            f"{str(expression)!r} needs {expression.name}, which is not known",
            f"give base.{expression.name}_lr, or a threshold relative to start or peak",
        )
        return None, ""
    base = 1.0 if expression.name is None else resolve_lr[expression.name]
    threshold = expression.factor * base
    step = first_step_below(schedule, threshold)
    if step is None:
        problems.add(f"{where}.lr_below", *_never_below(f"{expression}", threshold, schedule))
        return None, ""
    return step, f"first step after the peak whose rate is below {expression} = {threshold:.4g}"


def _never_below(expression: str, threshold: float, schedule: Schedule) -> tuple[str, str]:
    """Say that no step is below a threshold, and what to do about it."""
    num_steps, goes_to = schedule[-1].end_step, schedule[-1].end_lr
    if goes_to < threshold:
        counted = "the only step has" if num_steps == 1 else f"the last of {num_steps} steps has"
        return (
            f"no step's rate falls below {expression} = {threshold:.4g}: {counted} "
            f"{lr_at(schedule, num_steps - 1):.4g}, on its way to {goes_to:.4g}",
            "raise budget.tokens or lower batch.tokens for more steps, or end the phase by step",
        )
    return (
        f"the rate never falls below {expression} = {threshold:.4g} after its peak; "
        f"its minimum there is {lowest_after_peak(schedule):.4g}",
        "raise the threshold above the minimum, lower schedule.final_lr, or end the phase by "
        "fraction or tokens",
    )
