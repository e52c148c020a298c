"""Checkpoints that exist only when they are whole, and are trusted only when every bit is.

A save goes: fresh temporary folder → files written, flushed, hashed → MANIFEST.json with every
hash → folder flushed → *read back from the disk and compared* → renamed to `step-00000123` →
parent flushed → older ones pruned. A kill at any instant leaves either the old checkpoints and a
temporary folder, or the new checkpoint. The reading back costs one pass over the files; it is what
allows the pruning to delete the others on the new one's strength.

Formats such as safetensors and DCP load nearly every flipped bit without a word, so the manifest is
ours and hashes are verified before anything is parsed. What the files hold is not this file's
business: a writer is handed in.

Of many ranks each writes its part, hashes and verifies its share of the files; the main rank alone
makes, renames and deletes folders. What fails on one fails on all, so all go the same way.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from rewarm.artifacts import (
    MANIFEST_NAME,
    file_entries,
    fsync_folder,
    manifest_problems,
    open_to_others,
    parse_json,
    write_json,
)
from rewarm.distributed.ranks import ALONE, Ranks
from rewarm.errors import (
    CheckpointError,
    EnvironmentFault,
    FaultElsewhere,
    LostRankFault,
    Problem,
)
from rewarm.records.facts import Record

__all__ = [
    "CheckpointStore",
    "FileEntry",
    "Search",
    "WriteFiles",
    "checkpoint_problems",
    "find_newest_verified",
    "newest_first",
    "step_of",
]

_STEP = re.compile(r"step-(\d{8,})")
_TEMPORARY = ".tmp-"

WriteFiles = Callable[[Path], None]
"""Writes the files of a checkpoint into the (empty) folder that it is given."""


_Seal = Callable[[Path, int, Ranks], None]


class FileEntry(Record):
    """What a manifest says of a file."""

    bytes: int
    sha256: str


class _Manifest(Record):
    format: Literal[1]
    step: int
    files: dict[str, FileEntry]


class Search(NamedTuple):
    """The newest checkpoint that can be trusted (None: there is none yet), and newer ones that not.

    `passed_over` holds (folder, what is wrong with it), the newest first.
    """

    path: Path | None
    passed_over: list[tuple[Path, list[str]]]


def step_of(path: Path) -> int:
    """Return the step that a checkpoint's folder is named after."""
    match = _STEP.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path} is not named like a checkpoint")
    return int(match[1])


def checkpoint_problems(path: Path, step: int, ranks: Ranks = ALONE) -> list[str]:
    """Return why the checkpoint of a step cannot be trusted; empty where every bit is as written.

    Every bit of the folder counts: the manifest's own are held by its strict form, by the hashes,
    and by the step, which the folder's name knows too. Of many ranks each looks at its share.
    """
    problems, manifest = ranks.on_main(lambda: _problems_of_names(path, step))
    if manifest is None:
        return problems
    found = ranks.spread(
        sorted(manifest.files),
        lambda name: manifest_problems(path, {"files": {name: manifest.files[name].model_dump()}}),
    )
    return problems + [problem for problems_of_file in found for problem in problems_of_file]


def _problems_of_names(path: Path, step: int) -> tuple[list[str], _Manifest | None]:
    """Return what is wrong but for the files' contents, and the manifest where it can be read."""
    try:
        manifest = _Manifest.model_validate(
            parse_json((path / MANIFEST_NAME).read_bytes()), strict=True
        )
        present = {entry.name for entry in path.iterdir()} - {MANIFEST_NAME}
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return [f"{MANIFEST_NAME} is damaged ({where}: {first['msg']})"], None
    except ValueError as error:
        return [f"{MANIFEST_NAME} is damaged ({error})"], None
    except FileNotFoundError:
        return [f"{MANIFEST_NAME} is missing"], None
    except OSError as error:
        return [f"it cannot be read ({error.strerror or error})"], None
    problems = [f"{name} is foreign" for name in sorted(present - manifest.files.keys())]
    if manifest.step != step:
        problems.append(f"{MANIFEST_NAME} is of step {manifest.step}")
    return problems, manifest


def find_newest_verified(
    folder: Path, ranks: Ranks = ALONE, *, at_most: int | None = None
) -> Search:
    """Return the newest checkpoint of a folder whose manifest and hashes hold.

    With `at_most`, of those of that step and before.

    Damaged ones are passed over and named; nothing is deleted. Raises CheckpointError where there
    are checkpoints and none can be trusted: starting over silently would throw the run away.
    """
    passed_over: list[tuple[Path, list[str]]] = []
    for path in ranks.on_main(lambda: newest_first(folder)):
        if at_most is not None and step_of(path) > at_most:
            continue
        problems = checkpoint_problems(path, step_of(path), ranks)
        if not problems:
            return Search(path, passed_over)
        # A launch under way may have pruned it: newer ones are there.
        if not ranks.on_main(path.exists):
            return find_newest_verified(folder, ranks, at_most=at_most)
        passed_over.append((path, problems))
    if passed_over:
        raise CheckpointError(
            Problem(
                str(path),
                "; ".join(problems),
                "restore it from a copy; to start over, move the checkpoints folder away",
            )
            for path, problems in passed_over
        )
    return Search(None, [])


class CheckpointStore:
    """The folder of a run's checkpoints. Whoever saves holds the run's lock.

    Methods are collective: every one of `ranks` calls them, in the same order.
    """

    def __init__(
        self, folder: Path, *, keep: int, keep_every: int | None = None, ranks: Ranks = ALONE
    ) -> None:
        """`keep` ≥ 1 is how many verified checkpoints stay; `ranks` those that share a save.

        Those of steps that `keep_every` divides stay for good, whatever their number.
        """
        self._keep_every = keep_every
        self._folder = folder
        self._keep = keep
        self._ranks = ranks
        self._verified: set[Path] = set()
        self._held: set[Path] = set()

    def find_newest_verified(self, *, at_most: int | None = None) -> Search:
        """Return what the function of that name finds; pruning then trusts it without a look."""
        found = find_newest_verified(self._folder, self._ranks, at_most=at_most)
        if found.path is not None:
            self._verified.add(found.path)
        return found

    def paths(self) -> list[Path]:
        """Return the folders that are named like checkpoints, the newest first."""
        return self._ranks.on_main(lambda: newest_first(self._folder))

    def discard(self, paths: Iterable[Path]) -> None:
        """Delete checkpoints that are of no use any more."""

        def delete() -> None:
            for path in paths:
                self._delete(path)

        self._ranks.on_main(delete)

    def hold(self, path: Path) -> None:
        """Keep a checkpoint from being pruned while it is read, unless the disk is full."""
        self._held.add(path)

    def release(self, path: Path) -> None:
        """Let a checkpoint be pruned again."""
        self._held.discard(path)

    def prune(self) -> None:
        """Delete what is older than the verified checkpoints that stay."""
        self._ranks.on_main(lambda: self._prune(keep=self._keep, spared=self._held))

    def remove_leftovers(self) -> list[Path]:
        """Remove and return the temporary folders of processes that died while they saved."""
        return self._ranks.on_main(self._remove_leftovers)

    def _remove_leftovers(self) -> list[Path]:
        leftovers = sorted(self._folder.glob(f"{_TEMPORARY}*"))
        for path in leftovers:
            shutil.rmtree(path, ignore_errors=True)
        return leftovers

    def save(self, step: int, write: WriteFiles) -> Path:
        """Write the checkpoint of a step and return its folder.

        Where the disk refuses, older checkpoints beyond the newest verified one make room and the
        save is tried once more; then EnvironmentFault. The newest verified one always stays.
        """
        return self._save_making_room(step, write, _seal)

    def restore(self, step: int, write: WriteFiles) -> Path:
        """Put a checkpoint that comes with its manifest in place, on the road of a save.

        `write` leaves both in the folder, which is then held against the manifest on the disk.
        """
        return self._save_making_room(step, write, _check_seal)

    def _save_making_room(self, step: int, write: WriteFiles, seal: _Seal) -> Path:
        try:
            path = self._save(step, write, seal)
        except (OSError, EnvironmentFault) as error:
            if isinstance(error, LostRankFault):
                raise
            self._ranks.on_main(lambda: self._prune(keep=1))
            path = self._save_or_fault(step, write, seal)
        # Room that cannot be made now is no reason to stop: the next save tries again.
        self.prune()
        return path

    def _save_or_fault(self, step: int, write: WriteFiles, seal: _Seal) -> Path:
        try:
            return self._save(step, write, seal)
        except (FaultElsewhere, LostRankFault):
            raise
        except (OSError, EnvironmentFault) as error:
            reason = error.what if isinstance(error, EnvironmentFault) else str(error)
            raise EnvironmentFault(
                f"the checkpoint of step {step} cannot be written to {self._folder} ({reason}); "
                "earlier ones stand untouched",
                "free some space or make the folder writable; the same command then goes on from "
                "the newest verified checkpoint",
            ) from error

    def _save(self, step: int, write: WriteFiles, seal: _Seal) -> Path:
        ranks = self._ranks
        temporary = ranks.on_main(self._make_temporary)
        try:
            ranks.together(lambda: write(temporary))
            seal(temporary, step, ranks)
            final: Path = ranks.on_main(lambda: self._put_in_place(temporary, step))
        except BaseException:
            if ranks.is_main:
                shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._verified.add(final)
        return final

    def _make_temporary(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self._folder))
        open_to_others(temporary)
        return temporary

    def _put_in_place(self, temporary: Path, step: int) -> Path:
        final = self._folder / f"step-{step:08d}"
        _set_aside(final)
        os.rename(temporary, final)
        fsync_folder(self._folder)
        return final

    def _prune(self, *, keep: int, spared: Collection[Path] = ()) -> None:
        """Delete what is older than the `keep` newest verified checkpoints and not spared.

        One that this process neither wrote nor read is verified first, so damaged ones never count.
        """
        with contextlib.suppress(OSError):
            self._prune_or_fail(keep, spared)

    def _prune_or_fail(self, keep: int, spared: Collection[Path]) -> None:
        num_verified = 0
        for path in newest_first(self._folder):
            if num_verified >= keep:
                if path not in spared and not self._stays(step_of(path)):
                    self._delete(path)
            elif path in self._verified or not checkpoint_problems(path, step_of(path)):
                self._verified.add(path)
                num_verified += 1

    def _stays(self, step: int) -> bool:
        return self._keep_every is not None and step % self._keep_every == 0

    def _delete(self, path: Path) -> None:
        """Delete a checkpoint; a kill in between leaves a temporary folder, not half of one."""
        doomed = self._folder / f"{_TEMPORARY}{path.name}"
        shutil.rmtree(doomed, ignore_errors=True)
        os.rename(path, doomed)
        self._verified.discard(path)
        shutil.rmtree(doomed, ignore_errors=True)


def newest_first(folder: Path) -> list[Path]:
    """Return what is named like a checkpoint in a folder, the newest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _STEP.fullmatch(path.name)]
    return sorted(found, key=step_of, reverse=True)


def _seal(folder: Path, step: int, ranks: Ranks) -> None:
    """Flush the files of a folder, write their manifest, and hold both against the disk."""

    def flush(name: str) -> dict[str, Any]:
        _fsync_file(folder / name)
        return file_entries(folder, [name])

    def write_entries() -> None:
        files = {name: entry for part in entries for name, entry in part.items()}
        write_json(folder / MANIFEST_NAME, {"format": 1, "step": step, "files": files})
        fsync_folder(folder)

    names = _names_in(folder, ranks)
    entries = ranks.spread(names, flush)
    ranks.on_main(write_entries)
    _hold_against_disk(folder, step, [*names, MANIFEST_NAME], ranks)


def _check_seal(folder: Path, step: int, ranks: Ranks) -> None:
    """Flush the files of a folder that has its manifest, and hold both against the disk."""
    names = _names_in(folder, ranks)
    ranks.spread(names, lambda name: _fsync_file(folder / name))
    ranks.on_main(lambda: fsync_folder(folder))
    _hold_against_disk(folder, step, names, ranks)


def _names_in(folder: Path, ranks: Ranks) -> list[str]:
    return ranks.on_main(lambda: sorted(path.name for path in folder.iterdir()))


def _hold_against_disk(folder: Path, step: int, names: list[str], ranks: Ranks) -> None:
    ranks.spread(names, lambda name: _drop_from_page_cache(folder / name))
    problems = checkpoint_problems(folder, step, ranks)
    if problems:
        raise OSError(f"the disk gives back other bytes than were written: {'; '.join(problems)}")


def _fsync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _drop_from_page_cache(path: Path) -> None:
    """Make the next read of a flushed file come from the disk (a hint; only Linux takes it)."""
    if sys.platform != "linux":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _set_aside(path: Path) -> None:
    """Rename what stands in a checkpoint's way (a damaged one of that step); delete nothing."""
    number = 0
    while path.exists():
        number += 1
        aside = path.with_name(f"{path.name}.set-aside-{number}")
        if not aside.exists():
            os.rename(path, aside)
