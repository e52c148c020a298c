"""Brings the newest whole checkpoint of a mirror into the run folder, with the records it needs.

On an empty machine the recipe, the text and the base are the user's; what a run has become is on
its mirror. Files are downloaded into a temporary folder, hashed on their way, held against the
manifest on the disk, and renamed into place as a save is. The records come before that last
rename: a checkpoint is never there without them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from pathlib import Path
from typing import TypeVar

from rewarm.artifacts import write_atomically
from rewarm.distributed.ranks import beside
from rewarm.errors import CheckpointError, EnvironmentFault, Problem
from rewarm.planning.amendments import Amendments, read_amendments, write_amendments
from rewarm.recipe.records import CheckpointRecipe
from rewarm.records.run_folder import RunFolder
from rewarm.training.checkpoint import CheckpointStore
from rewarm.training.mirror.contents import Look, Mirror, Tick
from rewarm.training.mirror.layout import DamagedError, MirroredManifest
from rewarm.training.mirror.remote import RemoteError
from rewarm.training.sinks import Journal
from rewarm.units import format_bytes

__all__ = ["restore_newer"]

_T = TypeVar("_T")

ANSWER_WITHIN_S = 120.0
"""A mirror that gives no sign for so long is taken as one that cannot be reached."""


def restore_newer(
    mirror: Mirror,
    run: RunFolder,
    journal: Journal,
    *,
    recipe: CheckpointRecipe,
    newer_than: int | None,
) -> bool:
    """Restore the newest checkpoint of a mirror beyond a step; tell whether there was one.

    `newer_than` is the run folder's newest verified step, None where it has none. Damaged ones are
    passed over and named. Where the mirror fails, a run that has a checkpoint of its own goes on
    with that, with a warning. One that has none does not begin anew: EnvironmentFault. Raises
    CheckpointError where it has none either and none that is mirrored can be used, and
    RunFolderError where the mirror is another run's.
    """
    try:
        look = _answered(lambda tick: _look(mirror))
        return _Restoring(mirror, run, journal, recipe, newer_than).bring(look)
    except RemoteError as error:
        if newer_than is None:
            raise EnvironmentFault(
                f"the mirror {mirror} cannot be used ({error}), and {run.path} holds no checkpoint "
                "to go on from",
                "check network and credentials, then run the same command; to begin without the "
                "mirror, take checkpoints.mirror out of the recipe",
            ) from error
        what = f"the mirror {mirror} cannot be read ({error}); going on with what is here"
        journal.event("warning", newer_than, what)
        return False


def _look(mirror: Mirror) -> Look:
    mirror.claim()
    return mirror.look()


class _Restoring:
    """One attempt to bring a run folder up to its mirror."""

    def __init__(
        self,
        mirror: Mirror,
        run: RunFolder,
        journal: Journal,
        recipe: CheckpointRecipe,
        newer_than: int | None,
    ) -> None:
        self._mirror = mirror
        self._run = run
        self._journal = journal
        self._store = CheckpointStore(
            run.checkpoints, keep=recipe.keep, keep_every=recipe.keep_every_steps
        )
        self._newer_than = newer_than

    def bring(self, look: Look) -> bool:
        """Restore the newest that can be."""
        here = read_amendments(self._run.amendments, self._mirror.plan)
        amendments = _longest([here, *(manifest.chain for manifest in look.whole)])
        passed_over = {step: what for step, what in look.damaged.items() if self._is_newer(step)}
        for manifest in filter(lambda manifest: self._is_newer(manifest.step), look.whole):
            why = manifest.why_outdated(amendments)
            if why is not None:
                passed_over[manifest.step] = why
                continue
            try:
                self._restore(manifest, amendments)
            except DamagedError as error:
                passed_over[manifest.step] = str(error)
                self._set_aside(manifest)
                continue
            self._tell(passed_over)
            return True
        if passed_over and self._newer_than is None:
            raise CheckpointError(
                Problem(
                    f"{self._mirror}: {_name(step)}",
                    what,
                    "restore it from another copy; to start over, name another mirror",
                )
                for step, what in passed_over.items()
            )
        self._tell(passed_over)
        return False

    def _is_newer(self, step: int) -> bool:
        return self._newer_than is None or step > self._newer_than

    def _tell(self, passed_over: Mapping[int, str]) -> None:
        for step, what in passed_over.items():
            message = f"{_name(step)} on {self._mirror} is passed over: {what}"
            self._journal.event("passed_over", step, message)

    def _restore(self, manifest: MirroredManifest, amendments: Amendments) -> None:
        size = format_bytes(sum(entry.bytes for entry in manifest.files.values()))
        what = f"{_name(manifest.step)} ({size}) from {self._mirror}"
        self._journal.say(f"restoring {what}")

        def write(folder: Path) -> None:
            records = _answered(lambda tick: self._mirror.fetch(manifest, folder, tick))
            self._write_records(records, amendments)

        self._store.restore(manifest.step, write)
        self._journal.event("mirror", manifest.step, f"restored {what}")

    def _write_records(self, records: Mapping[str, bytes], amendments: Amendments) -> None:
        if amendments.chain:
            write_amendments(self._run.amendments, amendments)
        self._run.make_log_folder()
        for path in self._run.logs:
            content = records.get(path.relative_to(self._run.path).as_posix())
            if content is not None:
                write_atomically(path, _merged(path, content))
        placement = records.get(self._run.placement.name)
        if placement is not None:
            write_atomically(self._run.placement, placement)

    def _set_aside(self, manifest: MirroredManifest) -> None:
        """Make a damaged one count no more where that is allowed; it is passed over anyhow."""
        try:
            _answered(lambda tick: self._mirror.set_aside(manifest))
        except RemoteError:
            return


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _longest(chains: Sequence[Amendments]) -> Amendments:
    """Return the longest chain that the first one leads to; another's amendments do not count."""
    longest = chains[0]
    for chain in sorted(chains[1:], key=lambda chain: len(chain.chain)):
        if chain.extends(longest):
            longest = chain
    return longest


def _merged(path: Path, content: bytes) -> bytes:
    """Return a log with the lines of another copy of it added that it lacks.

    Readers keep the last record of a step: that is then the one which led to the checkpoint.
    """
    here = path.read_bytes() if path.exists() else b""
    lines = set(here.splitlines())
    lacking = [line for line in content.splitlines() if line not in lines]
    if here and not here.endswith(b"\n"):
        here += b"\n"  # a line torn by a kill
    return here + b"".join(line + b"\n" for line in lacking)


def _answered(work: Callable[[Tick], _T]) -> _T:
    """Do work that talks to the other side; RemoteError where it gives no sign for too long."""
    last_sign = time.monotonic()
    given_up = False

    def tick() -> None:
        nonlocal last_sign
        if given_up:
            raise RemoteError("nobody waits for it any more")
        last_sign = time.monotonic()

    future = beside(lambda: work(tick))
    try:
        while not wait([future], ANSWER_WITHIN_S / 10).done:
            if time.monotonic() - last_sign > ANSWER_WITHIN_S:
                raise RemoteError(f"it did not answer for {ANSWER_WITHIN_S:g} s")
    finally:
        given_up = True
    return future.result()
