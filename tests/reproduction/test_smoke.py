"""Every experiment of the reproduction goes through, in little."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
EXPERIMENTS = sorted(path.stem for path in (REPOSITORY / "reproduction/experiments").glob("*.toml"))
SUITE = [sys.executable, str(REPOSITORY / "reproduction" / "suite.py")]


def data() -> Path:
    """The corpora: beside the checkout, or where REWARM_DATA says."""
    named = os.environ.get("REWARM_DATA")
    found = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not (found / "text").is_dir():
        pytest.skip("the corpora are not here: name their folder in REWARM_DATA")
    return found


def listed(*options: str) -> list[list[str]]:
    said = subprocess.run(
        [*SUITE, "--list", *options], check=True, capture_output=True, text=True
    ).stdout
    return [line.split() for line in said.splitlines()]


def test_the_suite_keeps_to_its_budget_and_knows_every_experiment() -> None:
    rows = listed()
    assert {row[0] for row in rows[2:-1]} <= {*EXPERIMENTS}
    hours = rows[-1]
    assert hours[0] == "all"
    assert hours[2] == "h"
    assert int(hours[1]) < 3
    assert {row[0] for row in listed("--unbounded")} >= {*EXPERIMENTS, "bases", "all"}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_goes_through_in_little(name: str) -> None:
    finished = subprocess.run(
        [*SUITE, "--smoke", "--data", str(data()), name],
        check=False,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-2000:]
    assert "No verdict: one seed claims nothing about training" in finished.stdout
