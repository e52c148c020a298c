"""The recipe: a sparse TOML file that says which base, which text, which phases, which rate.

Every field has a description, a default with a reason, or is asked for. Values are frozen once
read. Nothing here knows facts about the base or the corpora: that is the plan's work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, PrivateAttr, field_validator

from rewarm.recipe.base import BaseRecipe, TokenizerRecipe
from rewarm.recipe.parameters import FreezingRecipe, ParametersRecipe
from rewarm.recipe.phases import PhaseRecipe
from rewarm.recipe.prepare import PrepareRecipe
from rewarm.recipe.records import CheckpointRecipe, EvaluationRecipe
from rewarm.recipe.retention import RetentionRecipe
from rewarm.recipe.schedule import ScheduleRecipe
from rewarm.recipe.section import NAME, Section
from rewarm.recipe.setting import Setting
from rewarm.recipe.sources import SourceRecipe
from rewarm.recipe.steps import (
    BatchRecipe,
    BudgetRecipe,
    GuardRecipe,
    HardwareRecipe,
    OptimizerRecipe,
    TrainingRecipe,
)

__all__ = ["Recipe"]


class Recipe(Section):
    """The whole recipe. Only name, base, sources and budget must be given."""

    name: str = Field(description="of the run; letters, digits, '-', '_' and '.'")
    preset: str | None = Field(
        None,
        description="a published recipe by name, under what is written here: reuse, rewarm, "
        "infinite, stability-gap, wsd, summary, or a control: naive, baseline, constant; where "
        "phases are left out, one is chosen",
    )
    shift: Literal["weak", "strong"] | None = Field(
        None, description="how far the new text is from the pretraining's: decides presets' replay"
    )
    seed: int = Field(1, ge=0, lt=2**63, description="of the data order")
    run_folder: str | None = Field(None, description="default: runs/<name> beside the recipe")
    prepared_folder: str = Field("prepared", description="token shards, shared between recipes")
    prepare: PrepareRecipe = Field(PrepareRecipe(), description="where text is prepared")
    base: BaseRecipe = Field(description="the checkpoint to continue from")
    tokenizer: TokenizerRecipe = Field(TokenizerRecipe(), description="how documents begin and end")
    sources: dict[str, SourceRecipe] = Field(min_length=1, description="text by name")
    phases: list[PhaseRecipe] = Field(
        min_length=1, description="blends, one after the other; may be left to the preset"
    )
    schedule: ScheduleRecipe = Field(ScheduleRecipe(), description="the learning rate over the run")
    budget: BudgetRecipe = Field(description="how much may be spent")
    batch: BatchRecipe = Field(BatchRecipe(), description="size of one optimizer step")
    optimizer: OptimizerRecipe = Field(OptimizerRecipe(), description="which, and its numbers")
    parameters: ParametersRecipe = Field(
        ParametersRecipe(), description="which of the base's weights train"
    )
    freezing: FreezingRecipe = Field(
        FreezingRecipe(), description="layers that stop, or begin, to train while the run goes on"
    )
    retention: RetentionRecipe = Field(
        RetentionRecipe(), description="what keeps the base's knowledge beside replay"
    )
    training: TrainingRecipe = Field(TrainingRecipe(), description="how steps are computed")
    evaluation: EvaluationRecipe = Field(
        EvaluationRecipe(), description="what is measured, when, and on how much"
    )
    checkpoints: CheckpointRecipe = Field(CheckpointRecipe(), description="when the state is saved")
    guard: GuardRecipe = Field(
        GuardRecipe(), description="what is done about a step that goes wrong"
    )
    hardware: HardwareRecipe = Field(
        HardwareRecipe(), description="for the estimates of time and cost"
    )

    _preset_settings: tuple[Setting, ...] = PrivateAttr(default=())

    @property
    def preset_settings(self) -> tuple[Setting, ...]:
        """What the preset has filled in."""
        return self._preset_settings

    def filled_in_by_preset(self, settings: Sequence[Setting]) -> Recipe:
        """Return the recipe knowing which of its keys a preset has filled in."""
        known = self.model_copy()
        known._preset_settings = tuple(settings)
        return known

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if NAME.fullmatch(value) is None:
            raise ValueError(f"{value!r} must be letters, digits, '-', '_' or '.' (up to 64)")
        return value
