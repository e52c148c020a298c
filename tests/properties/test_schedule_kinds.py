"""Every kind of schedule that a recipe can name: what holds at any step, for any of its numbers."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewarm.errors import Problems
from rewarm.planning.curves import CurveRates, build_schedule
from rewarm.planning.schedule import Schedule, joins, lr_at, lr_curve
from rewarm.recipe.schedule import ScheduleRecipe

KINDS = ("cosine", "linear", "constant", "wsd", "infinite", "cyclic", "pieces")


def kind_of(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """Return keys of a kind, as a person may write them."""
    wanted: dict[str, Any] = {"kind": kind}
    if kind != "pieces":
        wanted["warmup_fraction"] = draw(st.sampled_from((0.0, 0.01, 0.1, 0.3)))
    if kind == "wsd":
        wanted["decay_fraction"] = draw(st.floats(0.05, 0.6))
    if kind in ("wsd", "cyclic"):
        shapes = ("linear", "cosine", "1-sqrt", "exponential")
        wanted["decay_shape"] = draw(st.sampled_from(shapes))
    if kind == "infinite":
        wanted["cooldown_shape"] = draw(st.sampled_from(("cosine", "inverse-sqrt")))
        wanted["cooldown_end"] = draw(st.floats(0.4, 0.7))
        wanted["anneal_start"] = draw(st.sampled_from((0.75, 0.9, 1.0)))
    if kind == "cyclic":
        wanted["cycles"] = draw(st.integers(1, 4))
    if kind == "pieces":
        rates = [draw(st.floats(1e-6, 1e-2)) for _ in range(3)]
        wanted["pieces"] = [
            {"shape": "linear", "start_lr": rates[0], "end_lr": rates[1], "fraction": 0.25},
            {"shape": "constant", "fraction": 0.25},
            {"shape": draw(st.sampled_from(("1-sqrt", "exponential"))), "end_lr": rates[2]},
        ]
    return wanted


class Drawn:
    """A schedule with the numbers that it was built from."""

    def __init__(self, draw: st.DrawFn, kind: str) -> None:
        """Draw a schedule of a kind over 40 to 3,000 steps."""
        self.wanted = ScheduleRecipe.model_validate(kind_of(draw, kind))
        self.num_steps = draw(st.integers(40, 3000))
        self.peak = draw(st.floats(1e-5, 1e-2))
        self.final = self.peak * draw(st.floats(1e-3, 0.5))
        problems = Problems()
        schedule = build_schedule(
            self.wanted,
            CurveRates(self.peak, self.final, {}),
            num_steps=self.num_steps,
            tokens_per_step=1,
            problems=problems,
        )
        assert schedule is not None, "a drawn schedule has problems"
        self.schedule: Schedule = schedule

    @property
    def warmup_steps(self) -> int:
        """Steps before the (first) peak."""
        first = self.schedule[0]
        return first.end_step if first.start_lr < first.end_lr else 0


@st.composite
def drawn(draw: st.DrawFn, *kinds: str) -> Drawn:
    return Drawn(draw, draw(st.sampled_from(kinds or KINDS)))


@given(drawn(), st.data())
def test_a_step_s_rate_needs_no_history(found: Drawn, data: st.DataObject) -> None:
    """The pieces cover every step once, and one step asked by itself has the curve's rate."""
    ends = [0, *(piece.end_step for piece in found.schedule)]
    assert [piece.start_step for piece in found.schedule] == ends[:-1]
    assert ends[-1] == found.num_steps
    step = data.draw(st.integers(0, found.num_steps - 1))
    assert lr_at(found.schedule, step) == pytest.approx(lr_curve(found.schedule)[step], rel=1e-12)


@given(drawn())
def test_pieces_join_without_a_jump(found: Drawn) -> None:
    """Cycles alone begin anew: with a warm-up from the last one's end, a step of it further."""
    expected = []
    if found.wanted.kind == "cyclic":
        warmup = found.warmup_steps
        first = found.final + (found.peak - found.final) / (warmup + 1)
        ends = [round(n * found.num_steps / found.wanted.cycles) for n in range(1, 4)]
        expected = [(end, found.final, first) for end in ends[: found.wanted.cycles - 1]]
    told = joins(found.schedule)
    assert [step for step, _, _ in told] == [step for step, _, _ in expected]
    for (_, was, is_now), (_, before, after) in zip(told, expected, strict=True):
        assert (was, is_now) == pytest.approx((before, after), rel=1e-9)


@given(drawn("cosine", "linear", "constant", "wsd", "infinite", "cyclic"))
def test_its_ends_are_those_that_were_asked_for(found: Drawn) -> None:
    curve = lr_curve(found.schedule)
    warmup = found.warmup_steps
    assert curve[0] == pytest.approx(found.peak / (warmup + 1), rel=1e-12)
    assert curve[warmup] == pytest.approx(found.peak, rel=1e-12)
    assert curve.max() == pytest.approx(found.peak, rel=1e-12)
    end = found.schedule[-1].end_lr
    if found.wanted.kind == "constant":
        assert end == found.peak
    elif found.wanted.kind == "infinite" and found.wanted.anneal_start == 1:
        assert end == pytest.approx(0.55 * found.peak, rel=1e-12)
    else:
        assert end == found.final
    assert (curve[warmup:] >= end * (1 - 1e-12)).all()


@given(drawn("cosine", "linear", "constant", "wsd", "infinite", "cyclic"))
def test_it_rises_to_the_peak_and_then_never_again(found: Drawn) -> None:
    """Of a cyclic one each cycle does."""
    cycles = found.wanted.cycles if found.wanted.kind == "cyclic" else 1
    ends = [round(n * found.num_steps / cycles) for n in range(cycles + 1)]
    for start, end in itertools.pairwise(ends):
        curve = lr_curve(found.schedule)[start:end]
        top = found.warmup_steps
        assert (np.diff(curve[: top + 1]) > 0).all()
        assert (np.diff(curve[top:]) <= 1e-12 * found.peak).all()


@given(drawn("wsd", "infinite"))
def test_stretches_are_as_long_as_asked(found: Drawn) -> None:
    constant = [piece for piece in found.schedule if piece.shape == "constant"]
    assert len(constant) == 1
    if found.wanted.kind == "wsd":
        decay = found.num_steps - constant[0].end_step
        assert decay == pytest.approx(found.wanted.decay_fraction * found.num_steps, abs=0.5)
        assert constant[0].start_step == math.ceil(
            found.wanted.warmup_fraction * found.num_steps - 1e-6
        )
        assert constant[0].start_lr == found.peak
    else:
        begins, ends = found.wanted.cooldown_end, found.wanted.anneal_start
        assert constant[0].start_step == pytest.approx(begins * found.num_steps, abs=0.5)
        assert constant[0].end_step == pytest.approx(ends * found.num_steps, abs=0.5)
