"""Tables as pages show them: which columns hold numbers, and which cells carry a judgement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["Cell", "Column", "Mood", "Table", "numeric", "words"]

Mood = Literal["good", "bad", "open", ""]
"""The colour of a judgement: good, bad, open (kept, not resolved), or none."""


class Column(NamedTuple):
    """A column's heading; numbers are aligned to the right."""

    name: str
    numeric: bool


class Cell(NamedTuple):
    """A cell with a judgement, or with a second line in smaller type."""

    text: str
    mood: Mood = ""
    below: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text; the first column names the row."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    note: str = ""


def words(*names: str) -> tuple[Column, ...]:
    """Return columns of text."""
    return tuple(Column(name, False) for name in names)


def numeric(*names: str) -> tuple[Column, ...]:
    """Return columns of numbers."""
    return tuple(Column(name, True) for name in names)
