"""Files that are whole or absent, values that have one spelling, and hashes that prove both.

Everything `rewarm` writes goes through here: JSON in canonical form, atomic replacement,
append-only logs whose torn last line is told apart from damage, manifests of SHA-256 hashes.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import math
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rewarm.errors import EnvironmentFault, UserError, remedy_of

__all__ = [
    "MANIFEST_NAME",
    "append_json_line",
    "append_json_lines",
    "canonical_json",
    "file_entries",
    "file_sha256",
    "fingerprint",
    "fsync_folder",
    "make_folder",
    "manifest_problems",
    "open_to_others",
    "parse_json",
    "provenance",
    "read_json",
    "read_json_lines",
    "temporary_folder",
    "write_atomically",
    "write_json",
    "write_manifest",
]

MANIFEST_NAME = "MANIFEST.json"

_ELSEWHERE = "free some space or choose a folder that can be written, then run the command again"

_UMASK = os.umask(0o077)
os.umask(_UMASK)  # it can only be read by setting it


def canonical_json(value: Any) -> str:
    """Return the one spelling of a JSON value: sorted keys, no spaces, no NaN, ASCII only."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True
    )


def fingerprint(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_to_others(path: Path) -> None:
    """Give a temporary file or folder, which is its owner's alone, the mode of any new one."""
    os.chmod(path, (0o777 if path.is_dir() else 0o666) & ~_UMASK)


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk: a rename lasts only once its folder is flushed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path, *, fix: str = _ELSEWHERE) -> None:
    """Make a folder and those above it, unless it is there; raises EnvironmentFault where there can
    be none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(
            f"{folder} cannot be made ({error.strerror or error})", fix
        ) from error


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader, or a kill at any instant, finds the old or the new one whole.

    Raises EnvironmentFault where the disk refuses; the old file then stands untouched.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        open_to_others(Path(temporary))
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise EnvironmentFault(
            f"{path} cannot be written ({error.strerror or error})",
            _ELSEWHERE,
        ) from error


@contextlib.contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Give a fresh folder in `parent`; what still has its name at the end is removed.

    Whoever is killed leaves one behind: those of this prefix that nobody works in any more are
    removed at the beginning. The system takes the lock from a process that is killed; on a file
    system without locks they stay. Raises OSError where the disk refuses.
    """
    for leftover in parent.iterdir():
        if leftover.name.startswith(prefix) and leftover.is_dir() and not leftover.is_symlink():
            with contextlib.suppress(OSError), _lock_at_once(leftover):
                shutil.rmtree(leftover, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                stack.enter_context(_lock_at_once(folder))
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _lock_at_once(folder: Path) -> Iterator[None]:
    """Hold a folder's lock; raises OSError where somebody has it, or there are no locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically (for files that people read too); NaN is refused."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_atomically(path, text + "\n")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:40]} is beyond the range of numbers")
    return number


# One for all: to make a decoder takes as long as to parse a short line.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text that may come from anywhere.

    Raises ValueError (with a reason fit to be shown) for malformed JSON, NaN and infinities,
    invalid UTF-8, and nesting so deep (about a thousand levels) that the parser gives up.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError as error:
        if "sys.set_int_max_str_digits" not in str(error):
            raise
        raise ValueError("a number has thousands of digits") from error


def read_json(path: Path, *, what: str, error: type[UserError]) -> Any:
    """Read a JSON file; anything wrong is `error`, naming the file and what it should hold."""
    try:
        return parse_json(path.read_bytes())
    except OSError as fault:
        told = f"{what} cannot be read ({fault.strerror or fault})"
        raise error.one(str(path), told, remedy_of(fault, absent="check the path")) from fault
    except ValueError as fault:
        raise error.one(
            str(path),
            f"{what} is not valid JSON ({fault})",
            "restore the file, or make it again with the command that wrote it",
        ) from fault


def append_json_line(path: Path, value: Any, *, durable: bool = False) -> None:
    """Append one record to a log; `durable` waits until it is on the disk."""
    append_json_lines(path, [value], durable=durable)


def append_json_lines(path: Path, values: Iterable[Any], *, durable: bool = False) -> None:
    """Append records to a log; `durable` waits until they are on the disk.

    One write call for all of them: concurrent readers see whole lines except, at worst, the last.
    A line torn by an earlier kill is closed first, so that it never swallows the new record.
    """
    lines = b"".join(canonical_json(value).encode("ascii") + b"\n" for value in values)
    try:
        with path.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                if file.read(1) != b"\n":
                    lines = b"\n" + lines
            file.write(lines)
            file.flush()
            if durable:
                os.fsync(file.fileno())
    except OSError as fault:
        raise EnvironmentFault(
            f"{path} cannot be written ({fault.strerror or fault})",
            "free some space or make the folder writable; the same command then goes on",
        ) from fault


def read_json_lines(path: Path) -> Iterator[Any]:
    """Yield the records of an append-only log; a missing file has none, a torn line is skipped.

    Only a kill while appending leaves a line that does not parse, and its record is written again
    after the resume.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                yield parse_json(line)


def file_entries(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of each named file, as a manifest lists them."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
        for name in sorted(names)
    }


def write_manifest(folder: Path, names: Iterable[str], facts: Mapping[str, Any]) -> None:
    """Write the manifest of a folder, last: size and SHA-256 of each named file, plus facts."""
    write_json(folder / MANIFEST_NAME, {"files": file_entries(folder, names), **facts})


def manifest_problems(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Return what differs between a folder and its manifest: missing, resized, altered files."""
    problems: list[str] = []
    files = manifest.get("files")
    if not isinstance(files, dict) or not files:
        return [f"{MANIFEST_NAME} lists no files"]
    for name, entry in sorted(files.items()):
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif path.stat().st_size != entry["bytes"]:
            problems.append(f"{name} has {path.stat().st_size} bytes instead of {entry['bytes']}")
        elif file_sha256(path) != entry["sha256"]:
            problems.append(f"{name} was altered (its SHA-256 differs)")
    return problems


@functools.cache
def _version(package: str) -> str | None:
    """Return the version of a package that is installed; its description is long, and read once."""
    # It brings the e-mail parser with it: 20 ms that `rewarm plan` does not need.
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def provenance(packages: Iterable[str]) -> dict[str, Any]:
    """Return what a figure must be traceable to: versions, platform, processor, command."""
    versions = {name: _version(name) for name in packages}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "packages": {name: version for name, version in versions.items() if version is not None},
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
