"""Blends, one after the other, and where each ends."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from rewarm.recipe.schedule import LrExpression
from rewarm.recipe.section import Count, Section
from rewarm.recipe.sources import OLD_ROLES

__all__ = ["MixtureRule", "PhaseRecipe", "RoleOrOld", "Until"]

RoleOrOld = Literal["general", "quality", "qa", "replay", "new", "old"]
MixtureRule = Literal["tokens", "temperature", "unimax"]
"""How shares follow from the sources' sizes."""


def _kind_of_weights(value: Any) -> str:
    return "literal[rule]" if isinstance(value, str) else "dict[shares]"


# Without being told which is meant, pydantic complains of both.
_Weights = Annotated[
    Annotated[dict[str, float], Tag("dict[shares]")] | Annotated[MixtureRule, Tag("literal[rule]")],
    Discriminator(_kind_of_weights),
]


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
    weights: _Weights = Field(
        default_factory=dict,
        description="share of the tokens by source, scaled to sum to 1; or a rule for all sources: "
        "tokens (as they have tokens), temperature, unimax (as evenly as max_epochs allow)",
    )
    temperature: float | None = Field(
        None,
        ge=1,
        description="of that rule: shares as tokens^(1/temperature); 1 is by tokens, more is more "
        "even",
    )
    roles: dict[RoleOrOld, float] = Field(
        default_factory=dict,
        description="share by role (old: general, quality and replay together), dealt to the "
        "sources of a role by the rule in weights, by default tokens",
    )
    among: list[str] | None = Field(
        None, min_length=1, description="the sources that a rule deals to; default: all"
    )
    until: Until | None = Field(None, description="where it ends; the last phase has none")

    @property
    def rule(self) -> MixtureRule | None:
        """The rule by which sources get their shares; None where each is given its own."""
        if isinstance(self.weights, str):
            return self.weights
        return None if self.weights else "tokens"

    @model_validator(mode="after")
    def _one_kind(self) -> PhaseRecipe:
        if isinstance(self.weights, dict) and bool(self.weights) == bool(self.roles):
            raise ValueError(
                "give weights (by source, or a rule) or roles; shares by source and by role "
                "exclude each other, so one of the two"
            )
        if "old" in self.roles and self.roles.keys() & OLD_ROLES:
            named = " and ".join(sorted(self.roles.keys() & OLD_ROLES))
            raise ValueError(f"old takes in {named}; name either")
        if self.rule == "temperature" and self.temperature is None:
            raise ValueError('weights = "temperature" needs one, e.g. temperature = 3')
        if self.rule != "temperature" and self.temperature is not None:
            raise ValueError('a temperature is for weights = "temperature"')
        if self.rule is None and self.among is not None:
            raise ValueError("weights name the sources themselves; leave among out")
        return self

    @field_validator("among")
    @classmethod
    def _once(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and len(set(value)) < len(value):
            raise ValueError("a source is named twice")
        return value

    @field_validator("weights", "roles")
    @classmethod
    def _shares(cls, value: dict[str, float] | str) -> dict[str, float] | str:
        if not value or isinstance(value, str):
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
