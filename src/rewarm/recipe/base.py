"""The checkpoint to continue from, and what is known of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rewarm.recipe.section import Count, Section

__all__ = ["BasePretraining", "BaseRecipe", "TokenizerRecipe"]


class BasePretraining(Section):
    """What is known of how the base was pretrained. Leave out what is not known."""

    peak_lr: float | None = Field(None, gt=0, description="highest learning rate of its schedule")
    final_lr: float | None = Field(
        None, ge=0, description="learning rate at its last step; 0 where it was decayed to nothing"
    )
    schedule: str | None = Field(None, description="e.g. cosine, linear, wsd; kept for the report")
    tokens: Count | None = Field(None, description="tokens that it was pretrained on")
    batch_tokens: Count | None = Field(None, description="tokens per optimizer step")
    sequence_length: int | None = Field(None, gt=0, description="tokens per sequence")

    @model_validator(mode="after")
    def _ordered(self) -> BasePretraining:
        if self.peak_lr is not None and self.final_lr is not None and self.final_lr > self.peak_lr:
            raise ValueError(
                f"final_lr = {self.final_lr:g} is above peak_lr = {self.peak_lr:g}: "
                "a schedule's peak is its highest rate"
            )
        return self


class BaseRecipe(Section):
    """The checkpoint to continue from."""

    path: str = Field(
        min_length=1, description="folder in Hugging Face format, or a hub id such as org/model"
    )
    revision: str | None = Field(None, description="hub branch, tag or commit")
    hub_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$",
        description="org/model that a local folder is a copy of; named in the model card",
    )
    optimizer_state: str | None = Field(
        None,
        min_length=1,
        description="file or folder with the moments of its pretraining (docs/optimizer.md); "
        "default: fresh ones",
    )
    pretraining: BasePretraining = Field(
        BasePretraining(), description="what is known of how it was pretrained"
    )


class TokenizerRecipe(Section):
    """How documents begin and end; the tokenizer itself is always the base's."""

    document_begin: Literal["auto"] | list[str] = Field(
        "auto", description="tokens before a document; auto: as the tokenizer's post-processor does"
    )
    document_end: Literal["auto"] | list[str] = Field(
        "auto", description="tokens after it; auto: as the post-processor does, else the EOS token"
    )
