"""The files that text is read from: here on a disk, or behind a URL on whatever fsspec reaches.

A remote file is known by what its side said of it when it was found: its size and a version (an
ETag, a content hash, a time). It is read as a stream in bounded memory; what fails on the way is
tried again from where the reading was, and an end before the size that was told is such a failure.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NoReturn, TypeVar
from urllib.parse import unquote

from rewarm.corpus.side_by_side import side_by_side
from rewarm.errors import CorpusError, EnvironmentFault, UserError, masked

__all__ = [
    "Input",
    "RemoteFile",
    "Stamp",
    "fresh_stamps",
    "hash_free_entry",
    "open_input",
    "patiently",
    "read_ahead",
    "size_of",
    "stamp_of",
    "version_of",
]

_BLOCK_BYTES = 8 * 2**20
# Of files up to this size, 16 are in memory while the first of them is read.
_SMALL_BYTES = 2**20
WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Before each further try of what failed on the way."""

# What file systems call the thing that changes with a file's content; the surest first.
_VERSIONS = (
    *("xet_hash", "blob_id", "sha256", "ETag", "etag", "checksum", "md5Hash", "contentHash"),
    *("Content-MD5", "Digest", "content_md5", "LastModified", "last_modified", "Last-Modified"),
    *("mtime", "modified", "updated", "created"),
)
_MISTAKES = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)

Stamp = tuple[int, int | str]
"""Size in bytes and what tells two contents of one size apart: ns of the last change, or a
version."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file behind a URL, as it was when it was found.

    `identity` stands for it in the key of what is prepared: its URL, without a pinned commit where
    `version` follows the content alone. A pinned file cannot change. `content` is all of it, where
    it was fetched ahead (`read_ahead`).
    """

    url: str
    size: int
    version: str
    identity: str
    is_pinned: bool = False
    content: bytes | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return masked(self.url)

    @property
    def _path(self) -> PurePosixPath:
        return PurePosixPath(unquote(self.url.partition("?")[0]))

    @property
    def name(self) -> str:
        """Its last part, with its ending."""
        return self._path.name

    @property
    def suffix(self) -> str:
        """Its last ending."""
        return self._path.suffix

    @property
    def suffixes(self) -> list[str]:
        """Its endings."""
        return self._path.suffixes

    @property
    def parts(self) -> tuple[str, ...]:
        """What stands between its slashes."""
        return self._path.parts


Input = Path | RemoteFile


def stamp_of(file: Input) -> Stamp:
    """Return what tells that a file changed; of a remote one, as it was found.

    Raises CorpusError for a local file that is gone.
    """
    if isinstance(file, RemoteFile):
        return file.size, file.version
    try:
        stat = file.stat()
    except OSError as error:
        raise CorpusError.one(
            str(file), f"it cannot be read ({error.strerror})", "put it back or mend the path"
        ) from error
    return stat.st_size, stat.st_mtime_ns


def size_of(file: Input) -> int:
    """Return the bytes of a file; raises as `stamp_of` does."""
    return stamp_of(file)[0]


def fresh_stamps(files: Sequence[Input]) -> list[Stamp]:
    """Return the stamps of files as they are now, asking their sides anew; raises as `stamp_of`
    and `open_input` do."""
    asked = _each(files, _changeable, _info_once)
    return [_fresh_stamp(file, info) for file, info in zip(files, asked, strict=True)]


def _changeable(file: Input) -> RemoteFile | None:
    return file if isinstance(file, RemoteFile) and not file.is_pinned else None


def _fresh_stamp(file: Input, info: Mapping[str, Any] | None) -> Stamp:
    remote = _changeable(file)
    if remote is None:
        return stamp_of(file)
    if info is None:
        info = patiently(str(remote), lambda: _info(remote))
    return int(info.get("size") or 0), version_of(info)


def _info(file: RemoteFile) -> Mapping[str, Any]:
    files, path = _file_system(file.url)
    files.invalidate_cache()
    found: Mapping[str, Any] = files.info(path)
    return found


def _info_once(file: RemoteFile) -> Mapping[str, Any] | None:
    """Return what its side says of a file; None where that fails: it is then asked patiently."""
    with contextlib.suppress(Exception):
        return _info(file)
    return None


def _each(
    files: Sequence[Input],
    wanted: Callable[[Input], RemoteFile | None],
    ask: Callable[[RemoteFile], _T | None],
) -> Iterator[_T | None]:
    """Yield what `ask` returns of each file that is `wanted`, side by side; None for the others."""

    def asked(file: Input) -> _T | None:
        remote = wanted(file)
        return None if remote is None else ask(remote)

    if sum(wanted(file) is not None for file in files) < 2:
        return iter([None] * len(files))  # nothing is gained, and no thread is needed
    return side_by_side(asked, files)


def read_ahead(files: Sequence[Input]) -> Iterator[Input]:
    """Yield files, small remote ones with their content: several are fetched at a time.

    What fails on the way comes without content, and is then read as any other, patiently.
    """
    fetched = _each(files, _small, _fetched)
    for file, content in zip(files, fetched, strict=True):
        if content is None or not isinstance(file, RemoteFile):
            yield file
        else:
            yield replace(file, content=content)


def _small(file: Input) -> RemoteFile | None:
    return file if isinstance(file, RemoteFile) and file.size <= _SMALL_BYTES else None


def _fetched(file: RemoteFile) -> bytes | None:
    """Return all of a file; None where that fails, or where it is not as large as it was told."""
    with contextlib.suppress(Exception):
        files, path = _file_system(file.url)
        content = bytes(files.cat_file(path))
        return content if len(content) == file.size else None
    return None


def version_of(info: Mapping[str, Any]) -> str:
    """Return what a file system says of a file's content or last change; empty where nothing."""
    for key in _VERSIONS:
        value = info.get(key)
        if isinstance(value, datetime):
            value = value.timestamp()
        if value is not None and value != "":
            return f"{key}:{value}"
    return ""


def hash_free_entry(file: RemoteFile) -> dict[str, Any]:
    """Return what a manifest says of a remote file, which is not read a second time for a hash."""
    return {
        "name": file.name,
        "url": str(file),
        "bytes": file.size,
        "version": file.version,
    }


@contextlib.contextmanager
def open_input(file: Input, *, random_access: bool = False) -> Iterator[BinaryIO]:
    """Open a file for reading; with `random_access`, only what is asked for is fetched.

    Raises OSError for what the local system refuses, CorpusError for a remote file that is gone or
    closed, and EnvironmentFault where its side fails again and again.
    """
    if not isinstance(file, RemoteFile):
        with file.open("rb") as raw:
            yield raw
        return
    if file.content is not None:
        yield io.BytesIO(file.content)
        return
    with contextlib.closing(_Patient(file, random_access=random_access)) as patient:
        if random_access:
            yield patient  # type: ignore[misc]  # all that Arrow asks of a file
        else:
            yield io.BufferedReader(patient, 2**20)


def patiently(where: str, work: Callable[[], _T]) -> _T:
    """Return what `work` returns, trying it again where the other side fails.

    Raises CorpusError for what trying again does not mend, EnvironmentFault after the last try.
    """
    for wait_s in (*WAITS_S, None):
        try:
            return work()
        except (UserError, EnvironmentFault):
            raise
        except Exception as raised:  # file systems raise what their client libraries do
            error = _as_it_is(raised)
            if wait_s is None or isinstance(error, _MISTAKES):
                _tell(where, error)
            time.sleep(wait_s)
    raise AssertionError("the last try returns or raises")


def _as_it_is(error: Exception) -> Exception:
    """Return what failed: for fsspec's http whatever does, no network included, is a file that is
    not there."""
    cause = error.__cause__ if isinstance(error, FileNotFoundError) else error
    if isinstance(cause, TimeoutError | ConnectionError):
        return cause
    if not isinstance(cause, Exception) or type(cause).__module__.partition(".")[0] != "aiohttp":
        return error
    from aiohttp import ClientResponseError

    if not isinstance(cause, ClientResponseError):
        return cause
    if cause.status in (401, 403):
        return PermissionError(f"{cause.status} {cause.message}")
    return FileNotFoundError(f"{cause.status}") if cause.status in (404, 410) else cause


def _tell(where: str, error: Exception) -> NoReturn:
    """Raise what a person is told of a remote failure; no password or signature is in it."""
    # Masked before it is cut: half a password would not be known as one.
    text = f"{type(error).__name__}: {' '.join(masked(str(error)).split())[:300]}"
    if isinstance(error, PermissionError):
        raise CorpusError.one(
            where,
            f"access is refused ({text})",
            "set the credentials that its file system looks for in the environment",
        ) from error
    if isinstance(error, _MISTAKES):
        raise CorpusError.one(
            where, f"it is not there ({text})", "put it back or mend the path"
        ) from error
    raise EnvironmentFault(
        f"{where} cannot be read ({text}), tried {len(WAITS_S) + 1} times",
        "check the network; the same command then goes on with what is not done yet",
    ) from error


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec

    files, path = fsspec.url_to_fs(url)
    return files, str(path)


class _CutOffError(OSError):
    """A stream ended before the size that its side had told."""


class _Patient(io.RawIOBase):
    """The bytes of a remote file; a failure is waited out, and reading goes on where it was."""

    def __init__(self, file: RemoteFile, *, random_access: bool) -> None:
        super().__init__()
        self._remote = file
        self._position = 0
        self._open: Any = None
        self._cache = "none" if random_access else "readahead"

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._remote.size}
        wanted = start[whence] + offset
        if wanted != self._position:
            self._position = wanted
            self._forget()
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, fewer only at the end: Arrow takes fewer for the end."""
        left = self._remote.size - self._position
        left = left if size < 0 else min(size, left)
        parts = []
        while left > 0:
            part = super().read(left)
            assert part, "before the end there is something, or an error"
            parts.append(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._remote.size - self._position)
        if wanted <= 0:
            return 0
        data = patiently(str(self._remote), lambda: self._read_once(wanted))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._forget()
        super().close()

    def _read_once(self, wanted: int) -> bytes:
        try:
            if self._open is None:
                self._open = self._opened_at(self._position)
            data = bytes(self._open.read(wanted))
            if not data:
                raise _CutOffError(f"it ended after {self._position} of {self._remote.size} bytes")
        except BaseException:
            self._forget()
            raise
        return data

    def _opened_at(self, position: int) -> Any:
        files, path = _file_system(self._remote.url)
        opened = files.open(path, "rb", block_size=_BLOCK_BYTES, cache_type=self._cache)
        if not position:
            return opened
        try:
            opened.seek(position)
            return opened
        except (ValueError, OSError) as error:
            opened.close()
            if self._cache == "none":
                raise CorpusError.one(
                    str(self._remote),
                    "its side gives no parts of files, and parquet is read from its end",
                    "download it and give its path here",
                ) from error
        # A stream from the beginning alone: what was read is passed over.
        opened = files.open(path, "rb", block_size=_BLOCK_BYTES)
        while position:
            passed = len(opened.read(min(position, _BLOCK_BYTES)))
            if not passed:
                raise _CutOffError(f"it ended {position} bytes before where reading was")
            position -= passed
        return opened

    def _forget(self) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            with contextlib.suppress(Exception):
                opened.close()
