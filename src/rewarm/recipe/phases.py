"""Blends, one after the other, and where each ends."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, field_validator, model_validator

from rewarm.recipe.schedule import LrExpression
from rewarm.recipe.section import Count, Section
from rewarm.recipe.sources import OLD_ROLES

__all__ = ["PhaseRecipe", "RoleOrOld", "Until"]

RoleOrOld = Literal["general", "quality", "qa", "replay", "new", "old"]


class Until(Section):
    """Where a phase ends; exactly one of the fields."""

    lr_below: LrExpression | None = Field(
        None, description="at the first step after the peak whose rate is below this"
    )
    fraction: float | None = Field(None, gt=0, lt=1, description="after this fraction of all steps")
    tokens: Count | None = Field(None, description="after this many tokens of the whole run")
    step: int | None = Field(None, gt=0, description="before this step (0-based) of the run")

    @model_validator(mode="after")
    def _one(self) -> Until:
        names = ("lr_below", "fraction", "tokens", "step")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(names)}")
        return self


class PhaseRecipe(Section):
    """A stretch of the run with one blend."""

    name: str = Field(min_length=1, description="shown in plan and report")
    weights: dict[str, float] = Field(
        default_factory=dict, description="share of the tokens by source; scaled to sum to 1"
    )
    roles: dict[RoleOrOld, float] = Field(
        default_factory=dict,
        description="in place of weights: share by role (old: general, quality and replay "
        "together), dealt to the sources of a role by their tokens",
    )
    until: Until | None = Field(None, description="where it ends; the last phase has none")

    @model_validator(mode="after")
    def _one_kind(self) -> PhaseRecipe:
        if bool(self.weights) == bool(self.roles):
            raise ValueError("give weights (by source) or roles, one of the two")
        if "old" in self.roles and self.roles.keys() & OLD_ROLES:
            named = " and ".join(sorted(self.roles.keys() & OLD_ROLES))
            raise ValueError(f"old takes in {named}; name either")
        return self

    @field_validator("weights", "roles")
    @classmethod
    def _weights(cls, value: dict[str, float]) -> dict[str, float]:
        if not value:
            return value
        for name, weight in value.items():
            if not math.isfinite(weight) or weight < 0:
                raise ValueError(f"the weight of {name!r} is {weight}; it must be 0 or more")
        total = sum(value.values())
        if not math.isfinite(total):
            raise ValueError("the weights sum to more than a number can hold; scale them down")
        if total <= 0:
            raise ValueError("all weights are zero; at least one source must have a share")
        for name, weight in value.items():
            if 0 < weight / total < 1 / 65_536:
                raise ValueError(
                    f"the share of {name!r} is {weight / total:.3g}, below 1/65,536, "
                    "the finest that the blend deals out; raise it or leave the source out"
                )
        return value
