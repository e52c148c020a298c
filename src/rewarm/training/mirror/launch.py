"""What a launch sees of its run's mirror: the way back at its beginning, the copies, the wait."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from rewarm.distributed.ranks import Ranks
from rewarm.errors import CheckpointError
from rewarm.planning.plan import Plan
from rewarm.records.run_folder import RunFolder
from rewarm.training.checkpoint import CheckpointStore, Search, newest_first, step_of
from rewarm.training.course import Course
from rewarm.training.mirror.contents import Mirror
from rewarm.training.mirror.remote import RemoteFolder
from rewarm.training.mirror.restore import restore_newer
from rewarm.training.mirror.uploader import Uploader
from rewarm.training.sinks import Journal

__all__ = ["LaunchMirror"]


class LaunchMirror:
    """A run's mirror for the length of a launch; does nothing where the recipe names none.

    The main rank alone talks to it. When the block is left before `finish`, for an error, what is
    under way is left too: the same command uploads it.
    """

    def __init__(
        self, plan: Plan, run: RunFolder, store: CheckpointStore, journal: Journal, ranks: Ranks
    ) -> None:
        self._recipe = plan.conduct.checkpoints
        self._plan = plan
        self._run = run
        self._store = store
        self._journal = journal
        self._ranks = ranks
        self._uploader: Uploader | None = None
        if self._recipe.mirror is not None and ranks.is_main:
            self._uploader = Uploader(
                Mirror(RemoteFolder(self._recipe.mirror), plan),
                run,
                store,
                journal,
                keep=self._recipe.keep,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._uploader is not None:
            self._uploader.end()

    def find_newest(self, course: Course) -> Search:
        """Return the run's newest verified checkpoint, restored where the mirror's is newer.

        Collective. The run folder's own is uploaded where the mirror lacks it. Raises what
        `Course.find_newest` and `restore_newer` do.
        """
        url = self._recipe.mirror
        if url is None:
            return course.find_newest()
        found, damage = Search(None, []), None
        try:
            found = course.find_newest()
        except CheckpointError as error:
            damage = error
        newer_than = None if found.path is None else step_of(found.path)

        def restore() -> bool:
            mirror = Mirror(RemoteFolder(url), self._plan)
            return restore_newer(
                mirror, self._run, self._journal, recipe=self._recipe, newer_than=newer_than
            )

        if self._ranks.on_main_at_length(restore):
            return course.find_newest()
        if damage is not None:
            raise damage
        if found.path is not None:
            self.saved(found.path)
        return found

    def saved(self, path: Path) -> None:
        """Have a checkpoint that was just verified uploaded; returns at once."""
        if self._uploader is not None:
            self._uploader.submit(path)

    def finish(self) -> None:
        """Wait, as long as the recipe allows, until the newest is on the mirror; collective."""
        if self._recipe.mirror is None:
            return

        def wait() -> None:
            if self._uploader is not None:
                self._uploader.finish(self._recipe.mirror_wait_s)

        self._ranks.on_main_at_length(wait)
        # One more than is kept may have stayed for the upload's sake.
        num_here = self._ranks.on_main(lambda: len(newest_first(self._run.checkpoints)))
        if num_here > self._recipe.keep:
            self._store.prune()
