"""File systems for tests of the mirror: one of its own in memory, which fails or hangs at will."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

__all__ = ["Hanging", "TestFiles", "all_files", "fault"]

Fault = Callable[[str, str], None]


class TestFiles(MemoryFileSystem):  # type: ignore[misc]
    """In memory, under `testfs://`; `fault` is told each operation and path, and may raise."""

    __test__ = False
    protocol = "testfs"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    fault: ClassVar[Fault | None] = None

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("testfs://").strip("/") if path.strip("/") else ""

    @classmethod
    def tell(cls, operation: str, path: str) -> None:
        if cls.fault is not None:
            cls.fault(operation, path)

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        self.tell("ls", path)
        return super().ls(path, detail=detail, **kwargs)

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self.tell("read", path)
        return super().cat_file(path, *args, **kwargs)

    def rm(self, path: str, *args: Any, **kwargs: Any) -> None:
        self.tell("rm", path)
        super().rm(path, *args, **kwargs)

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        self.tell("read" if mode == "rb" else "write", path)
        file = super()._open(path, mode, **kwargs)
        if mode == "wb":
            write = file.write

            def told(data: bytes) -> int:
                self.tell("write part", path)
                return int(write(data))

            file.write = told
        return file


fsspec.register_implementation("testfs", TestFiles, clobber=True)


@contextmanager
def fault(what: Fault) -> Iterator[None]:
    """Have the file system do something at each operation for the length of a block."""
    TestFiles.fault = staticmethod(what)
    try:
        yield
    finally:
        TestFiles.fault = None


class Hanging:
    """Hangs in one kind of operation until it is let go."""

    def __init__(self, operation: str, part: str = "") -> None:
        self._operation = operation
        self._part = part
        self.reached = threading.Event()
        self.let_go = threading.Event()

    def __call__(self, operation: str, path: str) -> None:
        if operation == self._operation and self._part in path:
            self.reached.set()
            self.let_go.wait(60)


def all_files(url: str) -> dict[str, bytes]:
    """Return every file under a URL by its name from there."""
    files, root = fsspec.url_to_fs(url)
    files.invalidate_cache()
    start = len(root.rstrip("/")) + 1
    return {path[start:]: bytes(files.cat_file(path)) for path in files.find(root)}
