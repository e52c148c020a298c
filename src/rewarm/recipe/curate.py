"""What is left out of a source: other languages, poor text, copies, and what is measured on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from rewarm.recipe.section import Section

__all__ = ["CurateRecipe", "Measured"]

Measured = Literal["tasks", "held-out"]


class CurateRecipe(Section):
    """What is left out of a source's documents; every drop is counted, with its reason."""

    decontaminate: list[Measured] | Literal[False] = Field(
        ["tasks", "held-out"],
        description="training documents that hold text of these are dropped: the evaluation's "
        "tasks, and held-out documents of all sources; false: none",
    )

    @field_validator("decontaminate")
    @classmethod
    def _some(cls, value: list[Measured] | Literal[False]) -> list[Measured] | Literal[False]:
        if value is not False and (not value or len(set(value)) < len(value)):
            raise ValueError('name "tasks", "held-out", or both; or write false')
        return value

    def holds_against(self, measured: Measured) -> bool:
        """Tell whether documents are held against tasks, or against held-out ones."""
        return self.decontaminate is not False and measured in self.decontaminate
