"""A folder behind a URL, on whatever file system fsspec reaches.

File systems raise what their client libraries do. Here all of it is a RemoteError with a text that
can be shown: no password, key or signed query is in it.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.registry import known_implementations

from rewarm.errors import Problem, masked

__all__ = ["CHUNK_BYTES", "RemoteError", "RemoteFolder", "url_problem"]

CHUNK_BYTES = 4 * 2**20
_FIELD = "checkpoints.mirror"


class RemoteError(Exception):
    """The other side cannot be reached, or refuses."""


def url_problem(url: str, run_folder: Path) -> Problem | None:
    """Return why nothing can be mirrored to a URL, as far as that is known without asking there."""
    protocol = url.partition("://")[0]
    try:
        fsspec.get_filesystem_class(protocol)
    except ValueError:
        near = difflib.get_close_matches(protocol, known_implementations, n=1)
        fix = (
            f"did you mean {near[0]}://?"
            if near
            else "e.g. s3://, gs://, abfs://, sftp://, file://"
        )
        return Problem(_FIELD, f"{masked(url)}: no file system is called {protocol!r}", fix)
    except Exception as error:
        package = known_implementations.get(protocol, {}).get("class", "fsspec").partition(".")[0]
        what = f"{masked(url)}: {protocol}:// needs a package that cannot be imported ({error})"
        fix = "install it" if package == "fsspec" else f"pip install {package}"
        return Problem(_FIELD, what, f"{fix}; credentials belong in the environment")
    if protocol in ("file", "local"):
        folder = Path(fsspec.url_to_fs(url)[1]).resolve()
        if folder.is_relative_to(run_folder.resolve()):
            what = f"{folder} lies within the run folder, and would be lost with it"
            return Problem(_FIELD, what, "name a folder on another disk")
    return None


class RemoteFolder:
    """A folder of files; names are relative to it, with `/` between their parts.

    Whatever a method cannot do is a RemoteError.
    """

    def __init__(self, url: str) -> None:
        """Nothing is asked of the other side yet."""
        self._url = url
        self._opened: tuple[Any, str] | None = None

    def __str__(self) -> str:
        return masked(self._url)

    def names(self) -> list[str]:
        """Return what is directly in the folder, sorted; nothing where it is not there."""
        with self._telling():
            files, root = self._open()
            files.invalidate_cache()
            try:
                found = files.ls(root, detail=False)
            except FileNotFoundError:
                return []
            return sorted({str(path).rstrip("/").rpartition("/")[2] for path in found})

    def size(self, name: str) -> int | None:
        """Return the bytes of a file; None where it is not there."""
        with self._telling():
            files, root = self._open()
            files.invalidate_cache()
            try:
                return int(files.info(f"{root}/{name}")["size"])
            except FileNotFoundError:
                return None

    def read(self, name: str) -> bytes | None:
        """Return a small file; None where it is not there."""
        with self._telling():
            files, root = self._open()
            files.invalidate_cache()
            try:
                return bytes(files.cat_file(f"{root}/{name}"))
            except FileNotFoundError:
                return None

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield a file in parts."""
        with self._telling():
            files, root = self._open()
            with files.open(f"{root}/{name}", "rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield bytes(chunk)

    def write(self, name: str, chunks: Iterable[bytes]) -> None:
        """Write a file from parts; what making the parts raises is raised as it is."""
        with self._telling():
            files, root = self._open()
            path = f"{root}/{name}"
            if root.startswith("/"):
                # Object stores have no folders; some would make a bucket of a misspelt name.
                files.makedirs(path.rpartition("/")[0], exist_ok=True)
            file = files.open(path, "wb")
        try:
            for chunk in chunks:
                with self._telling():
                    file.write(chunk)
        except BaseException:
            with contextlib.suppress(Exception):
                file.close()
            raise
        with self._telling():
            file.close()

    def delete(self, name: str) -> None:
        """Delete a file or a folder with all in it, where it is there."""
        with self._telling(), contextlib.suppress(FileNotFoundError):
            files, root = self._open()
            files.rm(f"{root}/{name}", recursive=True)

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            files, root = fsspec.url_to_fs(self._url)
            self._opened = (files, str(root).rstrip("/"))
        return self._opened

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # Masked before it is cut: half a password would not be known as one.
            text = " ".join(masked(str(error)).split())[:300]
            raise RemoteError(f"{type(error).__name__}: {text}") from error
