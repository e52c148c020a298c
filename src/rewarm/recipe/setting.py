"""One key that a preset fills in, and how it is written in TOML."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rewarm.errors import Problem

__all__ = ["Setting", "as_toml", "told_of_preset", "written"]

_COMMENT_WIDTH = 94


@dataclass(frozen=True, slots=True)
class Setting:
    """A dotted key of the recipe, the value that it gets, why, and where that is from."""

    key: str
    value: Any
    why: str
    source: str


def as_toml(value: object) -> str:
    """Return a value of a recipe as one would write it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {as_toml(part)}" for key, part in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(as_toml(part) for part in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float):
        return f"{value:g}".replace("e-0", "e-")
    return str(value).lower()


def written(setting: Setting) -> list[str]:
    """Return a setting as lines for the top of a recipe: its key with the reason as a comment.

    Each key stands by itself there; a list of tables takes a line for each. A long reason stands
    above its key.
    """
    because = f"{setting.why} ({_short(setting.source)})"
    value = setting.value
    if isinstance(value, list) and value and isinstance(value[0], dict):
        key = [f"{setting.key} = [", *(f"  {as_toml(part)}," for part in value), "]"]
    else:
        key = [f"{setting.key} = {as_toml(value)}"]
        if len(key[0]) + len(because) <= _COMMENT_WIDTH:
            return [f"{key[0]}  # {because}"]
    return [*(f"# {line}" for line in textwrap.wrap(because, _COMMENT_WIDTH)), *key]


def _short(source: str) -> str:
    return re.sub(r", arXiv [\d.]+", "", source)


def told_of_preset(problem: Problem, preset: str, settings: Sequence[Setting]) -> Problem:
    """Return the problem saying which preset filled in what it is about, where one did.

    `phases[0].until` comes from `phases`, and `schedule` may come from any key below it.
    """
    where = problem.where
    keys = [key for key in (setting.key for setting in settings) if _is_within(where, key)]
    if not keys and any(_is_within(setting.key, where) for setting in settings):
        keys = [f"keys of {where}"]
    if not keys or f"preset {preset!r}" in problem.what:
        return problem
    told = f"{problem.what} (preset {preset!r} fills in {', '.join(keys)})"
    return Problem(where, told, problem.fix)


def _is_within(key: str, table: str) -> bool:
    return key == table or key.startswith((f"{table}.", f"{table}["))
