"""Holds the runs of a stream over corpora to the plans that they began, or were done, under.

A result speaks for the experiment as it is written: figures of a run that was trained, or measured,
otherwise are none of it, whether that run is done or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rewarm.errors import PlanError, Problem, RunFolderError
from rewarm.planning.plan import Plan, load_plan
from rewarm.records.run_folder import RunFolder
from rewarm.stages.held_plans import FIX, changed_held_out
from rewarm.stages.job import keep_plan
from rewarm.stages.stream_corpora_plans import PlannedCourse

__all__ = ["keep_plans"]


def keep_plans(planned: Sequence[PlannedCourse]) -> None:
    """Write the plans of all runs; raises RunFolderError with every way in which runs that have
    begun, done ones too, were trained or measured otherwise. Then no plan of theirs is written.
    """
    problems: dict[str, Problem] = {}
    for run in planned:
        try:
            _check_measured_alike(run.plan, run.job.run)
            keep_plan(run.plan, run.job, fix=FIX)
            run.job.run.make_log_folder()
        except RunFolderError as error:
            for problem in error.problems:
                # One change shows in many runs: it is told once.
                problems.setdefault(problem.what, problem)
    if problems:
        raise RunFolderError(list(problems.values()))


def _check_measured_alike(plan: Plan, run: RunFolder) -> None:
    if not run.has_begun():
        return
    try:
        old = load_plan(run.plan)
    except PlanError as error:
        if run.checkpoints.exists():
            return  # what the run was trained under stands in them too
        why = error.problems[0].what
        what = f"what its figures are of is not known: {run.plan.name} cannot be read ({why})"
        raise RunFolderError.one(str(run.path), what, "delete this folder: it is made anew") from (
            error
        )
    changed = "; ".join(_changes(old, plan))
    if changed:
        what = f"this run has begun, and was to be measured otherwise: {changed}"
        raise RunFolderError.one(str(run.path), what, FIX)


def _changes(old: Plan, new: Plan) -> Iterator[str]:
    before, now = (plan.conduct.evaluation.model_dump() for plan in (old, new))
    for key in now:
        if before[key] != now[key]:
            yield f"evaluation.{key} was {before[key]!r}, and is {now[key]!r}"
    yield from changed_held_out(old, new)
