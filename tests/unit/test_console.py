"""What is told while a run trains: on a terminal live, elsewhere in plain lines."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from rewarm.records.facts import EvalRecord, StepRecord
from rewarm.stages import console as console_module
from rewarm.stages.console import TrainConsole
from tests.support.fake_runs import Arm, eval_record, fake_plan, fake_recipe

PLAN = fake_plan(fake_recipe(1, Arm(), 40))


class Clock:
    """A clock that goes on only where it is told to."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(console_module, "time", clock)
    return clock


def step_record(step: int, step_s: float) -> StepRecord:
    return StepRecord(
        step=step,
        loss=2.5,
        lr=1e-3,
        grad_norm=1.0,
        num_valid_tokens=PLAN.science.tokens_per_step,
        num_tokens=(step + 1) * PLAN.science.tokens_per_step,
        phase="general",
        samples=(),
        step_s=step_s,
    )


def evals(step: int, old: float) -> Sequence[EvalRecord]:
    return [eval_record(step, "english", "general", "bits_per_byte", [old] * 9, [9] * 9)]


def follow(clock: Clock, console: Console) -> None:
    """Ten steps of 2 s with an evaluation of 30 s after the first and after the fifth."""
    with TrainConsole(PLAN, console) as live:
        live.show_evals(evals(0, 1.0))
        for step in range(10):
            clock.now += 2.0
            live.show_step(step_record(step, 2.0))
            if step in (0, 4):
                clock.now += 30.0
                live.show_evals(evals(step + 1, 1.0 + step / 10))


def test_plain_lines_tell_evaluations_and_the_speed_of_steps_alone(clock: Clock) -> None:
    file = io.StringIO()
    follow(clock, Console(file=file, width=80))
    lines = file.getvalue().splitlines()
    held_out = [line for line in lines if "held-out" in line]
    assert [line.partition(" held-out")[0].split()[-1] for line in held_out] == ["0", "1", "5"]
    base, first, fifth = (evals(0, 1.0)[0].value, evals(1, 1.0)[0].value, evals(5, 1.4)[0].value)
    assert f"({first - base:+.3f})" in held_out[1]
    assert f"({fifth - base:+.3f})" in held_out[2]
    assert len({line.rpartition("held-out")[2] for line in held_out}) == 3
    assert PLAN.science.tokens_per_step == 2048
    assert all("1.02k tok/s" in line for line in lines if "tok/s" in line)
    # 72 s for six steps, evaluations included: the 34 that remain take 408 s.
    sixth = next(line for line in lines if ": 6/40" in line)
    assert "6 min 48 s left" in sixth


@pytest.mark.parametrize("width", [40, 80])
def test_a_terminal_shows_every_figure(clock: Clock, width: int) -> None:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    follow(clock, console)
    shown = " ".join(file.getvalue().split())
    for figure in ("10/40", "left", "loss 2.500", "lr 1.00e-03", "general", "tok/s", "held-out:"):
        assert figure in shown
