"""Holds a run over labelled examples to the plan that it began under: another one begins anew."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from rewarm.artifacts import write_json
from rewarm.errors import EnvironmentFault, RunFolderError
from rewarm.records.reading import record_or_none
from rewarm.records.run_folder import RunFolder
from rewarm.stream.labelled_plan import StreamPlan, stream_plan_diff

__all__ = ["keep_stream_plan"]


def keep_stream_plan(
    plan: StreamPlan, run: RunFolder, *, on_record: bool, tell: Callable[[str], None]
) -> None:
    """Write the plan of a run that is not done, before it begins; one that is there stays.

    What was begun, or done (`on_record`), under another plan is told with what differs, and begun
    again: none of its steps or checkpoints is mixed with those of this one. Raises RunFolderError
    where it is not known what had begun.
    """
    old = record_or_none(run.plan, StreamPlan)
    if old is not None and old.is_whole() and old.fingerprint == plan.fingerprint:
        if on_record:
            tell("what is on record of it cannot be read: it is done again")
        return
    if old is None and run.has_begun():
        what = "a run has begun here, and its plan.json is gone, damaged or of another kind of run"
        raise RunFolderError.one(str(run.path), what, "move this folder away: it is made anew")
    differs = f" ({'; '.join(stream_plan_diff(old, plan))})" if old is not None else ""
    if on_record:
        tell(f"on record with another source, other weights or settings: it is done again{differs}")
    elif run.has_begun():
        tell(f"begun under another plan: it is begun again{differs}")
    _clear(run)
    write_json(run.plan, plan.model_dump(mode="json"))


def _clear(run: RunFolder) -> None:
    """Delete what a run has left; raises EnvironmentFault where the disk refuses."""
    try:
        if run.path.exists():
            shutil.rmtree(run.path)
    except OSError as error:
        raise EnvironmentFault(
            f"{run.path}, of a run under another plan, cannot be deleted "
            f"({error.strerror or error})",
            "delete it yourself; the same command then begins the run again",
        ) from error
