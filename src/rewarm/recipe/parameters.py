"""Which of the base's weights train, and when."""

from __future__ import annotations

import difflib
import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from rewarm.recipe.section import Section, Share

__all__ = ["SELECTOR_WORDS", "AdapterRecipe", "FreezingRecipe", "ParametersRecipe"]

SELECTOR_WORDS = (
    "all",
    "embeddings",
    "head",
    "norms",
    "attention",
    "mlp",
    "expanded",
    "layers.lower-half",
    "layers.upper-half",
)
_LAYERS = re.compile(r"layers\.(?:(?P<first>\d+)(?:-(?P<last>\d+))?|(?:top|bottom)-(?P<num>\d+))")


class AdapterRecipe(Section):
    """Low-rank matrices beside frozen ones, by peft; merged into the weights at export."""

    kind: Literal["lora", "rslora", "dora"] = Field(
        "lora",
        description="lora: scaled by alpha/rank; rslora: by alpha/√rank; dora: with a magnitude",
    )
    rank: int = Field(16, ge=1, le=65_536, description="of the matrices")
    alpha: float = Field(32.0, gt=0, description="what they are scaled by")
    dropout: Share = Field(0.0, description="on what goes into them")
    targets: list[str] = Field(
        ["attention", "mlp"],
        min_length=1,
        description="matrices that get one: attention, mlp, or names of modules such as q_proj",
    )


class ParametersRecipe(Section):
    """A subset of the parameters. What does not train keeps its bits, and has no moments."""

    train: list[str] = Field(
        ["all"],
        min_length=1,
        description="what trains: all, embeddings, head, norms, attention, mlp, expanded (blocks "
        "added by `rewarm expand`), layers.0-7, layers.5, layers.top-4, layers.bottom-4, "
        'layers.lower-half, layers.upper-half, or a pattern of names such as "*.q_proj.weight"',
    )
    freeze: list[str] = Field(
        default_factory=list, description="what of it does not after all; the same words"
    )
    random_half: bool = Field(
        False, description="in each phase another random half of every layer's matrices trains"
    )
    adapter: AdapterRecipe | None = Field(
        None, description="train low-rank matrices in place of the weights"
    )

    @field_validator("train", "freeze")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for selector in value:
            if selector in SELECTOR_WORDS or "*" in selector or "." in selector.strip("."):
                match = _LAYERS.fullmatch(selector)
                if selector.startswith("layers.") and selector not in SELECTOR_WORDS and not match:
                    raise ValueError(
                        f"{selector!r} names no layers; write layers.0-7, layers.5, layers.top-4, "
                        "layers.bottom-4, layers.lower-half or layers.upper-half"
                    )
                if match and match["last"] and int(match["last"]) < int(match["first"]):
                    raise ValueError(f"{selector!r} ends before it begins")
                continue
            near = difflib.get_close_matches(selector, SELECTOR_WORDS, n=1, cutoff=0.5)
            known = f"known are {', '.join(SELECTOR_WORDS)}, layers.0-7 and patterns with *"
            raise ValueError(
                f"{selector!r} selects nothing; "
                + (f"did you mean {near[0]!r}?" if near else known)
            )
        return value

    @model_validator(mode="after")
    def _adapter_alone(self) -> ParametersRecipe:
        if self.adapter is not None and (self.train != ["all"] or self.freeze or self.random_half):
            raise ValueError(
                "with an adapter the weights themselves do not train: leave train, freeze and "
                "random_half out (adapter.targets says which matrices get one)"
            )
        return self


_KEYS_OF_KIND = {
    "first": ("freezeout",),
    "scale_rate": ("freezeout",),
    "every": ("auto",),
    "all_by": ("unfreeze",),
    "keep_top": ("freezeout", "auto", "unfreeze"),
}


class FreezingRecipe(Section):
    """Layers that stop to train one after the other, lower ones first; or begin, top ones first."""

    kind: Literal["none", "freezeout", "auto", "unfreeze"] = Field(
        "none",
        description="freezeout: at set steps; auto: where gradients have settled; unfreeze: "
        "top layers begin, lower ones follow",
    )
    first: float = Field(
        0.8, gt=0, lt=1, description="freezeout: t₀; the lowest layer freezes at t₀³ of the run"
    )
    scale_rate: bool = Field(
        True, description="freezeout: each layer's rate falls to 0 where it freezes"
    )
    every: float = Field(
        0.05, gt=0, lt=1, description="auto: share of the steps between two looks at the gradients"
    )
    all_by: float = Field(
        0.5, gt=0, lt=1, description="unfreeze: share of the steps after which all layers train"
    )
    keep_top: int = Field(1, ge=1, description="so many top layers always train")

    @model_validator(mode="after")
    def _of_its_kind_only(self) -> FreezingRecipe:
        for key, kinds in _KEYS_OF_KIND.items():
            if (
                self.kind not in kinds
                and getattr(self, key) != type(self).model_fields[key].default
            ):
                raise ValueError(
                    f"{key} belongs to kind = {' or '.join(map(repr, kinds))}, and this is "
                    f"{self.kind!r}"
                )
        return self
