"""What all sections of a recipe have in common."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import date, time
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from rewarm.units import parse_count

__all__ = ["NAME", "Count", "Section", "Share"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""What a run or a source may be called."""

Count = Annotated[int, BeforeValidator(parse_count), Field(gt=0)]
"""A positive whole number; `"300M"` and `"2B"` are understood."""

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
"""From 0 to below 1."""


class Section(BaseModel):
    """Base of all recipe sections: frozen, unknown keys refused, numbers finite."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True
    )

    def said(self, names: Collection[str]) -> list[str]:
        """Return which of some fields say something else than they would if they were left out.

        Not `model_fields_set`: a resolved recipe, as a run keeps it, spells out every field.
        """
        fields = type(self).model_fields
        return sorted(
            name
            for name in names
            if getattr(self, name) != fields[name].get_default(call_default_factory=True)
        )

    @field_validator("*", mode="before")
    @classmethod
    def _without_nul(cls, value: Any) -> Any:
        # No file system takes it, and what Python says then names no field.
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and "\0" in text:
                raise ValueError(f"{text!r} holds a NUL character")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_kind(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic takes true for 1 and "yes" for true: more likely a slip than meant.
        if isinstance(value, date | time):
            told = f"{value.isoformat()} is a date or a time of day, which no key takes"
            raise ValueError(f"{told}; were it text, it would stand in quotes")
        annotation = cls.model_fields[str(info.field_name)].annotation
        wants_bool = annotation is bool
        if wants_bool and not isinstance(value, bool):
            raise ValueError(f"{value!r} is neither true nor false")
        if not wants_bool and isinstance(value, bool) and not _names(annotation, value):
            raise ValueError(f"{str(value).lower()} is not what belongs here")
        return value


def _names(annotation: Any, value: bool) -> bool:
    """Tell whether an annotation names this truth value among what a field may be."""
    parts = get_args(annotation)
    return any(part is value or part is bool or _names(part, value) for part in parts)
