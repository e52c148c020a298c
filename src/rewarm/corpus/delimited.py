"""Reads csv and tsv files as records, in bounded memory, whatever their quotes do."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rewarm.corpus.files import Input
from rewarm.corpus.streams import Caps, Line, read_lines
from rewarm.errors import CorpusError
from rewarm.recipe.sources import SourceRecipe

__all__ = ["Row", "read_delimited"]


@dataclass(frozen=True, slots=True)
class Row:
    """One record: the number of the line that it begins in, its fields by column, or the reason why
    it is rejected with what stands there, and how far into the file on disk the reading is."""

    number: int
    value: dict[str, Any] | str
    content: str
    file_position: int


class _TooLongError(Exception):
    """A record is above the cap."""


class _Lines:
    """The lines of a file as text, for csv.reader; what a record may hold in all is capped.

    No generator: after an exception csv.reader must be able to go on with the line that follows.
    """

    def __init__(self, path: Input, caps: Caps) -> None:
        self._lines = read_lines(path, caps)
        self._caps = caps
        self._is_first = True
        self.number = 0
        self.file_position = 0
        self.first_of_record = 0
        self.content = ""
        self._size = 0

    def begin_record(self) -> None:
        self._size = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line: Line = next(self._lines)
        self.number, self.file_position = line.number, line.file_position
        if not self._size:
            self.first_of_record, self.content = line.number, ""
        if line.content is None:
            self._size += 1
            raise _TooLongError
        self._size += len(line.content) + 1
        if self._size > self._caps.line_bytes + 1:
            raise _TooLongError
        content = line.content
        if self._is_first:
            content, self._is_first = content.removeprefix(b"\xef\xbb\xbf"), False
        # What is no UTF-8 goes on as lone surrogates and rejects the record that it stands in.
        text = content.decode("utf-8", "surrogateescape") + "\n"
        self.content = self.content or text[:500]
        return text


def read_delimited(
    path: Input, kind: str, source: SourceRecipe, caps: Caps, wanted: list[str]
) -> Iterator[Row]:
    """Yield the records of a csv or tsv file, decompressed by its ending.

    The first line names the columns unless the recipe does; a byte-order mark before it is taken
    off, as spreadsheets put one there. A record with fewer or more fields than there are columns,
    with quotes that cannot be, or above `caps.line_bytes` in all, is rejected. Raises CorpusError
    for a file that cannot be read, or without one of the `wanted` columns.
    """
    options = source.csv
    csv.field_size_limit(caps.line_bytes)
    lines = _Lines(path, caps)
    reader = csv.reader(
        lines,
        delimiter=options.delimiter or ("\t" if kind == "tsv" else ","),
        quoting=csv.QUOTE_MINIMAL if options.quoted else csv.QUOTE_NONE,
        strict=True,
    )
    columns = None if options.columns is None else _checked(path, options.columns, wanted)
    while True:
        lines.begin_record()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except (_TooLongError, csv.Error) as error:
            yield Row(lines.first_of_record, _reason(error), lines.content, lines.file_position)
            continue
        if columns is None:
            columns = _checked(path, [name.strip() for name in fields], wanted)
            continue
        if fields:  # a blank line has none
            yield Row(
                lines.first_of_record,
                _record(fields, columns),
                lines.content,
                lines.file_position,
            )


def _reason(error: Exception) -> str:
    if isinstance(error, _TooLongError) or "field larger" in str(error):
        return "line_too_long"
    return "malformed_csv"


def _checked(path: Input, columns: list[str], wanted: list[str]) -> list[str]:
    """Return the names of a file's columns; raises CorpusError where they do not serve."""
    missing = [name for name in wanted if name not in columns]
    doubled = sorted({name for name in wanted if columns.count(name) > 1})
    if missing or doubled:
        what = f"no column {missing[0]!r}" if missing else f"several columns {doubled[0]!r}"
        raise CorpusError.one(
            str(path),
            f"it has {what}; its columns: {', '.join(columns)[:200]!a}",
            "name one of its columns in the source; where its first line does not name them, list "
            "them as csv.columns; csv.delimiter says what stands between",
        )
    return columns


def _record(fields: list[str], columns: list[str]) -> dict[str, Any] | str:
    if len(fields) != len(columns):
        return "wrong_number_of_fields"
    try:
        "".join(fields).encode("utf-8")
    except UnicodeEncodeError:
        return "invalid_utf8"
    return dict(zip(columns, fields, strict=True))
