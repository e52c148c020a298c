"""Evaluations that a finished run's log has lost: those at its ends are measured again."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

from rewarm.errors import RunFolderError
from rewarm.evaluation.suite import EvaluationSuite
from rewarm.planning.plan import Placement, Plan
from rewarm.records.run_folder import RunFolder
from rewarm.stages.bench import Bench
from rewarm.stages.measuring import suites_of
from rewarm.stages.objective import MoreTasks
from rewarm.training.checkpoint import find_newest_verified, newest_first, step_of
from rewarm.training.lock import hold_lock

__all__ = ["check_none_is_lost_for_good", "measure_lost_ends"]


def check_none_is_lost_for_good(plan: Plan, run: RunFolder) -> None:
    """Raise RunFolderError where a run that has come to its end lacks evaluations on its way.

    The weights of then are gone, and its curves would leave them out. Only asked of a run whose
    end is not on record: one that is trained again takes them again.
    """
    num_steps = plan.science.num_steps
    if run.is_measured_after(num_steps):
        return
    # By its name first: whoever goes on reads and verifies the newest one anyway.
    if not any(step_of(path) == num_steps for path in newest_first(run.checkpoints)):
        return
    newest = find_newest_verified(run.checkpoints).path
    if newest is None or step_of(newest) != num_steps:
        return
    lost = _lost_on_its_way(plan, run)
    if lost:
        raise RunFolderError.one(
            str(run.evals_log),
            f"lines of it are damaged or gone: what was measured after {_listed(lost)} steps "
            f"and after the last one, {num_steps}, is not on record",
            f"restore it from a copy; or move {run.path} away, and the same command trains this "
            "run anew",
        )


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
    lost = _lost_on_its_way(plan, run)
    if lost:
        say(f"warning: what was measured after {_listed(lost)} steps is lost: its curves lack it")
    with hold_lock(run.lock, say):
        bench.record_base()
        bench.record_newest()


def _lost_on_its_way(plan: Plan, run: RunFolder) -> list[int]:
    """Return the steps between both ends of which what the plan measures there is not on record."""
    suites = suites_of(plan)
    have = {(record.step, record.domain, record.metric) for record in run.evals()}
    return [
        step
        for step in plan.conduct.evaluation_steps
        if 0 < step < plan.science.num_steps
        and any(
            (step, batched.measure.domain, batched.measure.metric) not in have
            for batched in suites.at(step).measures
        )
    ]


def _listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps))
