"""The learning rate as a pure function of the step.

A schedule is a tuple of contiguous *pieces*; each has a shape, a first rate and a last rate. The
rate of step k (0-based) in a piece over steps [a, b) is the shape's interpolation at progress
x = (k − a)/(b − a): a piece starts exactly at its first rate and reaches its last one at step b,
where the next piece takes over, so that pieces join without a jump and a piece can be branched or
extended at any step. Nothing about the rate is ever stored in a checkpoint.

    shape      rate at progress x                           inverse x of the rate y
    constant   s                                            —
    linear     s + (e − s) x                                (y − s)/(e − s)
    cosine     e + (s − e)(1 + cos πx)/2                    arccos(2(y − e)/(s − e) − 1)/π
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rewarm.records.facts import Record

__all__ = [
    "Schedule",
    "SchedulePiece",
    "area_under",
    "cosine_fraction_below",
    "first_step_below",
    "lowest_after_peak",
    "lr_at",
    "lr_curve",
    "peak_step",
    "scaled",
    "warmup_then_decay",
]

Shape = Literal["constant", "linear", "cosine"]


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
    if piece.shape == "constant":
        return piece.start_lr
    if piece.shape == "linear":
        return piece.start_lr + (piece.end_lr - piece.start_lr) * progress
    return piece.end_lr + (piece.start_lr - piece.end_lr) * (1.0 + math.cos(math.pi * progress)) / 2


def lr_curve(schedule: Sequence[SchedulePiece]) -> NDArray[np.float64]:
    """Return the rate of every step, shape [steps]."""
    curve = np.empty(schedule[-1].end_step, dtype=np.float64)
    for piece in schedule:
        x = np.arange(piece.end_step - piece.start_step) / (piece.end_step - piece.start_step)
        if piece.shape == "cosine":
            shape = (1.0 + np.cos(np.pi * x)) / 2
            values = piece.end_lr + (piece.start_lr - piece.end_lr) * shape
        else:
            end = piece.end_lr if piece.shape == "linear" else piece.start_lr
            values = piece.start_lr + (end - piece.start_lr) * x
        curve[piece.start_step : piece.end_step] = values
    return curve


def area_under(schedule: Sequence[SchedulePiece]) -> float:
    """Return the sum of the rate over all steps: how far the weights may travel.

    In closed form, n steps of a linear piece from s to e sum to n·s + (e − s)(n − 1)/2, and so do
    n steps of a cosine, whose left Riemann sum of (1 + cos πx)/2 is (n + 1)/2.
    """
    total = 0.0
    for piece in schedule:
        num_steps = piece.end_step - piece.start_step
        change = 0.0 if piece.shape == "constant" else piece.end_lr - piece.start_lr
        total += num_steps * piece.start_lr + change * (num_steps - 1) / 2
    return total


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
    if piece.shape == "linear":
        progress = (threshold - piece.start_lr) / (piece.end_lr - piece.start_lr)
    else:
        ratio = 2.0 * (threshold - piece.end_lr) / (piece.start_lr - piece.end_lr) - 1.0
        progress = math.acos(min(1.0, max(-1.0, ratio))) / math.pi
    step = piece.start_step + math.ceil(progress * (piece.end_step - piece.start_step))
    step = min(max(step, first), piece.end_step - 1)
    while step > first and lr_at(schedule, step - 1) < threshold:
        step -= 1
    while lr_at(schedule, step) >= threshold:
        step += 1
    return step


def warmup_then_decay(
    *, kind: Shape, num_steps: int, warmup_steps: int, peak_lr: float, final_lr: float
) -> Schedule:
    """Return a linear warm-up over `warmup_steps`, then the decay `kind` to the end.

    The warm-up's step k has peak·(k + 1)/(warmup + 1): no step is spent at rate zero, and the
    first step after it has exactly the peak. Raises ValueError unless 0 ≤ warm-up < steps.
    """
    if not 0 <= warmup_steps < num_steps:
        raise ValueError(f"{warmup_steps} warm-up steps do not fit into {num_steps} steps")
    end_lr = peak_lr if kind == "constant" else final_lr
    decay = SchedulePiece(
        shape=kind, start_step=warmup_steps, end_step=num_steps, start_lr=peak_lr, end_lr=end_lr
    )
    if warmup_steps == 0:
        return (decay,)
    warmup = SchedulePiece(
        shape="linear",
        start_step=0,
        end_step=warmup_steps,
        start_lr=peak_lr / (warmup_steps + 1),
        end_lr=peak_lr,
    )
    return (warmup, decay)


def scaled(schedule: Sequence[SchedulePiece], factor: float) -> Schedule:
    """Return the schedule with every rate multiplied by `factor`; its shape is unchanged."""
    return tuple(
        piece.model_copy(
            update={"start_lr": piece.start_lr * factor, "end_lr": piece.end_lr * factor}
        )
        for piece in schedule
    )
