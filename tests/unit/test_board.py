"""The table of runs that go on beside each other, on a terminal and without one."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from rewarm.planning.plan import load_plan
from rewarm.stages.board import Board
from rewarm.stages.launches import Launch
from tests.support.fake_runs import make_fake_run


@pytest.fixture
def launches(tmp_path: Path) -> list[Launch]:
    found = []
    for number, taken in enumerate((60, 17, 0)):
        run = make_fake_run(tmp_path / str(number), num_steps=60, steps_taken=taken)
        found.append(Launch(f"arm, seed {number}", load_plan(run.plan), run))
    return found


STATES = {"arm, seed 0": "done", "arm, seed 1": "running", "arm, seed 2": "waiting"}


def test_step_rate_and_state_of_every_run(launches: list[Launch]) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(Board(launches, console).table(STATES))
    lines = console.export_text().splitlines()
    done, running, waiting = (next(x for x in lines if f"seed {k}" in x) for k in range(3))
    assert "60/60" in done
    assert done.rstrip().endswith("done")
    assert "17/60" in running
    # 2,048 tokens in about 0.21 s a step.
    assert 8_000 < float(running.split("17/60")[1].split()[0].removesuffix("k")) * 1000 < 10_000
    assert "0/60" in waiting
    assert running.count("━") == 20


def test_what_does_not_fit_is_counted(launches: list[Launch]) -> None:
    console = Console(width=80, height=6, record=True, file=io.StringIO())
    many = [Launch(f"run {k}", launches[k % 3].plan, launches[k % 3].run) for k in range(20)]
    states = {launch.name: "waiting" for launch in many} | {"run 13": "running"}
    console.print(Board(many, console).table(states))
    told = console.export_text()
    assert "run 13" in told  # what runs is shown first
    assert "and 16 more" in told


def test_plain_lines_tell_what_changed(launches: list[Launch]) -> None:
    file = io.StringIO()
    with Board(launches, Console(width=80, file=file)) as board:
        for states in (STATES, STATES, {**STATES, "arm, seed 1": "failed"}):
            board.show(states)
    assert [line.split(",")[1].strip() for line in file.getvalue().splitlines()] == [
        "seed 0: done",
        "seed 1: running",
        "seed 1: failed",
    ]
    assert "step 17/60" in file.getvalue()


def test_the_last_lines_of_a_run(launches: list[Launch]) -> None:
    run = launches[0].run
    assert run.last_lines() == ""
    run.output.write_text("".join(f"line {k}\n\n" for k in range(40)))
    assert run.last_lines().splitlines() == [f"line {k}" for k in range(28, 40)]
