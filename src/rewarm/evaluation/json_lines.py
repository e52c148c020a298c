"""Files of a person's own, a JSON object a line; mistakes are told by file and line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from rewarm.corpus.streams import Caps, read_lines
from rewarm.errors import CorpusError, Problem
from rewarm.units import format_bytes

__all__ = ["is_text", "read_items"]

_T = TypeVar("_T")

_CAPS = Caps()  # those of text to train on
_MAX_PROBLEMS = 5


def read_items(
    path: Path, parse: Callable[[bytes], _T], *, shape: str, max_items: int | None = None
) -> list[_T]:
    """Return what `parse` makes of each line of a JSONL file (.gz, .zst or plain).

    At most the first `max_items`; blank lines are skipped. `parse` raises ValueError saying what is
    wrong with a line, and `shape` is what to write instead. Raises CorpusError naming file and line
    of the first malformed items, for a file that cannot be read, and for one without items.
    """
    items: list[_T] = []
    problems: list[Problem] = []
    for number, line in _numbered_lines(path, shape):
        if len(items) == max_items or len(problems) == _MAX_PROBLEMS:
            break
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)  # some editors begin a file with it
        if not line.strip():
            continue
        try:
            items.append(parse(line))
        except ValueError as error:
            problems.append(Problem(f"{path}:{number}", _what(error), f"write {shape}"))
    if problems:
        raise CorpusError(problems)
    if not items:
        raise CorpusError.one(str(path), "it holds no items", f"write one a line: {shape}")
    return items


def _what(error: ValueError) -> str:
    """Return what is wrong with a line; the parser counts lines within it, which means nothing."""
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON ({error.msg} at character {error.pos + 1})"
    return str(error)


def is_text(value: object) -> bool:
    """Tell whether a value is a text that is not blank and can be written as UTF-8."""
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate, which JSON can spell
        return False
    return True


def _numbered_lines(path: Path, shape: str) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line); CorpusError for a file or line that cannot be read."""
    for line in read_lines(path, _CAPS):
        if line.content is None:
            most = format_bytes(_CAPS.line_bytes)
            what = f"the line is longer than {most}"
            raise CorpusError.one(f"{path}:{line.number}", what, f"split it: write {shape}")
        yield line.number, line.content
