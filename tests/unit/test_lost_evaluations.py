"""What a run's log of evaluations has lost, and what only looks as if."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from rewarm.records.facts import EvalRecord
from rewarm.records.run_folder import RunFolder
from rewarm.stages import lost_evaluations
from rewarm.stages.lost_evaluations import check_none_is_lost_for_good, measure_lost_ends
from rewarm.training.checkpoint import Search
from tests.support.tiny_plans import make_placement, make_plan


@pytest.mark.parametrize(("step", "is_verified"), [(15, False), (20, True)])
def test_checkpoints_on_the_way_are_not_read_an_extra_time(
    step: int, is_verified: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on has its newest one verified where it is loaded: they may be large."""
    plan, run = make_plan(num_steps=20), RunFolder(tmp_path)
    (run.checkpoints / f"step-{step:08d}").mkdir(parents=True)
    asked: list[Path] = []

    def verified(folder: Path) -> Search:
        asked.append(folder)
        return Search(None, [])

    monkeypatch.setattr(lost_evaluations, "find_newest_verified", verified)
    check_none_is_lost_for_good(plan, run)
    assert asked == ([run.checkpoints] if is_verified else [])


def record(step: int, domain: str) -> EvalRecord:
    return EvalRecord(
        step=step,
        domain=domain,
        role="new",
        metric="bits_per_byte",
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
