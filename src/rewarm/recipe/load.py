"""Reads a recipe file, lays overrides over it, and tells everything that is wrong at once."""

from __future__ import annotations

import difflib
import inspect
import re
import tomllib
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rewarm.errors import Problem, Problems, RecipeError, holds_access_token, masked
from rewarm.recipe.advice import advise
from rewarm.recipe.contradictions import contradictions
from rewarm.recipe.presets import PRESETS, Declared, declared_by, laid_under, settings_of
from rewarm.recipe.schema import Recipe
from rewarm.recipe.setting import Setting, told_of_preset

__all__ = ["load_recipe", "parse_recipe"]

_INDEX = re.compile(r"\[(\d+)\]")
_MAX_RECIPE_BYTES = 4 * 2**20


def load_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Return the recipe in the TOML file `path` with `key.path=value` overrides laid over it.

    Raises RecipeError with every problem found: unreadable file, TOML syntax (with its line),
    unknown keys (with the nearest name), values out of range, contradictions between sections.
    """
    return parse_recipe(_read(path), where=str(path), overrides=overrides)


def parse_recipe(text: str, *, where: str = "recipe", overrides: Iterable[str] = ()) -> Recipe:
    """Return the recipe that a TOML text holds; see `load_recipe`."""
    try:
        tree: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "it nests too deeply" if isinstance(error, RecursionError) else str(error)
        raise RecipeError.one(where, f"not valid TOML ({reason})", "mend that line") from error
    problems = Problems()
    _check_secrets(text, where, problems)
    for override in overrides:
        _check_secrets(override, f"-o {override.partition('=')[0]}", problems)
        _apply_override(tree, override, problems)
    return _validate(tree, problems)


def _check_secrets(text: str, where: str, problems: Problems) -> None:
    if holds_access_token(text):
        problems.add(
            where,
            "it holds what looks like an access token",
            "take it out and set it in the environment (HF_TOKEN); recipes are copied and shared",
        )


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_RECIPE_BYTES:
            raise RecipeError.one(
                str(path), "above 4 MiB: this is not a recipe", "give the path of a TOML recipe"
            )
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError.one(
            str(path), f"not valid UTF-8 at byte {error.start}", "save it as UTF-8"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RecipeError.one(
            str(path),
            f"the recipe cannot be read ({reason})",
            "check the path, or write a recipe with `rewarm init`",
        ) from error


def _validate(tree: Mapping[str, Any], problems: Problems) -> Recipe:
    """Return the recipe, or raise what was noted with what is wrong in and between fields."""
    recipe: Recipe | None = None
    tree, settings = _with_preset(tree, problems)
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        problems.extend(_as_problem(details) for details in _of_the_meant_branch(error.errors()))
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


def _of_the_meant_branch(errors: Sequence[ErrorDetails]) -> Iterator[ErrorDetails]:
    """Yield one error for each place: pydantic tells one for every branch of a union."""
    seen: set[str] = set()
    for details in errors:
        where = _dotted([part for part in details["loc"] if not _is_union_branch(part)])
        if details["type"] == "extra_forbidden" or where not in seen:
            yield details
        seen.add(where)


def _apply_override(tree: dict[str, Any], override: str, problems: Problems) -> None:
    """Set one `dotted.key=value` in the tree; a value that is not TOML is taken as a string.

    A number in the key indexes a list. The value replaces what was there, tables included.
    """
    key, equals, text = override.partition("=")
    where = f"-o {masked(override)}"
    # Messages write phases[0].weights, TOML has no such form.
    path = _key_path(_INDEX.sub(r".\1", key))
    if not equals or path is None:
        problems.add(where, "an override is key=value", "e.g. -o budget.tokens=10M")
        return
    value = _toml_or_none(f"value = {text}")
    if value is not None and len(value) > 1:
        problems.add(where, "it holds more than one value", "give each its own -o")
        return
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
        target[int(last)] = text.strip() if value is None else value["value"]
    elif isinstance(target, dict):
        target[last] = text.strip() if value is None else value["value"]
    else:
        problems.add(where, f"there is nothing at {key.strip()!r}", "see the recipe for its keys")


def _key_path(key: str) -> list[str] | None:
    """Return the parts of a dotted TOML key, quotes understood."""
    tree: Any = _toml_or_none(f"{key} = 0")
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


def _as_problem(details: ErrorDetails) -> Problem:
    """Say one pydantic error in words: which field, which value, what to do."""
    location = [part for part in details["loc"] if not _is_union_branch(part)]
    where = _dotted(location) or "recipe"
    kind = details["type"]
    if kind == "extra_forbidden":
        return _unknown_key(location, where)
    if kind == "missing":
        return Problem(where, "is missing", f"add it{_description_of(location)}")
    message = details["msg"].removeprefix("Value error, ")
    value = details.get("input")
    shown = "" if isinstance(value, dict | list) or kind == "value_error" else f"{value!r}: "
    return Problem(where, f"{shown}{message}", f"change it{_description_of(location)}")


def _is_union_branch(part: int | str) -> bool:
    """Tell the names that pydantic puts into a location for the branches of a union."""
    return isinstance(part, str) and (
        part in ("str", "int", "float", "[key]")
        or part.startswith(("constrained-", "dict[", "list[", "literal["))
    )


def _dotted(location: Sequence[int | str]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _unknown_key(location: Sequence[int | str], where: str) -> Problem:
    model = _model_at(location[:-1])
    names = list(model.model_fields) if model is not None else []
    near = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.5)
    fix = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(names)}"
    return Problem(where, "no such key", fix)


def _description_of(location: Sequence[int | str]) -> str:
    model = _model_at(location[:-1])
    name = str(location[-1]) if location else ""
    field = model.model_fields.get(name) if model is not None else None
    return f" ({field.description})" if field is not None and field.description else ""


def _model_at(location: Sequence[int | str]) -> type[BaseModel] | None:
    """Return the section that a location leads into."""
    model: type[BaseModel] | None = Recipe
    for part in location:
        if model is None:
            return None
        if isinstance(part, str) and part in model.model_fields:
            inner = _model_in(model.model_fields[part].annotation)
            model = inner if inner is not None else None
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the first section named in an annotation such as `dict[str, SourceRecipe]`."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    for argument in typing.get_args(annotation):
        model = _model_in(argument)
        if model is not None:
            return model
    return None
