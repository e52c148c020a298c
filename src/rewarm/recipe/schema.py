"""The recipe: a sparse TOML file that says which base, which text, which phases, which rate.

Every field has a description, a default with a reason, or is asked for. Values are frozen once
read. Nothing here knows facts about the base or the corpora: that is the plan's work.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from rewarm.errors import masked
from rewarm.recipe.parameters import FreezingRecipe, ParametersRecipe
from rewarm.recipe.retention import RetentionRecipe
from rewarm.recipe.section import Count, Section, Share
from rewarm.recipe.setting import Setting
from rewarm.records.facts import Role

__all__ = [
    "OLD_ROLES",
    "BasePretraining",
    "BaseRecipe",
    "BatchRecipe",
    "BudgetRecipe",
    "CheckpointRecipe",
    "EvaluationRecipe",
    "HardwareRecipe",
    "LrExpression",
    "OptimizerRecipe",
    "PhaseRecipe",
    "PieceRecipe",
    "Recipe",
    "RehearsalRecipe",
    "ScheduleRecipe",
    "SourceRecipe",
    "SubsetRecipe",
    "TaskRecipe",
    "TokenizerRecipe",
    "TrainingRecipe",
    "Until",
    "contradictions",
    "keys_of_other_kinds",
]

RoleOrOld = Literal["general", "quality", "qa", "replay", "new", "old"]
OLD_ROLES: frozenset[Role] = frozenset({"general", "quality", "replay"})
"""What the base was pretrained on, or is like it."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_URL = re.compile(r"(?!(?:file|local)://[^/])[a-z][a-z0-9+.-]*://[^?#\n]*[^?#\n/]/*")
_URL_WITH_PASSWORD = re.compile(r"[^:]*://(?:[^/]*:[^/]*@|[^/]*:(?![0-9]+(?:/|$)))")
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


class SubsetRecipe(Section):
    """A random part of a source that is shown in place of all of it; one of the first three."""

    share: float | None = Field(None, gt=0, lt=1, description="this share of its windows")
    tokens: Count | None = Field(None, description="about so many tokens")
    epochs: float | None = Field(
        None, gt=0, description="as much as makes the run show it so many times"
    )
    redraw: bool = Field(
        False, description="draw another part for each pass over it (a dynamic subset)"
    )

    @model_validator(mode="after")
    def _one(self) -> SubsetRecipe:
        given = [key for key in ("share", "tokens", "epochs") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of share, tokens, epochs")
        return self


_FIELDS_OF_TEXT = frozenset({"text_field", "group_field", "question_field", "answer_field"})


class RehearsalRecipe(Section):
    """Text that the base itself makes up before training (`rewarm rehearse`), in place of a path.

    For a base whose pretraining text is not public: what it has learned is what it says.
    """

    tokens: Count = Field(description="tokens to keep; sampled are more, some are dropped")
    prefixes: str = Field(
        "bos",
        min_length=1,
        description="what samples begin with: bos (nothing), the name of another source (first "
        "tokens of its training documents), or a file: .jsonl (field text), else a line each",
    )
    prefix_tokens: int = Field(16, gt=0, le=4096, description="a prefix is cut after so many")
    temperature: float = Field(
        1.0, gt=0, le=10, description="1: as the base has it; lower repeats what is most likely"
    )
    top_p: float = Field(1.0, gt=0, le=1, description="the likeliest tokens up to this probability")
    top_k: int | None = Field(None, gt=0, description="the likeliest so many tokens; default: all")
    max_tokens_per_sample: int | None = Field(
        None, gt=1, description="default: the base's positions, at most 1,024"
    )
    top_k_logits: int = Field(
        0,
        ge=0,
        le=1024,
        description="also store the base's likeliest so many tokens at each place, with their "
        "log-probabilities, for a KL loss",
    )
    seed: int = Field(1, ge=0, lt=2**63, description="of prefixes and samples")
    batch_samples: int = Field(
        32, gt=0, le=65_536, description="samples made at a time; part of what decides them"
    )
    precision: Literal["float32", "bf16"] = Field(
        "float32", description="bf16 rounds logits to 8 bits: faster and coarser on a GPU"
    )
    min_tokens: int = Field(32, gt=0, description="sampled tokens; with fewer it is dropped")
    max_repeat_share: float = Field(
        0.5, gt=0, le=1, description="dropped above this share of 4-token runs seen before in it"
    )
    min_compressed_share: float = Field(
        0.15, ge=0, lt=1, description="dropped where zlib makes less than this of its bytes"
    )
    max_similarity: float = Field(
        0.8,
        gt=0,
        le=1,
        description="dropped where it shares more than this of its 5-token runs with one kept",
    )


class SourceRecipe(Section):
    """One source of text."""

    path: str | list[str] | None = Field(
        None, description="file, folder or glob (or several), from the recipe; or give rehearse"
    )
    format: Literal["auto", "jsonl", "parquet", "text", "code", "tokens"] = Field(
        "auto",
        description="jsonl (.gz, .zst), parquet, text (a file is a document), code (a source "
        "tree), tokens (Megatron .bin/.idx, used where they lie)",
    )
    role: Role = Field(description="general | quality | qa | replay | new")
    text_field: str = Field("text", description="field or column that holds the text")
    group_field: str | None = Field(
        None, description="hold out by this field's value, so that a group is never split"
    )
    question_field: str | None = Field(None, description="role qa: field of the question")
    answer_field: str | None = Field(None, description="role qa: field of the answer")
    held_out: Share = Field(0.01, description="share of documents (or groups) kept for evaluation")
    max_epochs: float = Field(4.0, gt=0, description="how often the source may be repeated")
    max_epochs_reason: str | None = Field(None, description="why more than 4 epochs are right here")
    subset: SubsetRecipe | None = Field(None, description="show a part of it, several times over")
    order: Literal["shuffled", "stored"] = Field(
        "shuffled",
        description="stored: as the windows lie, e.g. in the order of the base's own training",
    )
    rehearse: RehearsalRecipe | None = Field(
        None, description="in place of a path: text that the base itself makes up"
    )
    licence: str | None = Field(None, description="for the ledger and the model card")

    @property
    def holds_tokens(self) -> bool:
        """Tell whether its files are token shards."""
        return self.format == "tokens" or self.rehearse is not None

    @field_validator("path")
    @classmethod
    def _some_path(cls, value: str | list[str] | None) -> str | list[str] | None:
        if value is not None and (not value or (isinstance(value, list) and not all(value))):
            raise ValueError("name at least one file, folder or glob")
        return value

    @model_validator(mode="after")
    def _from_somewhere(self) -> SourceRecipe:
        if (self.path is None) == (self.rehearse is None):
            raise ValueError("give path (text that there is) or rehearse, one of the two")
        if self.rehearse is not None and self.format not in ("auto", "tokens"):
            raise ValueError(f"what is sampled is tokens, not {self.format}; leave format out")
        if self.rehearse is not None and self.role not in OLD_ROLES:
            raise ValueError(
                f"what the base makes up it knows already: its role is replay, not {self.role}"
            )
        if self.holds_tokens:
            given = sorted(_FIELDS_OF_TEXT & self.model_fields_set)
            if given:
                raise ValueError(f"tokens have no fields: leave out {', '.join(given)}")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> SourceRecipe:
        if self.max_epochs > 4.0 and not self.max_epochs_reason:
            raise ValueError(
                f"max_epochs = {self.max_epochs:g} is above 4, where repeated text stops helping "
                "(Muennighoff et al. 2023); say why in max_epochs_reason"
            )
        if (self.question_field is None) != (self.answer_field is None):
            raise ValueError("question_field and answer_field go together")
        if self.order == "stored" and self.subset is not None and self.subset.redraw:
            raise ValueError("a source in stored order cannot be drawn anew for each pass")
        return self


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


class BudgetRecipe(Section):
    """How much may be spent."""

    tokens: Count = Field(description='tokens to train on, e.g. "300M"; never exceeded')


class BatchRecipe(Section):
    """Size of one optimizer step; how it is split over devices is the placement's."""

    tokens: Count = Field(524_288, description="tokens per optimizer step")
    sequence_length: int | None = Field(
        None, gt=1, description="tokens per sequence; default: the base's pretraining length"
    )
    mask_documents: bool = Field(
        True, description="a token attends to its own document alone, not to others in its sequence"
    )


class OptimizerRecipe(Section):
    """AdamW, as in the published recipes."""

    kind: Literal["adamw", "adamw8bit"] = Field(
        "adamw", description="adamw8bit: moments as 8-bit codes, a quarter of the memory (torchao)"
    )
    betas: tuple[float, float] = Field((0.9, 0.95), description="decay of the two moments")
    eps: float = Field(1e-8, gt=0, description="added to the root of the second moment")
    weight_decay: float = Field(0.1, ge=0, description="on matrices; norms and biases have none")
    clip_grad_norm: float = Field(1.0, gt=0, description="largest global gradient norm")

    @field_validator("betas")
    @classmethod
    def _betas(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError(f"betas = {value} must lie in [0, 1)")
        return value


class TaskRecipe(Section):
    """A local multiple-choice task."""

    path: str = Field(description="JSONL (.gz, .zst) with question, choices, answer (index from 0)")
    max_items: int | None = Field(None, gt=0, description="evaluate only the first so many")


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
    chat: str | None = Field(
        None,
        description="JSONL (.gz, .zst) of messages, for a base with a chat template: what is kept "
        "of its chat format is measured on them; default: a few built-in turns",
    )
    tasks: dict[str, TaskRecipe] = Field(
        default_factory=dict, description="local multiple-choice tasks by name"
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


class TrainingRecipe(Section):
    """How steps are computed, as far as it is a person's choice."""

    precision: Literal["auto", "float32", "bf16"] = Field(
        "auto", description="bf16: autocast over float32 weights; auto: where the device gains"
    )
    micro_batch_sequences: int | None = Field(
        None, gt=0, description="sequences per forward pass; default: what fits"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: a GPU where torch sees one"
    )
    num_threads: int | None = Field(
        None, gt=0, le=1024, description="CPU threads; default: all cores"
    )
    deterministic: bool = Field(
        False, description="bit-identical resume on a GPU too, at some cost in speed"
    )
    loss: Literal["auto", "plain", "chunked", "liger"] = Field(
        "auto",
        description="chunked, liger (its own package, a GPU): never all logits at once; auto: "
        "chunked for large vocabularies",
    )
    document_attention: Literal[
        "auto",
        "flash_attention_3",
        "flash_attention_2",
        "varlen",
        "flex_attention",
        "split",
        "mask",
    ] = Field(
        "auto",
        description="with batch.mask_documents: by which kernel; auto: the fastest that the device "
        "has; one that does not give what the mask gives is not used",
    )
    tensor_parallel: int = Field(
        1,
        ge=1,
        le=1024,
        description="many ranks: how many neighbouring ones share each block's matrices, and so "
        "the same data; 1: none do",
    )
    rank_timeout_s: float = Field(
        600.0, ge=1, le=86_400, description="many ranks: how long one waits for another in seconds"
    )


class GuardRecipe(Section):
    """What is done about a step that goes wrong."""

    non_finite: Literal["stop", "skip"] = Field(
        "stop", description="a loss or gradient that is not finite, also when the step is replayed"
    )
    spike: Literal["off", "tell", "skip", "stop"] = Field(
        "tell", description="a loss far above the last ones; skip: go back and leave its steps out"
    )
    spike_deviations: float = Field(
        10.0, ge=3, le=1e6, description="how far: in robust standard deviations above the median"
    )
    spike_history: int = Field(
        128, ge=16, le=100_000, description="accepted steps of the phase that are compared with"
    )
    skip_steps: int = Field(
        8, ge=1, le=100_000, description="steps that one spike leaves out, itself the last"
    )
    max_skips: int = Field(5, ge=0, le=10_000, description="the run stops before one more")


class HardwareRecipe(Section):
    """For the estimates of time and cost."""

    num_devices: int = Field(1, gt=0, le=1_000_000, description="accelerators that share the work")
    flops_per_second: float | None = Field(
        None, ge=1e6, le=1e21, description="sustained by one device; default: a stated guess"
    )
    price_per_gpu_hour: float | None = Field(
        None, ge=0, le=1e12, description="currency of your choice"
    )


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
    base: BaseRecipe = Field(description="the checkpoint to continue from")
    tokenizer: TokenizerRecipe = Field(TokenizerRecipe(), description="how documents begin and end")
    sources: dict[str, SourceRecipe] = Field(min_length=1, description="text by name")
    phases: list[PhaseRecipe] = Field(
        min_length=1, description="blends, one after the other; may be left to the preset"
    )
    schedule: ScheduleRecipe = Field(ScheduleRecipe(), description="the learning rate over the run")
    budget: BudgetRecipe = Field(description="how much may be spent")
    batch: BatchRecipe = Field(BatchRecipe(), description="size of one optimizer step")
    optimizer: OptimizerRecipe = Field(OptimizerRecipe(), description="AdamW's numbers")
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


def contradictions(tree: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (field, what, fix) for everything that sections of a recipe say against each other.

    `tree` is what the TOML holds: a section that is not of its form is passed over here, so that
    this can be told beside the errors of single fields.
    """
    sources = _table(tree, "sources")
    for name in sources:
        if NAME.fullmatch(name) is None:
            yield (
                f"sources.{name}",
                f"{name!r} cannot be the name of a source",
                "use letters, digits, '-', '_' or '.' (up to 64)",
            )
        yield from _contradictions_of_rehearsal(name, sources)
    for name in _table(_table(tree, "evaluation"), "tasks"):
        if name in sources:
            yield (
                f"evaluation.tasks.{name}",
                f"a source is called {name!r} too, and figures go by name",
                "give the task another name",
            )
    phases = tree.get("phases")
    if isinstance(phases, list) and all(isinstance(phase, dict) for phase in phases):
        yield from _contradictions_of_phases(phases, sources)


def _contradictions_of_rehearsal(
    name: str, sources: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    wanted = _table(_table(sources, name), "rehearse").get("prefixes")
    if isinstance(wanted, str) and "rehearse" in _table(sources, wanted):
        yield (
            f"sources.{name}.rehearse.prefixes",
            f"source {wanted!r} is made by rehearsal too",
            "take prefixes from a source of real text",
        )


def _contradictions_of_phases(
    phases: Sequence[Mapping[str, Any]], sources: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    names = [phase.get("name") for phase in phases]
    for index, phase in enumerate(phases):
        for source in _table(phase, "weights"):
            if sources and source not in sources:
                yield (
                    f"phases[{index}].weights.{source}",
                    f"no source is called {source!r}",
                    f"name one of: {', '.join(sorted(sources))}",
                )
        for role, share in _table(phase, "roles").items():
            has_it = any(
                isinstance(source, dict)
                and (
                    source.get("role") == role
                    or (role == "old" and source.get("role") in OLD_ROLES)
                )
                for source in sources.values()
            )
            if share and role in get_args(RoleOrOld) and not has_it:
                yield (
                    f"phases[{index}].roles.{role}",
                    "no source has this role",
                    "add such a source, or leave the role out",
                )
        last = index == len(phases) - 1
        if last and phase.get("until") is not None:
            yield (
                f"phases[{index}].until",
                "the last phase runs to the end of the budget",
                "leave `until` out there",
            )
        if not last and phase.get("until") is None:
            yield (
                f"phases[{index}].until",
                f"phase {names[index]!r} never ends, so {names[index + 1]!r} never begins",
                'say where it ends, e.g. until = { lr_below = "start/5" }',
            )
        if names[index] is not None and names[index] in names[:index]:
            yield (
                f"phases[{index}].name",
                f"two phases are called {names[index]!r}",
                "give each its own name",
            )


def _table(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = tree.get(key)
    return value if isinstance(value, dict) else {}
