"""What keeps the base's knowledge beside replay: pulls to its weights or words, an average."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from rewarm.recipe.section import Section

__all__ = [
    "AgemRecipe",
    "DistillRecipe",
    "EmaRecipe",
    "EwcRecipe",
    "L2SpRecipe",
    "RetentionRecipe",
]


class L2SpRecipe(Section):
    """A pull of every trained weight to its value in the base (Li et al. 2018)."""

    weight: float = Field(gt=0, le=1e9, description="λ of λ/2 · Σ(θ − θ*)², added to the loss")


class EwcRecipe(Section):
    """The same pull, stronger where old text depends on a weight (Kirkpatrick et al. 2017)."""

    weight: float = Field(
        1.0,
        gt=0,
        le=1e9,
        description="λ of λ/2 · ΣF(θ − θ*)²; F is per token, so that 1 weighs the distance to the "
        "base, in nats per token to second order, as the loss",
    )
    fisher_from: str = Field(
        min_length=1, description="source of old or rehearsed text that F is estimated on"
    )
    sequences: int = Field(
        256,
        gt=0,
        le=1_000_000,
        description="sequences of it; the error of F falls as one over the root of their number",
    )


class DistillRecipe(Section):
    """Divergence (KL) from what the base says; on new text, learning without forgetting."""

    weight: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="w of w · T² · KL(base ‖ model) per token, beside the loss",
    )
    on: Literal["new", "replay", "all"] | list[str] = Field(
        "new",
        description="text on which it acts: new (roles new and qa), replay (general, quality, "
        "replay), all, or a list of sources",
    )
    temperature: float | None = Field(
        None,
        ge=0.01,
        le=100,
        description="T, by which both distributions are flattened; default: 2 on new text, else 1",
    )
    teacher: Literal["live", "stored"] = Field(
        "live",
        description="live: the base is a second model in memory; stored: its likeliest tokens, as "
        "`rewarm rehearse` stores them (top_k_logits)",
    )
    replaces_loss: bool = Field(
        False, description="on this text it stands in place of the next-token loss"
    )

    @field_validator("on")
    @classmethod
    def _some(cls, value: str | list[str]) -> str | list[str]:
        if not value:
            raise ValueError("name at least one source, or new, replay or all")
        return value


class AgemRecipe(Section):
    """Steps that would raise the loss on old text are turned aside (Chaudhry et al. 2019)."""

    memory: list[str] = Field(
        min_length=1, description="sources of old or rehearsed text, drawn from in equal shares"
    )
    sequences_per_step: int | None = Field(
        None, gt=0, le=1_000_000, description="of the memory; default: as many as a step has"
    )


class EmaRecipe(Section):
    """A running average of the weights, kept, measured and exported beside them."""

    decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="the average keeps this share of itself at each step, about 1/(1 − decay) "
        "steps; default: a tenth of the run",
    )


class RetentionRecipe(Section):
    """What holds on to the base while new text is learned (docs/recipes/retention.md)."""

    l2sp: L2SpRecipe | None = Field(None, description="a pull to the base's weights")
    ewc: EwcRecipe | None = Field(None, description="a pull that knows which weights matter")
    distill: DistillRecipe | None = Field(
        None, description="a pull to what the base says of a text"
    )
    agem: AgemRecipe | None = Field(
        None, description="steps that would raise the loss on old text are turned aside"
    )
    ema: EmaRecipe | None = Field(
        None, description="a running average of the weights, measured and exported beside them"
    )
