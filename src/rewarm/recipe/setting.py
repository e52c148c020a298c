"""One key that a preset fills in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Setting"]


@dataclass(frozen=True, slots=True)
class Setting:
    """A dotted key of the recipe, the value that it gets, why, and where that is from."""

    key: str
    value: Any
    why: str
    source: str
