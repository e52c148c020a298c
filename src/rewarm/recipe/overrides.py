"""Keys of a recipe that are changed from outside: `-o key.path=value`, the arms of a comparison."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from rewarm.errors import Problems, masked

__all__ = ["apply_override", "key_path", "lay_over"]

_INDEX, _AS_PART = re.compile(r"\[(\d+)\]"), r".\1"


def apply_override(tree: dict[str, Any], override: str, problems: Problems) -> None:
    """Set one `dotted.key=value` in the tree; a value that is not TOML is taken as a string."""
    key, equals, text = override.partition("=")
    where = f"-o {masked(override)}"
    path = key_path(key)
    if not equals or path is None:
        problems.add(where, "an override is key=value", "e.g. -o budget.tokens=10M")
        return
    value = _toml_or_none(f"value = {text}")
    if value is not None and len(value) > 1:
        problems.add(where, "it holds more than one value", "give each its own -o")
        return
    if not lay_over(tree, path, text.strip() if value is None else value["value"]):
        problems.add(where, f"there is nothing at {key.strip()!r}", "see the recipe for its keys")


def lay_over(tree: dict[str, Any], path: list[str], value: Any) -> bool:
    """Set the value at a path; False where the path leads to nothing that can hold it.

    A number in the path indexes a list. The value replaces what was there, tables included.
    """
    target: Any = tree
    for part in path[:-1]:
        if isinstance(target, dict):
            target = target.setdefault(part, {})
        elif isinstance(target, list) and part.isdigit() and int(part) < len(target):
            target = target[int(part)]
        else:
            target = None
    last = path[-1]
    if isinstance(target, list) and last.isdigit() and int(last) < len(target):
        target[int(last)] = value
    elif isinstance(target, dict):
        target[last] = value
    else:
        return False
    return True


def key_path(key: str) -> list[str] | None:
    """Return the parts of a dotted TOML key, quotes understood; None where it is no key.

    Messages write `phases[0].weights`; TOML has no such form, so `phases.0.weights` is meant.
    """
    tree: Any = _toml_or_none(f"{_INDEX.sub(_AS_PART, key)} = 0")
    path: list[str] = []
    while isinstance(tree, dict) and len(tree) == 1:
        part, tree = next(iter(tree.items()))
        path.append(part)
    return path if path and tree == 0 else None


def _toml_or_none(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return None
