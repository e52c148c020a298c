"""Writes docs/recipe.md, the reference of every key of a recipe, from the schema itself."""

from __future__ import annotations

import inspect
import json
import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rewarm.recipe.schedule import LrExpression
from rewarm.recipe.schema import Recipe
from rewarm.recipe.section import Section

PAGE = Path(__file__).resolve().parents[1] / "docs" / "recipe.md"
_HEAD = """\
# The keys of a recipe

A recipe is a TOML file. `name`, `base.path`, `budget.tokens`, at least one source and at least one
phase must be given; everything else has a default. Any key can be changed on the command line:
`-o budget.tokens=10M`, `-o phases[0].weights.new=0.9`. `rewarm plan` shows what a recipe comes to.

* A *count* is a whole number; `"300M"`, `"2B"` and `300_000_000` are understood.
* A *rate* is a number, or one of `pretraining.peak`, `pretraining.final` (the base's), `peak` (this
  run's highest) and `start` (its first step's), perhaps times or divided by a number: `"peak/100"`.

This page is written by `tools/recipe_reference.py` from the schema.
"""


def page() -> str:
    """Return the reference as Markdown: a table for each section."""
    parts = [_HEAD, *_sections(Recipe, "")]
    return "\n".join(parts)


def _sections(model: type[BaseModel], where: str) -> list[str]:
    lines = [f"## {f'`[{where}]`' if where else 'At the top'}", "", _doc(model), ""]
    lines += ["| key | what | value | default |", "|---|---|---|---|"]
    inner: list[str] = []
    for name, field in model.model_fields.items():
        section = _section_in(field.annotation)
        if section is None:
            lines.append(
                f"| `{name}` | {_escape(field.description)} | {_kind(field)} | {_default(field)} |"
            )
        else:
            inside = where.strip("[]")  # a table within [[phases]] is [phases.until]
            inner += _sections(section, _place(f"{inside}.{name}" if inside else name, field))
    return [*lines, "", *inner] if len(lines) > 6 else inner


def _doc(model: type[BaseModel]) -> str:
    return inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0]


def _place(where: str, field: FieldInfo) -> str:
    """Return how a section is written in TOML: a list has its table twice in brackets."""
    origin = typing.get_origin(field.annotation)
    if origin is list:
        return f"[{where}]"
    return f"{where}.NAME" if origin is dict else where


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        return annotation
    found = (_section_in(part) for part in typing.get_args(annotation))
    return next((section for section in found if section is not None), None)


def _kind(field: FieldInfo) -> str:
    if field.annotation is int and any("parse_count" in str(part) for part in field.metadata):
        return "count"
    return _named(field.annotation)


def _named(annotation: Any) -> str:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{json.dumps(part)}`" for part in parts)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_named(part) for part in parts if part is not type(None))
    if origin is typing.Annotated:
        is_count = any("parse_count" in str(part) for part in parts[1:])
        return "count" if is_count else _named(parts[0])
    if origin is dict:
        return f"table of {_named(parts[1])}s"
    if origin is tuple and parts[-1] is not ...:
        return f"[{', '.join(map(_named, parts))}]"
    if origin in (list, tuple):
        inner = _named(parts[0])
        return f"list of {inner}s" if inner.isalpha() else f"list of {inner}"
    names = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`"}
    return "rate" if annotation is LrExpression else names[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | list):
        return f"`{json.dumps(list(value))}`"
    if isinstance(value, dict):
        return "`{}`" if not value else f"`{json.dumps(value)}`"
    if isinstance(value, int | float):
        return f"`{value:,}`".replace(",", "_")
    return f'`"{value}"`'


def _escape(text: str | None) -> str:
    assert text, "every field is described"
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
