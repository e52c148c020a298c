"""Evaluations that a finished run's log has lost: those at its ends are measured again."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from rich.console import Console

from rewarm.evaluation.curves import lost_on_its_way
from rewarm.evaluation.suite import EvaluationSuite
from rewarm.planning.plan import Placement, Plan
from rewarm.records.run_folder import RunFolder
from rewarm.stages.bench import Bench
from rewarm.stages.objective import MoreTasks
from rewarm.training.lock import hold_lock

__all__ = ["measure_lost_ends", "tell_lost_ends"]


def measure_lost_ends(
    plan: Plan,
    run: RunFolder,
    suite: EvaluationSuite,
    placement: Placement,
    harness: MoreTasks | None,
    console: Console,
    say: Callable[[str], None],
) -> None:
    """Measure a finished run's base and its end again where they are not on record."""
    num_steps = plan.science.num_steps
    if run.is_measured_after(num_steps) or not (suite.measures or harness):
        return
    bench = Bench(plan, run, suite, placement, console, harness)
    if bench.recorded(0) and bench.recorded(num_steps):
        return  # what the base alone was measured by is no longer asked for
    say(
        f"warning: {run.evals_log} has lost what was measured at the run's ends (lines of it are "
        "damaged or gone): it is measured again"
    )
    lost = ", ".join(map(str, lost_on_its_way(plan, run.evals())))
    if lost:
        say(f"warning: what was measured after {lost} steps is lost: its curves lack it")
    with hold_lock(run.lock, say):
        bench.record_base()
        bench.record_newest()


def tell_lost_ends(plan: Plan, run: RunFolder, say: Callable[[str], None]) -> None:
    """Say the same of a run whose launch has several ranks: one process measures it again."""
    if run.evals() and not run.is_measured_after(plan.science.num_steps):
        say(
            f"warning: {run.evals_log} has lost what was measured at the run's ends (lines of it "
            f"are damaged or gone): `rewarm evaluate {shlex.quote(str(run.path))}` measures it "
            "again"
        )
