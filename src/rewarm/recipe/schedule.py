"""The learning rate over the run, as it is written."""

from __future__ import annotations

import math
import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rewarm.recipe.section import Count, Section, Share

__all__ = ["LrExpression", "PieceRecipe", "ScheduleRecipe", "keys_of_other_kinds"]

_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"


_LR = re.compile(
    rf"(?:(?P<number>{_NUMBER})"
    r"|(?P<name>pretraining\.peak|pretraining\.final|start|peak)"
    rf"(?:\s*(?P<operator>[*/])\s*(?P<factor>{_NUMBER}))?)"
)


class LrExpression(BaseModel):
    """A learning rate: a number, or a named rate times or divided by a number.

    Names: `pretraining.peak`, `pretraining.final` (the base's own), `peak` (the highest rate of
    this run), `start` (the rate of its first step). Examples: 3e-5, "pretraining.final",
    "peak/100".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["pretraining.peak", "pretraining.final", "start", "peak"] | None = None
    factor: float = Field(ge=0.0, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("a learning rate is a number or an expression such as 'peak/100'")
        if isinstance(value, int | float):
            return {"factor": float(value)}
        if not isinstance(value, str):
            return value
        match = _LR.fullmatch(value.strip())
        if match is None:
            raise ValueError(
                f"{value!r} is not a learning rate; write a number or pretraining.peak, "
                "pretraining.final, start or peak, perhaps with * or / and a number"
            )
        if match["number"] is not None:
            return {"factor": float(match["number"])}
        factor = float(match["factor"]) if match["factor"] else 1.0
        if match["operator"] == "/":
            if factor == 0:
                raise ValueError(f"{value!r} divides by zero")
            factor = 1.0 / factor
        return {"name": match["name"], "factor": factor}

    def __str__(self) -> str:
        if self.name is None:
            return f"{self.factor:g}"
        if self.factor == 1.0:
            return self.name
        divisor = f"{1.0 / self.factor if self.factor else math.inf:.6g}"
        if self.factor < 1.0 and divisor.isdigit():
            return f"{self.name}/{divisor}"
        return f"{self.name}*{self.factor:.6g}"


class PieceRecipe(Section):
    """A piece of a schedule of kind "pieces"."""

    shape: Literal["constant", "linear", "cosine", "1-sqrt", "inverse-sqrt", "exponential"] = Field(
        description="how the rate goes from its first to its last value"
    )
    end_lr: LrExpression | None = Field(
        None, description="rate that it reaches; a constant piece has none"
    )
    start_lr: LrExpression | None = Field(
        None, description="rate that it starts from; default: where the piece before it ended"
    )
    fraction: float | None = Field(None, gt=0, le=1, description="its share of all steps")
    tokens: Count | None = Field(None, description="its length in tokens")
    steps: int | None = Field(None, gt=0, description="its length in steps")

    @model_validator(mode="after")
    def _consistent(self) -> PieceRecipe:
        given = [key for key in ("fraction", "tokens", "steps") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both say how long the piece is; give one")
        if (self.end_lr is None) != (self.shape == "constant"):
            raise ValueError(
                "a constant piece reaches no other rate; give start_lr alone"
                if self.shape == "constant"
                else f"end_lr is missing: which rate does the {self.shape} piece reach?"
            )
        return self


_KEYS_OF_KIND = {
    "final_lr": ("cosine", "linear", "wsd", "infinite", "cyclic"),
    "decay_fraction": ("wsd",),
    "decay_shape": ("wsd", "cyclic"),
    "constant_lr": ("infinite",),
    "cooldown_shape": ("infinite",),
    "cooldown_end": ("infinite",),
    "anneal_start": ("infinite",),
    "cycles": ("cyclic",),
    "pieces": ("pieces",),
}


def keys_of_other_kinds(kind: str) -> set[str]:
    """Return the keys of a schedule that mean nothing for its kind."""
    others = {key for key, kinds in _KEYS_OF_KIND.items() if kind not in kinds}
    return others | {"warmup_fraction", "warmup_steps"} if kind == "pieces" else others


class ScheduleRecipe(Section):
    """The learning rate over the run."""

    kind: Literal["cosine", "linear", "constant", "wsd", "infinite", "cyclic", "pieces"] = Field(
        "cosine",
        description="what follows the warm-up: a decay to the end; a stable rate that decays at "
        "the end (wsd); cooldown, constant rate, anneal (infinite); a warm-up and decay again and "
        "again (cyclic); or pieces of your own",
    )
    peak_lr: LrExpression = Field(
        LrExpression.model_validate("pretraining.final"),
        description="rate from which the decay starts",
    )
    final_lr: LrExpression = Field(
        LrExpression.model_validate("peak/100"), description="rate at the end of the run"
    )
    warmup_fraction: Share = Field(
        0.0, description="share of the steps (cyclic: of each cycle) for a linear warm-up"
    )
    warmup_steps: int | None = Field(
        None, ge=0, description="the same as a number of steps, in place of warmup_fraction"
    )
    match_area: float | None = Field(
        None,
        gt=0,
        description="scale the whole curve until the sum of the rate over all steps is this",
    )
    decay_fraction: float = Field(
        0.2, gt=0, le=1, description="wsd: share of the steps, at the end, that decay"
    )
    decay_shape: Literal["linear", "cosine", "1-sqrt", "exponential"] | None = Field(
        None, description='wsd, cyclic: shape of the decay; default: "1-sqrt" and "cosine"'
    )
    constant_lr: LrExpression = Field(
        LrExpression.model_validate("peak*0.55"),
        description="infinite: rate between cooldown and anneal",
    )
    cooldown_shape: Literal["cosine", "inverse-sqrt"] = Field(
        "cosine", description="infinite: how the rate falls from peak to constant"
    )
    cooldown_end: float = Field(
        0.6, gt=0, le=1, description="infinite: share of the steps after which it is constant"
    )
    anneal_start: float = Field(
        0.85,
        gt=0,
        le=1,
        description="infinite: share of the steps after which it anneals; 1: never (branch later)",
    )
    cycles: int = Field(2, ge=1, le=1000, description="cyclic: how many, all of one length")
    pieces: list[PieceRecipe] = Field(
        default_factory=list, description="pieces: one after the other; the last takes what is left"
    )

    @model_validator(mode="after")
    def _names(self) -> ScheduleRecipe:
        if self.peak_lr.name in ("start", "peak"):
            raise ValueError(f"peak_lr = {str(self.peak_lr)!r} refers to itself")
        if self.peak_lr.factor == 0:
            raise ValueError("peak_lr is 0: nothing would be learned")
        if self.warmup_steps or self.warmup_fraction:
            for key in ("final_lr", "constant_lr"):
                expression: LrExpression = getattr(self, key)
                if expression.name == "start":
                    raise ValueError(
                        f"{key} = {str(expression)!r}: with a warm-up the start is its first and "
                        "lowest rate; write peak in place of start"
                    )
        return self

    @model_validator(mode="after")
    def _of_its_kind_only(self) -> ScheduleRecipe:
        for key, kinds in _KEYS_OF_KIND.items():
            is_default = getattr(self, key) == type(self).model_fields[key].get_default(
                call_default_factory=True
            )
            if not is_default and self.kind not in kinds:
                raise ValueError(
                    f"{key} belongs to kind = {' or '.join(map(repr, kinds))}, and this is "
                    f"{self.kind!r}"
                )
        if self.kind == "pieces" and not self.pieces:
            raise ValueError("kind = 'pieces' needs pieces")
        if self.warmup_steps is not None and self.warmup_fraction:
            raise ValueError("warmup_steps and warmup_fraction say the same; give one")
        if self.kind == "pieces" and (self.warmup_steps or self.warmup_fraction):
            raise ValueError("with pieces of your own the warm-up is one of them")
        return self

    @model_validator(mode="after")
    def _in_order(self) -> ScheduleRecipe:
        if self.kind == "wsd" and self.warmup_fraction + self.decay_fraction > 1:
            raise ValueError(
                f"warmup_fraction {self.warmup_fraction:g} and decay_fraction "
                f"{self.decay_fraction:g} are more than the whole run"
            )
        if self.kind == "infinite" and not (
            self.warmup_fraction <= self.cooldown_end <= self.anneal_start
        ):
            raise ValueError(
                f"warm-up until {self.warmup_fraction:g}, cooldown until {self.cooldown_end:g}, "
                f"anneal from {self.anneal_start:g}: they must follow each other"
            )
        return self
