"""What lies on a mirror, and how it gets there and back.

    MIRROR.json                    whose mirror it is: the run's name, its plan
    mirrored-step-00000123/
        checkpoint/…               the checkpoint as it lies in the run folder, its manifest too
        run/…                      plan and records of the run folder as they were then
        MANIFEST.json              last: size and SHA-256 of every file above, and the amendments

A checkpoint is there if and only if its manifest is: an upload that was cut off has none. Every
byte is hashed on its way, up against the checkpoint's own manifest, down against the mirror's.
Hashes tell damage, not malice: whoever can write to a mirror can write to the runs that it
restores.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError, field_validator

from rewarm.artifacts import MANIFEST_NAME, canonical_json, parse_json
from rewarm.errors import RunFolderError
from rewarm.planning.amendments import Amendments, read_amendments
from rewarm.planning.plan import Plan, Science, science_diff
from rewarm.records.facts import Amendment, Record
from rewarm.records.run_folder import RunFolder
from rewarm.training.checkpoint import FileEntry, step_of
from rewarm.training.mirror.remote import CHUNK_BYTES, RemoteError, RemoteFolder
from rewarm.training.saved import read_saved_state

__all__ = [
    "AlteredError",
    "DamagedError",
    "Look",
    "Mirror",
    "MirroredManifest",
    "Tick",
]

MARK = "MIRROR.json"
SET_ASIDE = "MANIFEST.damaged.json"
_FOLDER = re.compile(r"mirrored-step-(\d{8,})")
_FILE = re.compile(r"(?:checkpoint|run|run/metrics)/(?!\.\.?$)[^/\\\0]+")
_CHECKPOINT = "checkpoint/"
_RUN = "run/"
_RETRY_AFTER_S = (0.2, 1.0)

Tick = Callable[[], None]
"""Is called with every part of a file that passes; raises where the work is to end."""


class AlteredError(Exception):
    """A local checkpoint is not what its manifest says: it is not uploaded."""


class DamagedError(Exception):
    """A mirrored checkpoint is not what its manifest says: it is not restored."""


class MirroredManifest(Record):
    """`MANIFEST.json` of a mirrored checkpoint."""

    format: Literal[1] = 1
    step: int
    plan: str
    amendments: tuple[Amendment, ...]
    amendments_head: str
    files: dict[str, FileEntry]

    @field_validator("files")
    @classmethod
    def _within_the_folder(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            if _FILE.fullmatch(name) is None:
                raise ValueError(f"{name[:100]!r} cannot be the name of a mirrored file")
        if _CHECKPOINT + MANIFEST_NAME not in files:
            raise ValueError("no checkpoint's manifest is listed")
        return files

    @property
    def chain(self) -> Amendments:
        """The amendments of the run when the checkpoint was uploaded."""
        return Amendments(self.plan, self.amendments)

    def checkpoint_files(self) -> Mapping[str, FileEntry]:
        """Return what the manifest says of the checkpoint's own files."""
        return {name: e for name, e in self.files.items() if name.startswith(_CHECKPOINT)}

    def why_outdated(self, amendments: Amendments) -> str | None:
        """Return why the checkpoint is not of the run as it is amended now, or None."""
        return amendments.why_outdated(self.amendments_head, self.step)


class Look(NamedTuple):
    """What a mirror holds, by step, the newest first; `damaged` are manifests, with what is wrong.

    What an upload left that was cut off is in `partial`.
    """

    whole: list[MirroredManifest]
    damaged: dict[int, str]
    partial: list[int]


class _Mark(Record):
    """`MIRROR.json`."""

    format: Literal[1] = 1
    name: str
    plan: str
    science: dict[str, Any]


class Mirror:
    """A run's folder on the other side; raises RemoteError where that cannot be had."""

    def __init__(self, remote: RemoteFolder, plan: Plan) -> None:
        self.remote = remote
        self._plan = plan
        self._sent: dict[str, FileEntry] = {}
        self._sending = ""

    def __str__(self) -> str:
        return str(self.remote)

    @property
    def plan(self) -> str:
        """The fingerprint of the run's plan."""
        return self._plan.fingerprint

    def claim(self) -> None:
        """See that the mirror is this run's, and make it so where it holds no run's checkpoint.

        Raises RunFolderError where it is another run's.
        """
        raw = self.remote.read(MARK)
        mark = None if raw is None else self._read_mark(raw)
        if mark is not None and mark.plan == self._plan.fingerprint:
            return
        if mark is not None and any(_FOLDER.fullmatch(name) for name in self.remote.names()):
            raise RunFolderError.one(
                str(self),
                f"this mirror is of another run, {mark.name!r}: {_differences(mark, self._plan)}",
                "give the recipe a mirror of its own, or undo the change",
            )
        own = _Mark(
            name=self._plan.name,
            plan=self._plan.fingerprint,
            science=self._plan.science.model_dump(mode="json"),
        )
        self.remote.write(MARK, [_json(own)])

    def _read_mark(self, raw: bytes) -> _Mark:
        try:
            return _Mark.model_validate(parse_json(raw))
        except ValueError as error:
            raise RunFolderError.one(
                f"{self}/{MARK}",
                f"it is not what rewarm writes there ({_first(error)})",
                "if it was damaged, delete it: it is written again; otherwise name another mirror",
            ) from error

    def look(self) -> Look:
        """Return what is there."""
        look = Look([], {}, [])
        steps = [int(m[1]) for m in map(_FOLDER.fullmatch, self.remote.names()) if m is not None]
        for step in sorted(steps, reverse=True):
            try:
                manifest = self._manifest(step)
            except DamagedError as error:
                look.damaged[step] = str(error)
                continue
            if manifest is None:
                look.partial.append(step)
            else:
                look.whole.append(manifest)
        return look

    def _manifest(self, step: int) -> MirroredManifest | None:
        raw = self.remote.read(f"{_folder(step)}/{MANIFEST_NAME}")
        if raw is None:
            return None
        try:
            manifest = MirroredManifest.model_validate(parse_json(raw))
        except ValueError as error:
            raise DamagedError(f"{MANIFEST_NAME} is damaged ({_first(error)})") from error
        if manifest.step != step:
            raise DamagedError(f"{MANIFEST_NAME} is of step {manifest.step}")
        if manifest.plan != self._plan.fingerprint or not manifest.chain.is_linked():
            raise DamagedError(f"{MANIFEST_NAME} is of another run")
        return manifest

    def upload(self, checkpoint: Path, run: RunFolder, tick: Tick) -> bool:
        """Copy a verified checkpoint with the run's records; tell whether it was not there yet.

        What passes is held against the checkpoint's manifest: AlteredError where it differs,
        FileNotFoundError where it was deleted meanwhile. What was sent before a failure is not sent
        again by this object.
        """
        self.claim()
        step = step_of(checkpoint)
        sealed = (checkpoint / MANIFEST_NAME).read_bytes()
        entries = _entries(sealed)
        folder = _folder(step)
        try:
            there = self._manifest(step)
        except DamagedError:
            there = None
        if there is not None and there.checkpoint_files() == entries:
            return False
        self.remote.delete(f"{folder}/{MANIFEST_NAME}")
        self._remember(step, sealed)
        saved = read_saved_state(checkpoint)
        amendments = read_amendments(run.amendments, self._plan.fingerprint)
        try:
            for name, entry in entries.items():
                if self._sent.get(name) != entry:
                    path = checkpoint / name.removeprefix(_CHECKPOINT)
                    self.remote.write(f"{folder}/{name}", _held_against(path, entry, tick))
                    self._sent[name] = entry
        except AlteredError as error:
            if (checkpoint / MANIFEST_NAME).read_bytes() != sealed:
                # The run went back, and has come to this step again.
                raise FileNotFoundError(checkpoint) from error
            raise
        for path in run.facts:
            if path.exists():
                name = _RUN + path.relative_to(run.path).as_posix()
                content = _whole_lines(path)
                tick()
                self.remote.write(f"{folder}/{name}", [content])
                self._sent[name] = _entry(content)
        self._check_sizes(folder)
        manifest = MirroredManifest(
            step=step,
            plan=self._plan.fingerprint,
            amendments=amendments.chain,
            amendments_head=saved.amendments_head,
            files=self._sent,
        )
        tick()
        self.remote.write(f"{folder}/{MANIFEST_NAME}", [_json(manifest)])
        return True

    def _remember(self, step: int, sealed: bytes) -> None:
        """Forget what was sent of another checkpoint."""
        sending = f"{step} {hashlib.sha256(sealed).hexdigest()}"
        if sending != self._sending:
            self._sent = {}
            self._sending = sending

    def _check_sizes(self, folder: str) -> None:
        """See that every file that was sent has arrived whole."""
        for name, entry in list(self._sent.items()):
            size = self.remote.size(f"{folder}/{name}")
            if size != entry.bytes:
                del self._sent[name]
                raise RemoteError(f"{name} has {size or 0} bytes there instead of {entry.bytes}")

    def prune(self, amendments: Amendments, *, keep: int, kept_here: Collection[int]) -> None:
        """Delete what neither the run folder keeps nor is among the `keep` newest of the run.

        A manifest that cannot be understood is nobody's to delete.
        """
        look = self.look()
        newest = [m.step for m in look.whole if m.why_outdated(amendments) is None][:keep]
        for step in (*(manifest.step for manifest in look.whole), *look.partial):
            if step not in newest and step not in kept_here:
                # Its manifest goes first: what is left of it then counts for nothing.
                self.remote.delete(f"{_folder(step)}/{MANIFEST_NAME}")
                self.remote.delete(_folder(step))

    def fetch(self, manifest: MirroredManifest, folder: Path, tick: Tick) -> dict[str, bytes]:
        """Download a checkpoint into an empty folder; return the run's records by their names.

        Raises DamagedError naming the first file that is not what the manifest says.
        """
        records: dict[str, bytes] = {}
        for name in sorted(manifest.files):
            if name.startswith(_CHECKPOINT):
                self._fetch_file(manifest, name, tick, folder / name.removeprefix(_CHECKPOINT))
            else:
                content = self._fetch_file(manifest, name, tick, None)
                records[name.removeprefix(_RUN)] = content
        return records

    def _fetch_file(
        self, manifest: MirroredManifest, name: str, tick: Tick, path: Path | None
    ) -> bytes:
        """Read a file, tried again where that fails, into `path` or, without one, into memory."""
        for delay_s in _RETRY_AFTER_S:
            try:
                return self._fetch_once(manifest, name, tick, path)
            except (RemoteError, DamagedError):
                tick()
                time.sleep(delay_s)
        return self._fetch_once(manifest, name, tick, path)

    def _fetch_once(
        self, manifest: MirroredManifest, name: str, tick: Tick, path: Path | None
    ) -> bytes:
        entry = manifest.files[name]
        source = f"{_folder(manifest.step)}/{name}"
        if self.remote.size(source) is None:
            raise DamagedError(f"{name} is missing")
        digest, size = hashlib.sha256(), 0
        kept: list[bytes] = []
        file = None if path is None else path.open("wb")
        try:
            for chunk in self.remote.chunks(source):
                tick()
                digest.update(chunk)
                size += len(chunk)
                if file is None:
                    kept.append(chunk)
                else:
                    file.write(chunk)
        finally:
            if file is not None:
                file.close()
        if size != entry.bytes:
            raise DamagedError(f"{name} has {size} bytes instead of {entry.bytes}")
        if digest.hexdigest() != entry.sha256:
            raise DamagedError(f"{name} was altered (its SHA-256 differs)")
        return b"".join(kept)

    def set_aside(self, manifest: MirroredManifest) -> None:
        """Make a damaged checkpoint count no more, so that it can be uploaded again."""
        folder = _folder(manifest.step)
        self.remote.write(f"{folder}/{SET_ASIDE}", [_json(manifest)])
        self.remote.delete(f"{folder}/{MANIFEST_NAME}")


def _folder(step: int) -> str:
    return f"mirrored-step-{step:08d}"


def _json(record: Record) -> bytes:
    return (canonical_json(record.model_dump(mode="json")) + "\n").encode("ascii")


def _first(error: ValueError) -> str:
    """Return the first thing that is wrong with a file, in few words."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _differences(mark: _Mark, plan: Plan) -> str:
    try:
        return "; ".join(science_diff(Science.model_validate(mark.science), plan.science))
    except ValidationError:
        return "its plan has another format"


def _entry(content: bytes) -> FileEntry:
    return FileEntry(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _entries(sealed: bytes) -> dict[str, FileEntry]:
    """Return what a checkpoint's manifest says of its files, and what is to be said of itself."""
    try:
        files = parse_json(sealed)["files"]
        found = {_CHECKPOINT + name: FileEntry.model_validate(files[name]) for name in files}
    except (ValueError, LookupError, TypeError) as error:
        raise AlteredError(f"{MANIFEST_NAME} is damaged") from error
    return {**found, _CHECKPOINT + MANIFEST_NAME: _entry(sealed)}


def _held_against(path: Path, entry: FileEntry, tick: Tick) -> Iterator[bytes]:
    """Yield a file in parts; raises AlteredError at its end where it is not what was written."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            tick()
            digest.update(chunk)
            size += len(chunk)
            yield chunk
    if (size, digest.hexdigest()) != (entry.bytes, entry.sha256):
        raise AlteredError(f"{path.name} was altered (its SHA-256 differs)")


def _whole_lines(path: Path) -> bytes:
    """Return a record; of a log that is being written to, the lines that are whole."""
    content = path.read_bytes()
    if path.suffix != ".jsonl":
        return content
    return content[: content.rfind(b"\n") + 1]
