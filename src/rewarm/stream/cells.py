"""Cells of the table, backbone by learner, and what is held against what.

A side of a contrast is written as a cell, `BACKBONE/LEARNER`, or as the gain from one cell to
another, `BACKBONE/LEARNER - BACKBONE/LEARNER`. `probed` stands for the backbone that a probe picks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ["PRESET", "PROBED", "Cell", "Side", "parse_side", "side_problems"]

PRESET = "strong-simple-baseline"
"""The learner that a preset of this name adds: ER, a second stage, on the backbone probed best."""

PROBED = "probed"
"""Stands for that backbone wherever a cell is named."""


class Cell(NamedTuple):
    """One backbone with one learner."""

    backbone: str
    learner: str

    def __str__(self) -> str:
        return f"{self.backbone}/{self.learner}"


class Side(NamedTuple):
    """A cell, or what it has more than another one."""

    cell: Cell
    less: Cell | None = None

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All that are named."""
        return (self.cell,) if self.less is None else (self.cell, self.less)


def parse_side(text: str) -> Side:
    """Return the cells that are named; raises ValueError for what is none."""
    parts = text.split(" - ")
    if len(parts) > 2:
        raise ValueError(f"{text!r} must be a cell, or one cell - another")
    return Side(*map(_cell, parts))


def _cell(text: str) -> Cell:
    backbone, slash, learner = text.strip().partition("/")
    if not (backbone and slash and learner) or "/" in learner:
        raise ValueError(f"{text.strip()!r} must be BACKBONE/LEARNER")
    return Cell(backbone, learner)


def side_problems(tree: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (field, what, fix) for cells that an experiment names and does not have."""
    backbones, learners = _names(tree, "backbones"), _names(tree, "learners")
    is_preset = tree.get("preset") == PRESET
    given: list[tuple[str, object]] = [("control", tree.get("control"))]
    contrasts = tree.get("contrasts")
    for index, contrast in enumerate(contrasts if isinstance(contrasts, list) else []):
        if isinstance(contrast, dict):
            where = f"contrasts[{index}]"
            given += [(f"{where}.{key}", contrast.get(key)) for key in ("cell", "against")]
            sides = [_side_or_none(contrast.get(key)) for key in ("cell", "against")]
            if sides[0] is not None and sides[0] == sides[1]:
                yield where, "a cell is held against itself", "name two"
    for where, text in given:
        side = _side_or_none(text)
        if side is None:
            continue  # the field's own check says so
        if where == "control" and side.less is not None:
            yield where, "a gain cannot be the control", "name a cell"
        if side.cell == side.less:
            yield where, "a gain from a cell to itself is 0", "name two"
        for cell in side.cells:
            own = cell == Cell(PROBED, PRESET) or cell.learner in learners
            if cell.learner == PRESET and not (is_preset and cell.backbone == PROBED):
                fix = f'give preset = "{PRESET}", and name {PROBED}/{PRESET}'
                yield where, f"there is no {cell}", fix
            elif not own:
                yield where, f"no learner is called {cell.learner!r}", _known(learners)
            allowed = [*backbones, *([PROBED] if is_preset or "probe" in tree else [])]
            if cell.backbone not in allowed:
                yield where, f"no backbone is called {cell.backbone!r}", _known(allowed)


def _side_or_none(text: object) -> Side | None:
    try:
        return parse_side(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _names(tree: Mapping[str, Any], section: str) -> list[str]:
    found = tree.get(section)
    return list(found) if isinstance(found, dict) else []


def _known(names: list[str]) -> str:
    return f"name one of: {', '.join(names)}"
