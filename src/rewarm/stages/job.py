"""What every verb begins with: the recipe, and where its base, prepared text and run lie."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rewarm.artifacts import write_json
from rewarm.errors import PlanError, Problems, RecipeError, RunFolderError
from rewarm.planning.plan import Plan, load_plan, save_plan, science_diff
from rewarm.recipe.load import load_recipe
from rewarm.recipe.schema import Recipe
from rewarm.records.facts import CorpusFacts
from rewarm.records.run_folder import RunFolder
from rewarm.training.checkpoint import find_newest_verified
from rewarm.training.lock import hold_lock
from rewarm.training.saved import check_plan, read_saved_state

__all__ = [
    "Job",
    "command_line",
    "job_of",
    "keep_plan",
    "open_job",
    "open_run",
    "trouble_with_folder",
]


@dataclass(frozen=True, slots=True)
class Job:
    """A recipe with its folders resolved against the place where it lies.

    `measured_before` are the prepared sources, by name, of the run that it goes on with: what they
    hold out is measured still.
    """

    recipe: Recipe
    folder: Path
    run: RunFolder
    prepared_root: Path
    measured_before: Mapping[str, CorpusFacts] = field(default_factory=dict)


def open_job(path: Path, overrides: Iterable[str] = ()) -> Job:
    """Return the job that a recipe file describes; raises RecipeError."""
    return job_of(load_recipe(path, overrides), path.resolve().parent)


def job_of(recipe: Recipe, folder: Path, run: Path | None = None) -> Job:
    """Return the job of a recipe whose paths are relative to `folder`; `run` in place of its own
    run folder. Raises RecipeError where a folder cannot be there.
    """
    run = run or folder / (recipe.run_folder or f"runs/{recipe.name}")
    prepared = folder / recipe.prepared_folder
    problems = Problems()
    for key, wanted in (("run_folder", run), ("prepared_folder", prepared)):
        trouble = trouble_with_folder(wanted)
        if trouble is not None:
            problems.add(key, trouble, "name a folder, or a new one")
    problems.raise_as(RecipeError)
    return Job(recipe, folder, RunFolder(run), prepared)


def trouble_with_folder(wanted: Path) -> str | None:
    """Return why a folder cannot be there; None where it is, or can be made as far as names go."""
    for place in (wanted, *wanted.parents):
        try:
            if os.path.lexists(place) and not place.is_dir():
                return f"{place} is not a folder"
            os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return f"{str(place)[:100]} cannot be used ({error.strerror})"
    return None


def command_line(
    verb: str, path: Path, overrides: Iterable[str] = (), sinks: Iterable[str] = ()
) -> str:
    """Return the command that a person can paste into a shell: it resumes what these began."""
    given = [("-o", override) for override in overrides] + [("--sink", sink) for sink in sinks]
    return shlex.join(["rewarm", verb, str(path), *(part for pair in given for part in pair)])


def open_run(path: Path, overrides: Iterable[str] = ()) -> tuple[Plan, RunFolder]:
    """Return plan and folder of a run, given its folder or the recipe that it was made from.

    Raises RecipeError or RunFolderError where there is no plan yet.
    """
    if path.is_dir():
        run = RunFolder(path.resolve())
        if list(overrides):
            raise RecipeError.one(
                "-o", "a run folder's plan is frozen", "give the recipe to plan with overrides"
            )
    else:
        run = open_job(path, overrides).run
    if not run.plan.exists() and (run.path / "config.json").exists():
        raise RunFolderError.one(
            str(run.path),
            "this is a model's folder, not a run's",
            f"give a recipe or a run; `rewarm evaluate RECIPE --model {path}` measures a model",
        )
    if not run.plan.exists():
        raise RunFolderError.one(
            str(run.path),
            "there is no plan.json, so this is not a run folder yet",
            "run `rewarm plan` (or `rewarm run`) with the recipe first",
        )
    return load_plan(run.plan), run


_FIX = "give the changed recipe another name (or run_folder), or undo the change"


def keep_plan(plan: Plan, job: Job, *, fix: str = _FIX) -> None:
    """Write plan and recipe into the run folder, while no launch is under way in it.

    A run that has begun keeps its science: another plan is refused with what differs
    (RunFolderError; `fix` is what to do then), and nothing is overwritten. A launch under way keeps
    its own files: the same science is then not written, another one is refused.
    """
    run = job.run
    _check_same_science(plan, run, fix)
    try:
        with hold_lock(run.lock, lambda message: None):
            # Another command may have planned, and begun, since.
            _check_same_science(plan, run, fix)
            save_plan(plan, run.plan)
            write_json(run.recipe, job.recipe.model_dump(mode="json"))
    except RunFolderError:
        if not (run.plan.exists() and load_plan(run.plan).fingerprint == plan.fingerprint):
            raise


def _check_same_science(plan: Plan, run: RunFolder, fix: str) -> None:
    if not (run.plan.exists() and run.has_begun()):
        return
    if not plan.measured:
        raise RunFolderError.one(
            str(run.path),
            "this run has begun, and its text is no longer prepared as it was",
            "undo the change to the text or the recipe, or run `rewarm prepare` with it",
        )
    try:
        old = load_plan(run.plan)
    except PlanError:
        # It is damaged. What the run began under stands in its checkpoints too.
        found = find_newest_verified(run.checkpoints)
        if found.path is not None:
            check_plan(read_saved_state(found.path), plan.science, where=run.path)
        os.replace(run.plan, run.plan.with_name("plan.damaged.json"))
        return
    if old.fingerprint != plan.fingerprint:
        differences = "; ".join(science_diff(old.science, plan.science))
        raise RunFolderError.one(
            str(run.path),
            f"this run has begun under another plan: {differences}",
            fix,
        )
