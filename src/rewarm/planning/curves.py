"""From the recipe's kind of schedule to its pieces over exact steps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from rewarm.errors import Problems
from rewarm.planning.schedule import PieceSpec, Schedule, chain, warmup_spec
from rewarm.recipe.schedule import LrExpression, PieceRecipe, ScheduleRecipe
from rewarm.units import counted

__all__ = ["CurveRates", "build_schedule", "rate_of"]


@dataclass(frozen=True, slots=True)
class CurveRates:
    """The resolved rates of a schedule, and what else its expressions may name."""

    peak: float | None
    """None where the pieces are the recipe's own and it names no peak."""
    final: float
    named: Mapping[str, float]


def build_schedule(
    wanted: ScheduleRecipe,
    rates: CurveRates,
    *,
    num_steps: int,
    tokens_per_step: int,
    problems: Problems,
) -> Schedule | None:
    """Return the pieces over steps [0, num_steps), or None with what is wrong noted."""
    before = len(problems)
    if wanted.kind == "pieces":
        specs = _own_pieces(wanted, rates, num_steps, tokens_per_step, problems)
    elif wanted.kind == "cyclic":
        specs = _cycles(wanted, rates, num_steps, problems)
    else:
        specs = _with_warmup(wanted, rates, num_steps, problems)
    if len(problems) > before:
        return None
    for spec in specs:
        if spec.shape == "exponential" and not (spec.start_lr > 0 and spec.end_lr > 0):
            problems.add(
                "schedule.final_lr" if wanted.kind != "pieces" else "schedule.pieces",
                "an exponential decay never reaches a rate of 0",
                "give a small rate, e.g. peak/100, or another shape",
            )
            return None
    return chain(specs)


def rate_of(
    expression: LrExpression, named: Mapping[str, float], where: str, problems: Problems
) -> float | None:
    """Return the value of a rate, or None with the unknown name noted as a problem."""
    if expression.name is None:
        return expression.factor
    if expression.name in named:
        return expression.factor * named[expression.name]
    key = expression.name.removeprefix("pretraining.")
    if key == expression.name:
        problems.add(
            where,
            f"{str(expression)!r} names a rate that this schedule does not have",
            "give schedule.peak_lr, or a number",
        )
        return None
    above = " above 0" if key == "final" else ""
    problems.add(
        where,
        f"{str(expression)!r} needs the base's {key} learning rate, and the recipe gives "
        f"none{above}",
        f"give base.pretraining.{key}_lr (from the model's paper or card), or set {where} to a "
        "number; `rewarm tune --lr --around 3e-5` measures which"
        + ("; with base.pretraining.peak_lr, peak × 0.1 is assumed" if key == "final" else ""),
    )
    return None


def _warmup_steps(wanted: ScheduleRecipe, num_steps: int, problems: Problems) -> int:
    if wanted.warmup_steps is not None:
        steps, key = wanted.warmup_steps, "warmup_steps"
    else:
        # 0.07 of 100 steps are 7, though the product of the two floats lies above it.
        steps = math.ceil(wanted.warmup_fraction * num_steps - 1e-9 * num_steps)
        key = "warmup_fraction"
    if steps >= num_steps:
        problems.add(
            f"schedule.{key}",
            f"the warm-up takes all of {counted(num_steps, 'step')}"
            + (" of a cycle" if wanted.kind == "cyclic" else ""),
            "lower it, or raise budget.tokens for more steps",
        )
    return steps


def _with_warmup(
    wanted: ScheduleRecipe, rates: CurveRates, num_steps: int, problems: Problems
) -> list[PieceSpec]:
    warmup = _warmup_steps(wanted, num_steps, problems)
    peak, final = rates.peak, rates.final
    assert peak is not None
    first = warmup_spec(warmup, peak)
    if wanted.kind == "wsd":
        decay = max(1, round(wanted.decay_fraction * num_steps))
        if warmup + decay > num_steps:
            problems.add(
                "schedule.decay_fraction",
                f"{counted(warmup, 'step')} of warm-up and {decay} of decay do not fit into "
                f"{num_steps:,}",
                "lower one of them or raise budget.tokens",
            )
        stable = PieceSpec("constant", max(0, num_steps - warmup - decay), peak, peak)
        return [first, stable, PieceSpec(wanted.decay_shape or "1-sqrt", decay, peak, final)]
    if wanted.kind == "infinite":
        return _infinite(wanted, rates, num_steps, first, problems)
    shape = "constant" if wanted.kind == "constant" else wanted.kind
    assert shape in ("constant", "linear", "cosine")
    return [first, PieceSpec(shape, max(0, num_steps - warmup), peak, final)]


def _infinite(
    wanted: ScheduleRecipe,
    rates: CurveRates,
    num_steps: int,
    warmup: PieceSpec,
    problems: Problems,
) -> list[PieceSpec]:
    peak, final = warmup.end_lr, rates.final
    named = {**rates.named, "peak": peak, "start": peak}
    constant = rate_of(wanted.constant_lr, named, "schedule.constant_lr", problems)
    if constant is None:
        return []
    if not final <= constant <= peak:
        problems.add(
            "schedule.constant_lr",
            f"{wanted.constant_lr} = {constant:.4g} is not between final_lr = {final:.4g} and "
            f"peak_lr = {peak:.4g}",
            "change one of the three",
        )
    cooled = round(wanted.cooldown_end * num_steps)
    if wanted.warmup_steps is not None and warmup.num_steps > cooled:
        problems.add(
            "schedule.warmup_steps",
            f"a warm-up of {counted(warmup.num_steps, 'step')} leaves no cooldown until step "
            f"{cooled}, {wanted.cooldown_end:g} of {num_steps:,}",
            "lower it, or raise schedule.cooldown_end or budget.tokens",
        )
    cooled = max(warmup.num_steps, cooled)
    anneal = max(cooled, round(wanted.anneal_start * num_steps))
    return [
        warmup,
        PieceSpec(wanted.cooldown_shape, cooled - warmup.num_steps, peak, constant),
        PieceSpec("constant", anneal - cooled, constant, constant),
        PieceSpec("exponential", num_steps - anneal, constant, final)
        if anneal < num_steps
        else PieceSpec("constant", 0, constant, constant),
    ]


def _cycles(
    wanted: ScheduleRecipe, rates: CurveRates, num_steps: int, problems: Problems
) -> list[PieceSpec]:
    if num_steps < 2 * wanted.cycles:
        problems.add(
            "schedule.cycles",
            f"{wanted.cycles} cycles of {num_steps} steps leave less than 2 steps for each",
            "lower it or raise budget.tokens",
        )
        return []
    assert rates.peak is not None
    ends = [round(index * num_steps / wanted.cycles) for index in range(wanted.cycles + 1)]
    warmup = _warmup_steps(wanted, num_steps // wanted.cycles, problems)
    specs: list[PieceSpec] = []
    for start, end in itertools.pairwise(ends):
        # From nothing at first, later from where the cycle before ended.
        from_lr = rates.final if specs else 0.0
        specs += [
            warmup_spec(warmup, rates.peak, from_lr=from_lr),
            PieceSpec(
                wanted.decay_shape or "cosine",
                max(0, end - start - warmup),
                rates.peak,
                rates.final,
            ),
        ]
    return specs


def _own_pieces(
    wanted: ScheduleRecipe,
    rates: CurveRates,
    num_steps: int,
    tokens_per_step: int,
    problems: Problems,
) -> list[PieceSpec]:
    named = dict(rates.named) if rates.peak is None else {**rates.named, "peak": rates.peak}
    specs: list[PieceSpec] = []
    left = num_steps
    before: float | None = None
    for index, piece in enumerate(wanted.pieces):
        where = f"schedule.pieces[{index}]"
        is_last = index == len(wanted.pieces) - 1
        steps = left if is_last else _length(piece, num_steps, tokens_per_step)
        if steps is None or (is_last and _length(piece, num_steps, tokens_per_step) is not None):
            problems.add(
                where,
                "the last piece takes the steps that are left" if is_last else "how long is it?",
                "leave its length out" if is_last else "give one of fraction, tokens, steps",
            )
            return []
        left -= steps
        if steps < 1 or left < 0:
            problems.add(
                where,
                f"it has {steps:,} of the {counted(left + steps, 'step')} that are left of "
                f"{num_steps:,}",
                "change the lengths of the pieces, or raise budget.tokens",
            )
            return []
        start = before
        if piece.start_lr is not None:
            start = rate_of(piece.start_lr, named, f"{where}.start_lr", problems)
        elif before is None:
            start = rates.peak
            if start is None:
                problems.add(
                    f"{where}.start_lr",
                    "the first piece starts from no rate",
                    "give it, or schedule.peak_lr",
                )
                return []
        if index == 0 and start is not None:
            named["start"] = start
        end = start
        if piece.end_lr is not None:
            end = rate_of(piece.end_lr, named, f"{where}.end_lr", problems)
        if start is None or end is None:
            return []
        specs.append(PieceSpec(piece.shape, steps, start, end))
        before = end
    return specs


def _length(piece: PieceRecipe, num_steps: int, tokens_per_step: int) -> int | None:
    if piece.steps is not None:
        return piece.steps
    if piece.fraction is not None:
        return round(piece.fraction * num_steps)
    return None if piece.tokens is None else -(-piece.tokens // tokens_per_step)
