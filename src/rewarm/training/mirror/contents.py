"""How checkpoints get to a mirror and back, and what stays there; `layout.py` says what lies where.

A checkpoint is there if and only if its manifest is: an upload that was cut off has none. Every
byte is hashed on its way, up against the checkpoint's own manifest, down against the mirror's.
Hashes tell damage, not malice: whoever can write to a mirror can write to the runs that it
restores.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from rewarm.artifacts import MANIFEST_NAME
from rewarm.errors import RunFolderError
from rewarm.planning.amendments import Amendments, read_amendments
from rewarm.planning.plan import Plan
from rewarm.records.run_folder import RunFolder
from rewarm.training.checkpoint import FileEntry, step_of
from rewarm.training.mirror.layout import (
    CHECKPOINT,
    MARK,
    RUN,
    SET_ASIDE,
    AlteredError,
    DamagedError,
    Mark,
    MirroredManifest,
    as_json,
    entries_of,
    entry_of,
    folder_of,
    step_in,
)
from rewarm.training.mirror.remote import CHUNK_BYTES, RemoteError, RemoteFolder
from rewarm.training.saved import read_saved_state

__all__ = ["Look", "Mirror", "Tick"]

_RETRY_AFTER_S = (0.2, 1.0)

Tick = Callable[[], None]
"""Is called with every part of a file that passes; raises where the work is to end."""


class Look(NamedTuple):
    """What a mirror holds, by step, the newest first; `damaged` are manifests, with what is wrong.

    What an upload left that was cut off is in `partial`.
    """

    whole: list[MirroredManifest]
    damaged: dict[int, str]
    partial: list[int]


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
        mark = None if raw is None else Mark.parsed(raw, where=f"{self}/{MARK}")
        if mark is not None and mark.plan == self.plan:
            return
        if mark is not None and any(step_in(name) is not None for name in self.remote.names()):
            raise RunFolderError.one(
                str(self),
                f"this mirror is of another run, {mark.name!r}: {mark.differences(self._plan)}",
                "give the recipe a mirror of its own, or undo the change",
            )
        self.remote.write(MARK, [as_json(Mark.of(self._plan))])

    def look(self) -> Look:
        """Return what is there."""
        look = Look([], {}, [])
        steps = {step for step in map(step_in, self.remote.names()) if step is not None}
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
        raw = self.remote.read(f"{folder_of(step)}/{MANIFEST_NAME}")
        return None if raw is None else MirroredManifest.parsed(raw, step=step, plan=self.plan)

    def upload(self, checkpoint: Path, run: RunFolder, tick: Tick) -> bool:
        """Copy a verified checkpoint with the run's records; tell whether it was not there yet.

        What passes is held against the checkpoint's manifest: AlteredError where it differs,
        FileNotFoundError where it was deleted meanwhile. What was sent before a failure is not sent
        again by this object.
        """
        self.claim()
        step = step_of(checkpoint)
        sealed = (checkpoint / MANIFEST_NAME).read_bytes()
        entries = entries_of(sealed)
        folder = folder_of(step)
        try:
            there = self._manifest(step)
        except DamagedError:
            there = None
        if there is not None and there.checkpoint_files() == entries:
            return False
        self.remote.delete(f"{folder}/{MANIFEST_NAME}")
        self._remember(step, sealed)
        head = read_saved_state(checkpoint).amendments_head
        chain = read_amendments(run.amendments, self.plan).chain
        try:
            self._send_checkpoint(checkpoint, folder, entries, tick)
        except AlteredError as error:
            if (checkpoint / MANIFEST_NAME).read_bytes() != sealed:
                # The run went back, and has come to this step again.
                raise FileNotFoundError(checkpoint) from error
            raise
        self._send_records(run, folder, tick)
        self._check_sizes(folder)
        manifest = MirroredManifest(
            step=step, plan=self.plan, amendments=chain, amendments_head=head, files=self._sent
        )
        tick()
        self.remote.write(f"{folder}/{MANIFEST_NAME}", [as_json(manifest)])
        return True

    def _send_checkpoint(
        self, checkpoint: Path, folder: str, entries: Mapping[str, FileEntry], tick: Tick
    ) -> None:
        for name, entry in entries.items():
            if self._sent.get(name) != entry:
                path = checkpoint / name.removeprefix(CHECKPOINT)
                self.remote.write(f"{folder}/{name}", _held_against(path, entry, tick))
                self._sent[name] = entry

    def _send_records(self, run: RunFolder, folder: str, tick: Tick) -> None:
        for path in run.facts:
            if path.exists():
                tick()
                name = RUN + path.relative_to(run.path).as_posix()
                content = _whole_lines(path)
                self.remote.write(f"{folder}/{name}", [content])
                self._sent[name] = entry_of(content)

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
                self.remote.delete(f"{folder_of(step)}/{MANIFEST_NAME}")
                self.remote.delete(folder_of(step))

    def fetch(self, manifest: MirroredManifest, folder: Path, tick: Tick) -> dict[str, bytes]:
        """Download a checkpoint into an empty folder; return the run's records by their names.

        Raises DamagedError naming the first file that is not what the manifest says.
        """
        records: dict[str, bytes] = {}
        for name in sorted(manifest.files):
            if name.startswith(CHECKPOINT):
                self._fetch_file(manifest, name, tick, folder / name.removeprefix(CHECKPOINT))
            else:
                content = self._fetch_file(manifest, name, tick, None)
                records[name.removeprefix(RUN)] = content
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
        source = f"{folder_of(manifest.step)}/{name}"
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
        folder = folder_of(manifest.step)
        self.remote.write(f"{folder}/{SET_ASIDE}", [as_json(manifest)])
        self.remote.delete(f"{folder}/{MANIFEST_NAME}")


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
