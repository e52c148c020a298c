"""Opens plain and compressed files as bounded streams of bytes and lines.

Nothing that a file holds may exhaust the memory or the disk: a line without end is passed over
piece by piece, and a stream that grows out of all proportion to its file is stopped.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from rewarm.corpus.files import Input, open_input
from rewarm.errors import CorpusError, remedy_of
from rewarm.units import format_bytes

__all__ = ["Caps", "Line", "read_lines", "read_whole"]


@dataclass(frozen=True, slots=True)
class Caps:
    """Bounds on what is read. `ratio` and `expanded_bytes` must both be passed for a bomb."""

    line_bytes: int = 64 * 2**20
    ratio: float = 1000.0
    expanded_bytes: int = 2**30


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its number from 1, its bytes without the line feed (None: above the cap), and how
    far into the file on disk the reading is."""

    number: int
    content: bytes | None
    file_position: int


_CODECS = {".gz": "gzip", ".zst": "zstd"}


def read_lines(path: Input, caps: Caps) -> Iterator[Line]:
    """Yield the lines of a file, decompressed by its ending (.gz, .zst).

    Memory is bounded by `caps.line_bytes`. Raises CorpusError for a file that cannot be read, is
    cut short, is not what its ending says, or expands beyond the caps.
    """
    with _opened(path, caps) as (stream, raw):
        number = 0
        while line := stream.readline(caps.line_bytes + 1):
            number += 1
            content: bytes | None = line.removesuffix(b"\n")
            if len(line) > caps.line_bytes and not line.endswith(b"\n"):
                content = None
                while line and not line.endswith(b"\n"):
                    line = stream.readline(2**20)
            yield Line(number, content, raw.tell())


def read_whole(path: Input, caps: Caps, *, max_bytes: int) -> bytes | None:
    """Return the decompressed bytes of a file, None where they are more than `max_bytes`.

    Raises CorpusError as `read_lines` does.
    """
    with _opened(path, caps) as (stream, _):
        content = stream.read(max_bytes + 1)
    return content if len(content) <= max_bytes else None


@contextlib.contextmanager
def _opened(path: Input, caps: Caps) -> Iterator[tuple[io.BufferedIOBase, BinaryIO]]:
    """Open a file as a decompressed stream beside the raw one; tell what the system refuses."""
    try:
        with open_input(path) as raw:
            yield _decompressed(path, raw, caps), raw
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise CorpusError.one(str(path), what, remedy_of(error)) from error


def _decompressed(path: Input, raw: BinaryIO, caps: Caps) -> io.BufferedIOBase:
    codec = _CODECS.get(path.suffix.lower())
    if codec is None:
        return raw  # type: ignore[return-value]
    return io.BufferedReader(_Expanding(path, raw, codec, caps), 2**18)  # type: ignore[type-var]


class _Expanding(io.RawIOBase):
    """A decompressed stream that counts what it gives out against what it has read."""

    def __init__(self, path: Input, raw: BinaryIO, codec: str, caps: Caps) -> None:
        import pyarrow as pa

        super().__init__()
        self._path = path
        self._raw = raw
        self._caps = caps
        self._given = 0
        # Arrow's stream, unlike most, tells a truncated file from a finished one.
        self._stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), codec)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        data: bytes = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._given += len(data)
        caps = self._caps
        if self._given > max(caps.expanded_bytes, caps.ratio * max(self._raw.tell(), 1)):
            raise CorpusError.one(
                str(self._path),
                f"it expands to more than {caps.ratio:g} times its size (stopped at "
                f"{format_bytes(self._given)}): this is no text",
                "leave the file out; if it is genuine, store it uncompressed",
            )
        return len(data)
