"""Records read by whoever looks on: they may be missing, torn, growing, or of another kind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from rewarm.artifacts import parse_json, read_json_lines
from rewarm.records.facts import Record

__all__ = ["parsed_values", "record_or_none", "records_of", "size_and_time"]

_R = TypeVar("_R", bound=Record)


def record_or_none(path: Path, kind: type[_R]) -> _R | None:
    """Return what a JSON file holds; None where it is missing or holds no such record."""
    try:
        return kind.model_validate(parse_json(path.read_bytes()))
    except (OSError, ValueError, ValidationError):
        return None


def records_of(log: Path, kind: type[_R]) -> Iterator[_R]:
    """Yield the records of a log that parse as `kind`; a line torn by a kill does not."""
    return parsed_values(read_json_lines(log), kind)


def parsed_values(values: Iterable[object], kind: type[_R]) -> Iterator[_R]:
    """Yield the values that are records of a kind."""
    for value in values:
        with contextlib.suppress(ValidationError):
            yield kind.model_validate(value)


def size_and_time(path: Path) -> list[int]:
    """Return a file's bytes and when it was changed, ns; nothing where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]
