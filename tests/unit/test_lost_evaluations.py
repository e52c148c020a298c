"""What a run's log of evaluations has lost, and what only looks as if."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from rich.console import Console

from rewarm.evaluation.curves import lost_on_its_way
from rewarm.planning.plan import save_plan
from rewarm.records.facts import EvalRecord, Metric
from rewarm.records.run_folder import RunFolder
from rewarm.stages.launches import Launch, seen_whole
from rewarm.stages.lost_evaluations import measure_lost_ends, tell_lost_ends
from tests.support.tiny_plans import make_placement, make_plan


def record(
    step: int,
    domain: str,
    metric: Metric = "bits_per_byte",
    role: Literal["new", "task"] = "new",
) -> EvalRecord:
    return EvalRecord(
        step=step,
        domain=domain,
        role=role,
        metric=metric,
        value=1.0,
        standard_error=None,
        item_values=(1.0,),
        item_weights=(1,),
        items_key="same",
        seconds=0.0,
    )


def test_what_the_base_alone_was_measured_by_is_not_told_as_lost(tmp_path: Path) -> None:
    """As where a task is taken out of the recipe between two launches."""
    plan, run = make_plan(num_steps=20), RunFolder(tmp_path)
    run.make_log_folder()
    run.append_evals([record(0, "new"), record(0, "gone"), record(20, "new")])
    assert not run.is_measured_after(20)
    wanted = SimpleNamespace(domain="new", metric="bits_per_byte", items_key="same")
    suite: Any = SimpleNamespace(measures=(SimpleNamespace(measure=wanted),))
    told: list[str] = []
    measure_lost_ends(plan, run, suite, make_placement(), None, Console(quiet=True), told.append)
    assert not told


@pytest.mark.parametrize(
    ("log", "lost"),
    [
        ([(0, "new"), (0, "old"), (10, "new"), (10, "old"), (20, "new"), (20, "old")], []),
        ([(0, "new"), (0, "old"), (10, "new"), (20, "new"), (20, "old")], [10]),
        ([(0, "new"), (20, "new")], [10]),
        ([(0, "new"), (10, "new")], []),  # as it is where the end alone is lost
        ([], []),
    ],
)
def test_what_is_lost_on_the_way_is_what_the_end_has(
    log: list[tuple[int, str]], lost: list[int]
) -> None:
    plan = make_plan(num_steps=20, evaluation_steps=(0, 10, 20))
    records = [record(step, domain) for step, domain in log]
    # These are measured at the ends alone.
    records += [record(20, "new", "matched_continuation"), record(20, "cloze", role="task")]
    assert lost_on_its_way(plan, records) == lost


def test_a_run_that_lost_evaluations_on_its_way_is_not_concluded_upon(tmp_path: Path) -> None:
    """However it was launched: what is asked is its folder."""
    plan, run = make_plan(num_steps=20, evaluation_steps=(0, 10, 20)), RunFolder(tmp_path)
    save_plan(plan, run.plan)
    run.make_log_folder()
    run.append_evals([record(0, "new"), record(20, "new")])
    launch = Launch("one", plan, run)
    for _ in range(2):
        assert seen_whole([launch], {"one": "done"}) == {"one": "failed"}
    told = run.output.read_text()
    assert f"{run.evals_log}: lines of it are damaged or gone: what was measured after 10" in told
    assert f"move {run.path} away, and the same command trains this run anew" in told
    assert told.count("not on record") == 1
    assert seen_whole([launch], {"one": "running"}) == {"one": "running"}
    run.append_evals([record(10, "new")])
    assert seen_whole([launch], {"one": "done"}) == {"one": "done"}


def test_ranks_tell_what_measures_lost_ends_again(tmp_path: Path) -> None:
    plan, run = make_plan(num_steps=20), RunFolder(tmp_path / "a run")
    told: list[str] = []
    tell_lost_ends(plan, run, told.append)
    run.make_log_folder()
    run.append_evals([record(0, "new")])
    run.exit_code.write_text("0\n")
    assert run.state_after(20) == "failed", "it ended, and is not done"
    assert not told
    tell_lost_ends(plan, run, told.append)
    assert f"`rewarm evaluate '{run.path}'` measures it again" in told[0]
    run.append_evals([record(20, "new")])
    tell_lost_ends(plan, run, told.append)
    assert len(told) == 1
    assert run.state_after(20) == "done"
