"""The folder of a run that goes on from another one's checkpoint, made so that a kill leaves none
that is taken for whole: it is a run once it has a checkpoint, and that is written last.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from rewarm.artifacts import MANIFEST_NAME, manifest_problems, parse_json, write_json
from rewarm.errors import CheckpointError, EnvironmentFault, RunFolderError
from rewarm.planning.plan import Plan, load_plan, save_plan
from rewarm.recipe.schema import Recipe
from rewarm.records.run_folder import RunFolder
from rewarm.training.checkpoint import CheckpointStore, newest_first, step_of
from rewarm.training.lock import hold_lock
from rewarm.training.saved import STATE_FILE, read_saved_state

__all__ = ["make_folder"]


def make_folder(
    trunk: Plan, run: RunFolder, start: Path, recipe: Recipe, plan: Plan, folder: RunFolder
) -> bool:
    """Make the new run's folder with the checkpoint that it begins with; False where it is there.

    Raises RunFolderError where another run is.
    """
    if folder.plan.exists():
        is_this = load_plan(folder.plan).fingerprint == plan.fingerprint
        if is_this and newest_first(folder.checkpoints):
            return False
        # Without a checkpoint it was cut off while it was made: it is made anew.
        if not is_this and folder.has_begun():
            raise RunFolderError.one(
                str(folder.path), "another run is there already", "give this one a --name"
            )
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        with hold_lock(folder.lock, lambda message: None):
            folder.make_log_folder()
            _copy_records(run, folder, step_of(start))
            write_json(folder.recipe, recipe.model_dump(mode="json"))
            save_plan(plan, folder.plan)
            CheckpointStore(folder.checkpoints, keep=plan.conduct.checkpoints.keep).save(
                step_of(start), _rewritten(start, plan)
            )
            folder.append_event(
                "launch", step_of(start), f"begins with {start.name} of {trunk.name} ({run.path})"
            )
    except OSError as error:
        raise EnvironmentFault(
            f"{folder.path} cannot be written ({error.strerror or error})",
            "make the folder of the runs writable, free some space, or give another --name",
        ) from error
    return True


def _copy_records(run: RunFolder, folder: RunFolder, step: int) -> None:
    """Copy what was measured until a step: the base's figures above all, which forgetting needs."""
    for log in (folder.steps_log, folder.evals_log, folder.events_log):
        log.unlink(missing_ok=True)  # of an attempt that was cut off
    for record in run.steps():
        if record.step < step:
            folder.append_step(record)
    folder.append_evals(record for record in run.evals() if record.step <= step)
    folder.append_average_evals(record for record in run.average_evals() if 0 < record.step <= step)
    folder.flush_records()


def _rewritten(start: Path, plan: Plan) -> Callable[[Path], None]:
    """Return what writes a checkpoint's files as the new plan's, the copies held to its hashes."""

    def write(folder: Path) -> None:
        manifest = parse_json((start / MANIFEST_NAME).read_bytes())
        for name in manifest["files"]:
            shutil.copyfile(start / name, folder / name)
        problems = manifest_problems(folder, manifest)
        if problems:
            raise CheckpointError.one(
                str(start), "; ".join(problems), "the run pruned or changed it; try again"
            )
        saved = read_saved_state(folder)
        changed = saved.model_copy(
            update={
                "plan": plan.fingerprint,
                "science": plan.science.model_dump(mode="json"),
                "amendments_head": "",
            }
        )
        write_json(folder / STATE_FILE, changed.model_dump(mode="json"))

    return write
