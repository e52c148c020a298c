"""Each promise's test fails when the one line that keeps it is broken.

A copy of the package with that line changed is put in front of the real one, and the test that
guards the promise is run against it: it must fail. A line that is no longer there is told too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutation:
    """`old` stands once in `file`; with `new` in its place `test` must fail."""

    promise: str
    file: str
    old: str
    new: str
    test: str


MUTATIONS = [
    Mutation(
        promise="a recipe's unknown key is refused",
        file="recipe/schema.py",
        old='frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True',
        new='frozen=True, extra="ignore", allow_inf_nan=False, str_strip_whitespace=True',
        test="tests/unit/test_recipe.py::test_an_unknown_key_names_its_neighbour",
    ),
    Mutation(
        promise="the budget is never exceeded",
        file="units.py",
        old="return tokens // tokens_per_step",
        new="return -(-tokens // tokens_per_step)",
        test="tests/unit/test_plan.py::test_the_budget_is_never_exceeded",
    ),
    Mutation(
        promise="a switch happens at the first step below the threshold",
        file="planning/schedule.py",
        old="while step > first and lr_at(schedule, step - 1) < threshold:\n        step -= 1",
        new="step += 1",
        test="tests/properties/test_schedule.py::test_the_first_step_below_is_the_one_a_scan_finds",
    ),
    Mutation(
        promise="an assumed final rate is said aloud",
        file="planning/resolve.py",
        old='        notes.warnings.append(\n            f"ASSUMPTION',
        new='        _ = (\n            f"ASSUMPTION',
        test="tests/unit/test_plan.py::test_an_unknown_final_rate_is_assumed_aloud",
    ),
    Mutation(
        promise="a plan that was edited by hand is refused",
        file="planning/plan.py",
        old="if plan.fingerprint != Plan.science_fingerprint(plan.science):",
        new="if False:",
        test="tests/unit/test_plan.py::test_a_plan_is_read_back_or_refused",
    ),
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.promise)
def test_the_broken_line_is_noticed(mutation: Mutation, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "src" / "rewarm", tmp_path / "rewarm")
    target = tmp_path / "rewarm" / mutation.file
    source = target.read_text(encoding="utf-8")
    assert source.count(mutation.old) == 1, f"{mutation.file}: the line to break is not there once"
    target.write_text(source.replace(mutation.old, mutation.new), encoding="utf-8")

    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "-m",
            "",
            mutation.test,
        ],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    # 1 means that tests ran and failed; 4 or 5 that the test is not there, 2 that it broke loading.
    assert finished.returncode == 1, finished.stdout[-2000:] + finished.stderr[-2000:]
