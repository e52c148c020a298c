"""What is measured and saved, when, and where to."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from rewarm.errors import masked
from rewarm.recipe.section import Count, Section

__all__ = [
    "CheckpointRecipe",
    "EvaluationRecipe",
    "ForgettingRecipe",
    "HarnessRecipe",
    "TaskRecipe",
]

_TASK_NAME = re.compile(r"[^\s/\\*?\[\]]{1,200}")

_URL = re.compile(r"(?!(?:file|local)://[^/])[a-z][a-z0-9+.-]*://[^?#\n]*[^?#\n/]/*")


_URL_WITH_PASSWORD = re.compile(r"[^:]*://(?:[^/]*:[^/]*@|[^/]*:(?![0-9]+(?:/|$)))")


class TaskRecipe(Section):
    """A local task, from JSON lines."""

    path: str = Field(
        description="JSONL (.gz, .zst): question, choices, answer (index from 0); of a cloze text, "
        "target; of minimal pairs good, bad"
    )
    kind: Literal["multiple-choice", "cloze", "minimal-pairs"] = Field(
        "multiple-choice",
        description="cloze: is the target what the model would write; minimal-pairs: is the good "
        "sentence the likelier one",
    )
    normalise: Literal["bytes", "tokens", "none", "unconditional"] = Field(
        "bytes",
        description="multiple choice: log-likelihood per byte, per token, as it is, or less that "
        'of the choice after "Answer:" alone',
    )
    max_items: int | None = Field(None, gt=0, description="evaluate only the first so many")


class HarnessRecipe(Section):
    """Tasks of lm-evaluation-harness (pip install 'rewarm[tasks]')."""

    tasks: list[str] = Field(
        default_factory=list, description='names of its tasks, groups or tags, e.g. ["arc_easy"]'
    )
    include_path: str | None = Field(
        None,
        description="folder of task files (YAML) of your own; their data_files are relative to it",
    )
    num_fewshot: int | None = Field(
        None, ge=0, le=1000, description="examples before each question; default: the task's own"
    )
    max_items: int | None = Field(None, gt=0, description="only the first so many of each task")

    @field_validator("tasks")
    @classmethod
    def _tasks(cls, value: list[str]) -> list[str]:
        for name in value:
            if _TASK_NAME.fullmatch(name) is None:
                raise ValueError(f"{name!r} cannot be the name of a task")
        if len(set(value)) != len(value):
            raise ValueError("a task is named twice")
        return value


class ForgettingRecipe(Section):
    """What is done while a run goes on and an old domain is forgotten; nothing where left out."""

    action: Literal["off", "warn", "stop", "replay"] = Field(
        "off",
        description="stop: with a checkpoint, exit code 3; replay: the share of old text is raised",
    )
    above: float = Field(
        0.05, gt=0, le=100, description="rise of an old domain's bits per byte over the base's"
    )
    relative: bool = Field(False, description="`above` is a share of the base's figure instead")
    patience: int = Field(
        2, ge=1, le=1000, description="evaluations in a row with a domain above it, then it acts"
    )
    after_steps: int = Field(
        0, ge=0, description="evaluations up to this many updates do not count (the jump passes)"
    )
    add: float = Field(0.05, gt=0, le=1, description="replay: share of the blend added at a time")
    ceiling: float = Field(0.5, gt=0, le=1, description="replay: share that is never exceeded")


class EvaluationRecipe(Section):
    """What is measured, when, and on how much."""

    every_steps: int | None = Field(
        None, gt=0, description="also 0, 1, 2, 4, 8, … until this; default: a twentieth of the run"
    )
    max_bytes_per_domain: Count = Field(
        262_144, description="held-out text scored per domain (whole documents up to this)"
    )
    stride_fraction: float = Field(
        0.5, ge=0.01, le=1, description="window advance on long documents; least context = 1 - this"
    )
    matched_continuation_items: int = Field(
        0, ge=0, description="four-way continuation choices per domain (standard error 50 %/√n)"
    )
    choices_every_evaluation: bool = Field(
        False,
        description="measure matched continuation and tasks at every evaluation, not only at the "
        "first and the last",
    )
    average: bool = Field(
        True, description="with retention.ema: also measure the average of the weights"
    )
    max_answers: int = Field(1000, gt=0, description="held-out answers scored per QA source")
    answer_contrast: bool = Field(
        False,
        description="score these answers given another's question too: the difference is what the "
        "model takes from the question, as of a translation from its source",
    )
    chat: str | None = Field(
        None,
        description="JSONL (.gz, .zst) of messages, for a base with a chat template: what is kept "
        "of its chat format is measured on them; default: a few built-in turns",
    )
    tasks: dict[str, TaskRecipe] = Field(default_factory=dict, description="local tasks by name")
    harness: HarnessRecipe = Field(
        HarnessRecipe(), description="tasks of lm-evaluation-harness, measured as local ones are"
    )
    max_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="most of the run's compute that evaluation may take: it is then done less "
        "often, on less text; what becomes of it stands in the plan",
    )
    on_forgetting: ForgettingRecipe = Field(
        ForgettingRecipe(), description="what is done when old text is forgotten meanwhile"
    )


class CheckpointRecipe(Section):
    """When the state is saved and how much is kept."""

    every_steps: int | None = Field(None, gt=0, description="default: a twentieth of the run")
    keep: int = Field(2, ge=1, description="verified checkpoints that stay; the newest always does")
    keep_every_steps: int | None = Field(
        None,
        gt=0,
        description="those of steps that this divides stay for good: to branch from, or to average",
    )
    background: bool | None = Field(
        None, description="write them while training goes on; default: but for one CPU process"
    )
    mirror: str | None = Field(
        None,
        description="URL (s3://bucket/run, gs://…, file:///…) that they are copied to, and "
        "restored from where it has a newer one; credentials come from the environment",
    )
    mirror_wait_s: float = Field(
        300.0, ge=0, le=86_400, description="how long a launch ends later for the last copy's sake"
    )

    @field_validator("mirror")
    @classmethod
    def _mirror(cls, value: str | None) -> str | None:
        # A value that holds a password is not repeated.
        if value is None:
            return None
        if _URL_WITH_PASSWORD.match(value):
            raise ValueError(
                "it holds a password, and recipes are copied: set it in the environment"
            )
        if "::" in value or _URL.fullmatch(value) is None:
            raise ValueError(
                f"{masked(value)!r} is not the URL of a folder; e.g. s3://bucket/run or "
                "file:///mnt/backup/run, without a query"
            )
        return value.rstrip("/")
