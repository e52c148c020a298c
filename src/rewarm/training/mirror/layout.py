"""What the files of a mirror say: whose it is, and what a mirrored checkpoint consists of.

MIRROR.json                    whose mirror it is: the run's name, its plan
mirrored-step-00000123/
    checkpoint/…               the checkpoint as it lies in the run folder, its manifest too
    run/…                      plan and records of the run folder as they were then
    MANIFEST.json              last: size and SHA-256 of every file above, and the amendments
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError, field_validator

from rewarm.artifacts import MANIFEST_NAME, canonical_json, parse_json
from rewarm.errors import RunFolderError
from rewarm.planning.amendments import Amendments
from rewarm.planning.plan import Plan, Science, science_diff
from rewarm.records.facts import Amendment, Record
from rewarm.training.checkpoint import FileEntry

__all__ = [
    "CHECKPOINT",
    "MARK",
    "RUN",
    "SET_ASIDE",
    "AlteredError",
    "DamagedError",
    "Mark",
    "MirroredManifest",
    "as_json",
    "entries_of",
    "entry_of",
    "folder_of",
    "step_in",
]

MARK = "MIRROR.json"
SET_ASIDE = "MANIFEST.damaged.json"
CHECKPOINT = "checkpoint/"
RUN = "run/"
_FOLDER = re.compile(r"mirrored-step-(\d{8,})")
_FILE = re.compile(r"(?:checkpoint|run|run/metrics)/(?!\.\.?$)[^/\\\0]+")


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
        if CHECKPOINT + MANIFEST_NAME not in files:
            raise ValueError("no checkpoint's manifest is listed")
        return files

    @classmethod
    def parsed(cls, raw: bytes, *, step: int, plan: str) -> MirroredManifest:
        """Return the manifest of a step of a plan; raises DamagedError where it is not that."""
        try:
            manifest = cls.model_validate(parse_json(raw))
        except ValueError as error:
            raise DamagedError(f"{MANIFEST_NAME} is damaged ({_first(error)})") from error
        if manifest.step != step:
            raise DamagedError(f"{MANIFEST_NAME} is of step {manifest.step}")
        if manifest.plan != plan or not manifest.chain.is_linked():
            raise DamagedError(f"{MANIFEST_NAME} is of another run")
        return manifest

    @property
    def chain(self) -> Amendments:
        """The amendments of the run when the checkpoint was uploaded."""
        return Amendments(self.plan, self.amendments)

    def checkpoint_files(self) -> Mapping[str, FileEntry]:
        """Return what the manifest says of the checkpoint's own files."""
        return {name: e for name, e in self.files.items() if name.startswith(CHECKPOINT)}

    def why_outdated(self, amendments: Amendments) -> str | None:
        """Return why the checkpoint is not of the run as it is amended now, or None."""
        return amendments.why_outdated(self.amendments_head, self.step)


class Mark(Record):
    """`MIRROR.json`."""

    format: Literal[1] = 1
    name: str
    plan: str
    science: dict[str, Any]

    @classmethod
    def of(cls, plan: Plan) -> Mark:
        """Return the mark of a plan's mirror."""
        science = plan.science.model_dump(mode="json")
        return cls(name=plan.name, plan=plan.fingerprint, science=science)

    @classmethod
    def parsed(cls, raw: bytes, *, where: str) -> Mark:
        """Return what a file says; raises RunFolderError where it is not ours."""
        try:
            return cls.model_validate(parse_json(raw))
        except ValueError as error:
            raise RunFolderError.one(
                where,
                f"it is not what rewarm writes there ({_first(error)})",
                "if it was damaged, delete it: it is written again; otherwise name another mirror",
            ) from error

    def differences(self, plan: Plan) -> str:
        """Return what differs between the plan of the mark and another one."""
        try:
            return "; ".join(science_diff(Science.model_validate(self.science), plan.science))
        except ValidationError:
            return "its plan has another format"


def folder_of(step: int) -> str:
    """Return the name of a mirrored checkpoint's folder."""
    return f"mirrored-step-{step:08d}"


def step_in(name: str) -> int | None:
    """Return the step that a folder is named after; None where it is none of ours."""
    match = _FOLDER.fullmatch(name)
    return None if match is None else int(match[1])


def as_json(record: Record) -> bytes:
    """Return the bytes of a manifest or mark."""
    return (canonical_json(record.model_dump(mode="json")) + "\n").encode("ascii")


def _first(error: ValueError) -> str:
    """Return the first thing that is wrong with a file, in few words."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def entry_of(content: bytes) -> FileEntry:
    """Return what a manifest says of a file with this content."""
    return FileEntry(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def entries_of(sealed: bytes) -> dict[str, FileEntry]:
    """Return what a checkpoint's manifest says of its files, and what is to be said of itself."""
    try:
        files = parse_json(sealed)["files"]
        found = {CHECKPOINT + name: FileEntry.model_validate(files[name]) for name in files}
    except (ValueError, LookupError, TypeError) as error:
        raise AlteredError(f"{MANIFEST_NAME} is damaged") from error
    return {**found, CHECKPOINT + MANIFEST_NAME: entry_of(sealed)}
