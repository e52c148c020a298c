"""From a TOML file to sections, and from what pydantic says of it to what a person reads."""

from __future__ import annotations

import difflib
import inspect
import tomllib
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from rewarm.errors import Problem, Problems, RecipeError, holds_access_token, remedy_of

__all__ = ["check_secrets", "parse_toml", "problems_of", "read_text", "section_in"]

_MAX_BYTES = 4 * 2**20


def read_text(path: Path, *, what: str, fix: str) -> str:
    """Return the text of a TOML file; `what` it is ("recipe"), `fix` where it cannot be read.

    Raises RecipeError.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise RecipeError.one(
                str(path), f"above 4 MiB: this is not a {what}", f"give the path of a TOML {what}"
            )
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError.one(
            str(path), f"not valid UTF-8 at byte {error.start}", "save it as UTF-8"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        fix = remedy_of(error, absent=fix) if isinstance(error, OSError) else fix
        raise RecipeError.one(str(path), f"the {what} cannot be read ({reason})", fix) from error


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Return what a TOML text holds; raises RecipeError with the line that is none."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "it nests too deeply" if isinstance(error, RecursionError) else str(error)
        raise RecipeError.one(where, f"not valid TOML ({reason})", "mend that line") from error


def check_secrets(text: str, where: str, problems: Problems) -> None:
    """Note a text that holds what looks like an access token."""
    if holds_access_token(text):
        problems.add(
            where,
            "it holds what looks like an access token",
            "take it out and set it in the environment (HF_TOKEN); recipes are copied and shared",
        )


def problems_of(error: ValidationError, root: type[BaseModel]) -> Iterator[Problem]:
    """Yield what pydantic says of a `root` in words: which field, which value, what to do."""
    for details in _of_the_meant_branch(error.errors()):
        yield _as_problem(details, root)


def _of_the_meant_branch(errors: Sequence[ErrorDetails]) -> Iterator[ErrorDetails]:
    """Yield one error for each place: pydantic tells one for every branch of a union.

    Where a branch was entered (an item of a list is wrong), what the others want instead is left
    out.
    """
    places = [
        _dotted([part for part in details["loc"] if not _is_union_branch(part)])
        for details in errors
    ]
    seen: set[str] = set()
    for details, where in zip(errors, places, strict=True):
        is_entered = any(place.startswith(f"{where}[") for place in places)
        if details["type"] == "extra_forbidden" or not (where in seen or is_entered):
            yield details
        seen.add(where)


def _as_problem(details: ErrorDetails, root: type[BaseModel]) -> Problem:
    """Say one pydantic error in words: which field, which value, what to do."""
    location = [part for part in details["loc"] if not _is_union_branch(part)]
    where = _dotted(location) or root.__name__.lower()
    kind = details["type"]
    if kind == "extra_forbidden":
        return _unknown_key(location, where, root)
    if kind == "missing":
        return Problem(where, "is missing", f"add it{_description_of(location, root)}")
    message = details["msg"].removeprefix("Value error, ")
    if kind in ("model_type", "dict_type"):
        message = "must be a table"
    value = details.get("input")
    shown = "" if isinstance(value, dict | list) or kind == "value_error" else f"{value!r}: "
    return Problem(where, f"{shown}{message}", f"change it{_description_of(location, root)}")


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


def _unknown_key(location: Sequence[int | str], where: str, root: type[BaseModel]) -> Problem:
    model, _ = _place(location[:-1], root)
    names = list(model.model_fields) if model is not None else []
    near = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.5)
    fix = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(names)}"
    return Problem(where, "no such key", fix)


def _description_of(location: Sequence[int | str], root: type[BaseModel]) -> str:
    _, field = _place(location, root)
    return f" ({field.description})" if field is not None and field.description else ""


def _place(
    location: Sequence[int | str], root: type[BaseModel]
) -> tuple[type[BaseModel] | None, FieldInfo | None]:
    """Return the section that a location leads into, and the field that it ends in or within.

    An item of a list and an entry of a table lie within their field.
    """
    model: type[BaseModel] | None = root
    field: FieldInfo | None = None
    is_name = False
    for part in location:
        if is_name or isinstance(part, int) or model is None:
            is_name = False  # what a person has called a source, or an item's number
            continue
        found = model.model_fields.get(part)
        if found is None:
            return None, field
        field, model = found, section_in(found.annotation)
        is_name = _is_table_of_sections(found.annotation)
    return model, field


def _is_table_of_sections(annotation: Any) -> bool:
    """Tell whether an annotation is of sections by names that a person gives."""
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is dict:
        return section_in(parts[1]) is not None
    return any(map(_is_table_of_sections, parts))


def section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the first section named in an annotation such as `dict[str, SourceRecipe]`."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    for argument in typing.get_args(annotation):
        model = section_in(argument)
        if model is not None:
            return model
    return None
