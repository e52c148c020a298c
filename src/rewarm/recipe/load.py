"""Reads a recipe file, lays overrides over it, and tells everything that is wrong at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rewarm.errors import Problems, RecipeError
from rewarm.recipe.advice import advise
from rewarm.recipe.contradictions import contradictions
from rewarm.recipe.overrides import apply_override
from rewarm.recipe.presets import PRESETS, Declared, declared_by, laid_under, settings_of
from rewarm.recipe.reading import check_secrets, parse_toml, problems_of, read_text
from rewarm.recipe.schema import Recipe
from rewarm.recipe.setting import Setting, told_of_preset

__all__ = ["load_recipe", "parse_recipe", "recipe_of", "recipe_tree"]


def load_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Return the recipe in the TOML file `path` with `key.path=value` overrides laid over it.

    Raises RecipeError with every problem found: unreadable file, TOML syntax (with its line),
    unknown keys (with the nearest name), values out of range, contradictions between sections.
    """
    return parse_recipe(_text_of(path), where=str(path), overrides=overrides)


def parse_recipe(text: str, *, where: str = "recipe", overrides: Iterable[str] = ()) -> Recipe:
    """Return the recipe that a TOML text holds; see `load_recipe`."""
    tree = parse_toml(text, where)
    problems = Problems()
    check_secrets(text, where, problems)
    for override in overrides:
        check_secrets(override, f"-o {override.partition('=')[0]}", problems)
        apply_override(tree, override, problems)
    return recipe_of(tree, problems)


def recipe_tree(path: Path, problems: Problems) -> dict[str, Any]:
    """Return what a recipe file holds, not yet looked at; a secret in it is noted.

    Raises RecipeError where it cannot be read or is not TOML.
    """
    text = _text_of(path)
    check_secrets(text, str(path), problems)
    return parse_toml(text, str(path))


def _text_of(path: Path) -> str:
    return read_text(
        path, what="recipe", fix="check the path, or write a recipe with `rewarm init`"
    )


def recipe_of(tree: Mapping[str, Any], problems: Problems) -> Recipe:
    """Return the recipe that a tree is, or raise RecipeError with what was noted and with what is
    wrong in and between its fields.
    """
    recipe: Recipe | None = None
    tree, settings = _with_preset(tree, problems)
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        problems.extend(problems_of(error, Recipe))
    for field, what, fix in contradictions(tree):
        problems.add(field, what, fix)
    preset = str(tree.get("preset"))
    problems.reword(lambda problem: told_of_preset(problem, preset, settings))
    problems.raise_as(RecipeError)
    assert recipe is not None
    return recipe.filled_in_by_preset(settings)


def _with_preset(
    tree: Mapping[str, Any], problems: Problems
) -> tuple[Mapping[str, Any], tuple[Setting, ...]]:
    """Return the tree with its preset under it; one is chosen where there are no phases."""
    name = tree.get("preset")
    declared = declared_by(tree)
    if name is None and "phases" not in tree and declared.sources:
        name = advise(declared).preset
        tree = {**tree, "preset": name}
    if not isinstance(name, str):
        return (tree if name is None else _with_any_phases(tree, declared)), ()
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.5)
        known = f"known are {', '.join(PRESETS)}"
        problems.add(
            "preset",
            f"there is no preset {name!r}",
            f"did you mean {near[0]!r}? {known}" if near else known,
        )
        return _with_any_phases(tree, declared), ()
    preset = PRESETS[name]
    lacking = (preset.needs == "old" and not declared.has_old) or (
        preset.needs == "new" and "new" not in declared.roles
    )
    if lacking and "phases" not in tree:
        role = "new" if preset.needs == "new" else "general, quality or replay"
        problems.add(
            "preset",
            f"{name!r} is about text that no source has: one of role {role}",
            "add such a source, or choose another preset",
        )
        return _with_any_phases(tree, declared), ()
    return laid_under(tree, settings_of(preset, declared))


def _with_any_phases(tree: Mapping[str, Any], declared: Declared) -> Mapping[str, Any]:
    """Return the tree of a recipe whose preset is refused: phases that it would have filled in are
    told to be missing otherwise, which is no mistake of the person's.
    """
    weights = dict.fromkeys(declared.sources, 1)
    return {"phases": [{"name": "x", "weights": weights}], **tree} if weights else tree
