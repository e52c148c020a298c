"""The learning rate as a pure function of the step.

A schedule is a tuple of contiguous *pieces*; each has a shape, a first rate s and a last rate e.
The rate of step k (0-based) in a piece over steps [a, b) is the shape's interpolation at progress
x = (k − a)/(b − a): a piece starts exactly at its first rate and reaches its last one at step b,
where the next piece takes over, so that pieces join without a jump and a piece can be branched or
extended at any step. Nothing about the rate is ever stored in a checkpoint.

    shape         rate at progress x              used by
    constant      s                               infinite schedules between cooldown and anneal
    linear        s + (e − s) x                   warm-ups
    cosine        e + (s − e)(1 + cos πx)/2       most pretraining; the cooldown of infinite ones
    1-sqrt        s + (e − s) √x                  decay of WSD (Hägele et al. 2024)
    inverse-sqrt  s + (e − s) h(x)/h(1)           cooldown of infinite ones (Ibrahim et al. 2024),
                  h(x) = 1/√(1 + 10x) − 1
    exponential   s (e/s)^x                       anneal of infinite ones; e above 0

Every shape is monotone, which is what lets thresholds be solved for: u = (y − s)/(e − s) is the
share of the way to the rate y, and x follows from it (`_progress_at`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rewarm.records.facts import Record

__all__ = [
    "PieceSpec",
    "Schedule",
    "SchedulePiece",
    "Shape",
    "area_under",
    "chain",
    "cosine_fraction_below",
    "first_step_below",
    "joins",
    "lowest_after_peak",
    "lr_at",
    "lr_curve",
    "peak_step",
    "scaled",
    "warmup_spec",
    "warmup_then_decay",
]

Shape = Literal["constant", "linear", "cosine", "1-sqrt", "inverse-sqrt", "exponential"]

_ALPHA = 10.0
"""Steepness of the inverse square root, as in Ibrahim et al. 2024."""
_H_1 = 1 / math.sqrt(1 + _ALPHA) - 1
_SUM_AT_ONCE = 1 << 20


class SchedulePiece(Record):
    """Steps [start_step, end_step) with the rate going from `start_lr` to `end_lr`."""

    shape: Shape
    start_step: int = Field(ge=0)
    end_step: int
    start_lr: float = Field(ge=0)
    end_lr: float = Field(ge=0)


Schedule = tuple[SchedulePiece, ...]


def lr_at(schedule: Sequence[SchedulePiece], step: int) -> float:
    """Return the learning rate of optimizer step `step` (0-based), in O(number of pieces).

    Raises ValueError for a step outside of the schedule.
    """
    for piece in schedule:
        if piece.start_step <= step < piece.end_step:
            return _rate(piece, (step - piece.start_step) / (piece.end_step - piece.start_step))
    raise ValueError(f"step {step} is outside of the schedule [0, {schedule[-1].end_step})")


def _rate(piece: SchedulePiece, progress: float) -> float:
    start, end = piece.start_lr, piece.end_lr
    match piece.shape:
        case "constant":
            return start
        case "linear":
            return start + (end - start) * progress
        case "cosine":
            return end + (start - end) * (1.0 + math.cos(math.pi * progress)) / 2
        case "1-sqrt":
            return start + (end - start) * math.sqrt(progress)
        case "inverse-sqrt":
            return start + (end - start) * (1 / math.sqrt(1 + _ALPHA * progress) - 1) / _H_1
        case "exponential":
            return start * math.pow(end / start, progress)


def _rates(piece: SchedulePiece, progress: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rates at many places of a piece, as `_rate` does for one."""
    start, end = piece.start_lr, piece.end_lr
    match piece.shape:
        case "constant":
            return np.full_like(progress, start)
        case "linear":
            share = progress
        case "cosine":
            return end + (start - end) * (1.0 + np.cos(np.pi * progress)) / 2
        case "1-sqrt":
            share = np.sqrt(progress)
        case "inverse-sqrt":
            share = (1 / np.sqrt(1 + _ALPHA * progress) - 1) / _H_1
        case "exponential":
            return start * (end / start) ** progress
    return start + (end - start) * share


def _progress_at(piece: SchedulePiece, lr: float) -> float:
    """Return the progress at which a piece that is not constant passes a rate, in [0, 1]."""
    if piece.shape == "exponential":
        progress = math.log(lr / piece.start_lr) / math.log(piece.end_lr / piece.start_lr)
        return min(1.0, max(0.0, progress))
    share = min(1.0, max(0.0, (lr - piece.start_lr) / (piece.end_lr - piece.start_lr)))
    match piece.shape:
        case "cosine":
            return math.acos(1.0 - 2.0 * share) / math.pi
        case "1-sqrt":
            return share**2
        case "inverse-sqrt":
            return ((1 + share * _H_1) ** -2 - 1) / _ALPHA
        case _:
            return share


def lr_curve(schedule: Sequence[SchedulePiece]) -> NDArray[np.float64]:
    """Return the rate of every step, shape [steps]."""
    curve = np.empty(schedule[-1].end_step, dtype=np.float64)
    for piece in schedule:
        num_steps = piece.end_step - piece.start_step
        curve[piece.start_step : piece.end_step] = _rates(piece, np.arange(num_steps) / num_steps)
    return curve


def area_under(schedule: Sequence[SchedulePiece]) -> float:
    """Return the sum of the rate over all steps: how far the weights may travel.

    n steps of a linear piece from s to e sum to n·s + (e − s)(n − 1)/2, and so do n steps of a
    cosine, whose left Riemann sum of (1 + cos πx)/2 is (n + 1)/2. Other shapes are added up.
    """
    return math.fsum(_area(piece) for piece in schedule)


def _area(piece: SchedulePiece) -> float:
    num_steps = piece.end_step - piece.start_step
    if piece.shape == "constant":
        return num_steps * piece.start_lr
    if piece.shape in ("linear", "cosine"):
        return num_steps * piece.start_lr + (piece.end_lr - piece.start_lr) * (num_steps - 1) / 2
    return math.fsum(
        float(
            _rates(piece, np.arange(first, min(first + _SUM_AT_ONCE, num_steps)) / num_steps).sum()
        )
        for first in range(0, num_steps, _SUM_AT_ONCE)
    )


def cosine_fraction_below(divisor: float, end_ratio: float) -> float:
    """Return the progress at which a cosine from η to `end_ratio`·η has fallen to η/`divisor`.

    f = arccos(2(1/k − r)/(1 − r) − 1)/π; k = 5 and r = 1/100 give 0.7113 (Parmar et al. 2024
    switch to their QA blend there). Raises ValueError where the cosine never gets so low.
    """
    target = 1.0 / divisor
    if not end_ratio <= target <= 1.0:
        raise ValueError(f"a cosine from 1 to {end_ratio:g} never passes {target:g}")
    return math.acos(2.0 * (target - end_ratio) / (1.0 - end_ratio) - 1.0) / math.pi


def first_step_below(schedule: Sequence[SchedulePiece], threshold: float) -> int | None:
    """Return the first step after the peak whose rate is below `threshold`, None if there is none.

    Solved piece by piece in closed form, then settled by evaluating the neighbouring steps, so
    that rounding in the inverse never moves a switch.
    """
    peak = peak_step(schedule)
    for piece in schedule:
        if piece.end_step <= peak:
            continue
        first = max(piece.start_step, peak)
        if lr_at(schedule, first) < threshold:
            return first
        if lr_at(schedule, piece.end_step - 1) < threshold:
            return _settle(schedule, piece, threshold, first)
    return None


def peak_step(schedule: Sequence[SchedulePiece]) -> int:
    """Return the first step with the highest rate; in monotone pieces it is at an end."""
    return max(_end_steps(schedule), key=lambda step: (lr_at(schedule, step), -step))


def lowest_after_peak(schedule: Sequence[SchedulePiece]) -> float:
    """Return the lowest rate from the peak on: what a threshold has to lie above."""
    peak = peak_step(schedule)
    return min(lr_at(schedule, step) for step in _end_steps(schedule) if step >= peak)


def _end_steps(schedule: Sequence[SchedulePiece]) -> list[int]:
    return [step for piece in schedule for step in (piece.start_step, piece.end_step - 1)]


def _settle(
    schedule: Sequence[SchedulePiece], piece: SchedulePiece, threshold: float, first: int
) -> int:
    """Return the first step below in a falling piece that begins above and ends below."""
    progress = _progress_at(piece, threshold)
    step = piece.start_step + math.ceil(progress * (piece.end_step - piece.start_step))
    step = min(max(step, first), piece.end_step - 1)
    while step > first and lr_at(schedule, step - 1) < threshold:
        step -= 1
    while lr_at(schedule, step) >= threshold:
        step += 1
    return step


class PieceSpec(NamedTuple):
    """A piece before it has a place: shape, number of steps, first and last rate."""

    shape: Shape
    num_steps: int
    start_lr: float
    end_lr: float


def chain(specs: Iterable[PieceSpec], *, from_step: int = 0) -> Schedule:
    """Return pieces one after the other, from a step on; those without a step are left out.

    Raises ValueError for a negative number of steps, or an exponential piece from or to 0.
    """
    pieces: list[SchedulePiece] = []
    for spec in specs:
        if spec.num_steps < 0:
            raise ValueError(f"a piece of {spec.num_steps} steps")
        if spec.shape == "exponential" and not (spec.start_lr > 0 and spec.end_lr > 0):
            raise ValueError("an exponential piece never leaves or reaches a rate of 0")
        if spec.num_steps == 0:
            continue
        pieces.append(
            SchedulePiece(
                shape=spec.shape,
                start_step=from_step,
                end_step=from_step + spec.num_steps,
                start_lr=spec.start_lr,
                end_lr=spec.start_lr if spec.shape == "constant" else spec.end_lr,
            )
        )
        from_step += spec.num_steps
    return tuple(pieces)


def joins(schedule: Sequence[SchedulePiece]) -> list[tuple[int, float, float]]:
    """Return where the rate jumps between pieces: [(step, rate it was going to, rate it has)]."""
    return [
        (after.start_step, before.end_lr, after.start_lr)
        for before, after in itertools.pairwise(schedule)
        if not math.isclose(before.end_lr, after.start_lr, rel_tol=1e-9)
    ]


def warmup_spec(num_steps: int, peak_lr: float, *, from_lr: float = 0.0) -> PieceSpec:
    """Return a linear warm-up from `from_lr` to the peak that wastes no step at its first rate.

    Its step k has `from_lr` + (peak − `from_lr`)(k + 1)/(steps + 1); the step after it the peak.
    """
    first = from_lr + (peak_lr - from_lr) / (num_steps + 1)
    return PieceSpec("linear", num_steps, first, peak_lr)


def warmup_then_decay(
    *, kind: Shape, num_steps: int, warmup_steps: int, peak_lr: float, final_lr: float
) -> Schedule:
    """Return a linear warm-up over `warmup_steps`, then the decay `kind` to the end.

    Raises ValueError unless 0 ≤ warm-up < steps.
    """
    if not 0 <= warmup_steps < num_steps:
        raise ValueError(f"{warmup_steps} warm-up steps do not fit into {num_steps} steps")
    return chain(
        [
            warmup_spec(warmup_steps, peak_lr),
            PieceSpec(kind, num_steps - warmup_steps, peak_lr, final_lr),
        ]
    )


def scaled(schedule: Sequence[SchedulePiece], factor: float) -> Schedule:
    """Return the schedule with every rate multiplied by `factor`; its shape is unchanged."""
    return tuple(
        piece.model_copy(
            update={"start_lr": piece.start_lr * factor, "end_lr": piece.end_lr * factor}
        )
        for piece in schedule
    )
