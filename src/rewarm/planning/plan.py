"""The plan: everything that a run will do, resolved and frozen before an accelerator is touched.

Science and placement are apart. `Science` determines samples, rates and objective, and alone is
fingerprinted: a run refuses to resume under another fingerprint. `Conduct` (what is measured and
saved when, where files lie) may differ between launches. How the work is laid on a machine is the
`Placement`, rewritten at each launch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from rewarm.artifacts import canonical_json, fingerprint, read_json, write_json
from rewarm.errors import PlanError
from rewarm.order.position import Drawing, OrderPhase, OrderSpec
from rewarm.planning.amendments import Amendments
from rewarm.planning.schedule import Schedule, lr_at
from rewarm.planning.trainable import Stage
from rewarm.recipe.base import BasePretraining
from rewarm.recipe.parameters import FreezingRecipe, ParametersRecipe
from rewarm.recipe.records import CheckpointRecipe, EvaluationRecipe
from rewarm.recipe.retention import RetentionRecipe
from rewarm.recipe.steps import GuardRecipe, OptimizerRecipe, TrainingRecipe
from rewarm.records.facts import CorpusFacts, ModelFacts, OptimizerStateFacts, Record
from rewarm.records.packing import Packing, PackingFacts
from rewarm.records.probe import Checkpointing
from rewarm.records.stream import STREAM_PLAN

__all__ = [
    "Conduct",
    "Estimate",
    "Origin",
    "Placement",
    "Plan",
    "PlannedMeasure",
    "PlannedPhase",
    "PlannedPreset",
    "PlannedSource",
    "Reason",
    "Science",
    "differences",
    "load_plan",
    "save_plan",
    "science_diff",
]

PLAN_FORMAT = 5


class PlannedSource(Record):
    """One source as the order sees it: which prepared tokens, cut into how many windows."""

    name: str
    role: str
    key: str = Field(description="fingerprint of the training tokens (of the text, if estimated)")
    num_windows: int = Field(description="windows that one epoch shows")
    num_stored: int | None = Field(None, description="windows there are; None: an epoch shows all")
    redrawn: bool = Field(False, description="each epoch shows another subset")
    in_stored_order: bool = Field(False, description="windows come as they lie")
    bins: str | None = Field(
        None, description="fingerprint of the bin index; None: contiguous windows, or an estimate"
    )

    def epochs(self, num_samples: int) -> float:
        """Return how many times so many samples show each window that they are drawn from.

        Of a fixed subset that is the subset; of one that is drawn anew, on average, the source.
        """
        drawn_from = self.num_stored if self.redrawn else self.num_windows
        return num_samples / (drawn_from or self.num_windows)

    def drawing(self) -> Drawing:
        """Return how its windows are drawn."""
        return Drawing(self.num_stored, self.redrawn, self.in_stored_order)


class PlannedPhase(Record):
    """Steps [start_step, end_step) with one blend; lists follow the plan's order of sources."""

    name: str
    start_step: int
    end_step: int
    weights: tuple[int, ...] = Field(description="shares in 1/65,536, summing to 65,536")
    samples: tuple[int, ...] = Field(description="exact number of sequences of each source")


class Origin(Record):
    """The run that a branch or an extension goes on from."""

    plan: str = Field(description="fingerprint of its science")
    step: int = Field(description="updates that it had taken")


class Science(Record):
    """What determines the samples, the rates and the objective of every step."""

    format: int = PLAN_FORMAT
    seed: int
    base_weights: str = Field(description="fingerprint of the base's weights")
    optimizer_state: str | None = Field(
        None, description="fingerprint of the moments that are taken over; None: fresh ones"
    )
    tokenizer: str = Field(description="fingerprint of the tokenizer")
    sequence_length: int
    sequences_per_step: int
    mask_documents: bool = Field(description="tokens attend within their own document alone")
    packing: Packing = "contiguous"
    num_steps: int
    sources: tuple[PlannedSource, ...]
    phases: tuple[PlannedPhase, ...]
    schedule: Schedule
    optimizer: OptimizerRecipe
    num_layers: int = Field(0, description="of the base, as far as they freeze one by one")
    parameters: ParametersRecipe = ParametersRecipe()
    freezing: FreezingRecipe = FreezingRecipe()
    stages: tuple[Stage, ...] = (Stage(start_step=0),)
    retention: RetentionRecipe = Field(
        RetentionRecipe(), description="with every default resolved, text by the sources' names"
    )
    memory: tuple[PlannedSource, ...] = Field(
        (), description="text that retention reads beside the blends"
    )
    origin: Origin | None = Field(None, description="what it was branched from, if it was")
    precision: str = Field(description="auto | float32 | bf16, as the recipe asked")

    @property
    def tokens_per_step(self) -> int:
        """Input tokens of one optimizer step."""
        return self.sequence_length * self.sequences_per_step

    @property
    def num_tokens(self) -> int:
        """Input tokens of the whole run."""
        return self.tokens_per_step * self.num_steps

    def lr(self, step: int) -> float:
        """Return the learning rate of a step."""
        return lr_at(self.schedule, step)

    def stage_at(self, step: int, amendments: Amendments) -> Stage:
        """Return which parameters train at a step, layers that an amendment froze included."""
        planned = max(
            (stage for stage in self.stages if stage.start_step <= step),
            key=lambda stage: stage.start_step,
        )
        start = max([planned.start_step, *(at for at in amendments.freeze_steps() if at <= step)])
        frozen = max(planned.frozen_layers, amendments.frozen_layers(step))
        return Stage(start_step=start, frozen_layers=frozen, half=planned.half)

    def next_stage_after(self, step: int) -> int | None:
        """Return the first step after `step` at which a planned stage begins."""
        return min(
            (stage.start_step for stage in self.stages if stage.start_step > step), default=None
        )

    def phase_at(self, step: int) -> PlannedPhase:
        """Return the phase that a step belongs to."""
        for phase in self.phases:
            if phase.start_step <= step < phase.end_step:
                return phase
        raise ValueError(f"step {step} is outside of the plan [0, {self.num_steps})")

    def order(self) -> OrderSpec:
        """Return the data order that this plan fixes."""
        return OrderSpec(
            seed=self.seed,
            sequences_per_step=self.sequences_per_step,
            source_names=tuple(source.name for source in self.sources),
            num_windows=tuple(source.num_windows for source in self.sources),
            drawings=tuple(source.drawing() for source in self.sources),
            phases=tuple(
                OrderPhase(
                    start_step=phase.start_step, end_step=phase.end_step, weights=phase.weights
                )
                for phase in self.phases
            ),
        )


class Conduct(Record):
    """What may change between launches without changing what is learned."""

    recipe_folder: str = Field(".", description="what the recipe's paths are relative to")
    base_folder: str
    base_pretraining: BasePretraining
    base_name: str = Field(description="as the recipe wrote it: folder or hub id")
    base_revision: str | None
    base_hub_id: str | None = Field(None, description="where a local folder was copied from")
    corpora: dict[str, CorpusFacts]
    packing: dict[str, PackingFacts] = Field(
        default_factory=dict, description="both ways of packing by source, where they are known"
    )
    model: ModelFacts
    optimizer_state: OptimizerStateFacts | None = None
    training: TrainingRecipe = TrainingRecipe()
    guard: GuardRecipe = GuardRecipe()
    evaluation: EvaluationRecipe
    evaluation_steps: tuple[int, ...]
    checkpoints: CheckpointRecipe
    checkpoint_every: int


class Reason(Record):
    """Why a number of the plan is what it is."""

    field: str
    value: str
    reason: str
    source: str = Field("", description="paper, formula or 'recipe'")


class PlannedPreset(Record):
    """The published recipe that lies under the person's own, as far as it is in force."""

    name: str
    title: str
    not_for: str = Field(description="where it is the wrong one")
    settings: tuple[Reason, ...]


class Estimate(Record):
    """A predicted quantity with the formula that gave it."""

    name: str
    value: float
    unit: str
    formula: str


class PlannedMeasure(Record):
    """What one measure of a domain or task costs, estimated from its text."""

    domain: str
    what: str
    tokens: int = Field(description="forward positions of one evaluation; 0: not known beforehand")
    times: int = Field(description="evaluations of the run that take it")
    all_s: float | None = Field(
        None, description="seconds of all of them, by a probe; None: not measured"
    )


class Plan(Record):
    """The whole plan, as it stands in `plan.json`."""

    name: str
    fingerprint: str
    measured: bool = Field(description="False: corpus facts are estimates; train refuses it")
    science: Science
    conduct: Conduct
    preset: PlannedPreset | None = None
    reasons: tuple[Reason, ...]
    warnings: tuple[str, ...]
    estimates: tuple[Estimate, ...]
    evaluation: tuple[PlannedMeasure, ...] = ()

    @staticmethod
    def science_fingerprint(science: Science) -> str:
        """Return the fingerprint that a run's state is bound to."""
        return fingerprint(science.model_dump(mode="json"))


class Placement(Record):
    """How the plan is laid on the machine at hand; recorded, never fingerprinted."""

    device: str
    device_name: str
    world_size: int
    micro_batch_sequences: int
    autocast_dtype: str | None = Field(
        description="what blocks compute in; None: float32. Many ranks gather their weights in it"
    )
    loss: Literal["plain", "chunked", "liger"] = "plain"
    document_attention: str | None = Field(
        None,
        description="by which attention documents of a sequence are kept apart; None: they are not",
    )
    checkpointing: Checkpointing = Field(
        "none", description="what of a block is computed again in the backward pass"
    )
    compiled: bool = Field(False, description="each block is compiled")
    tensor_parallel: int = Field(1, description="ranks that share each block's matrices")
    whole_gradients: bool = Field(
        False,
        description="many ranks: a step's gradients are kept whole until its last micro-batch",
    )
    num_threads: int | None
    deterministic: bool
    provenance: dict[str, Any]


def save_plan(plan: Plan, path: Path) -> None:
    """Write a plan atomically."""
    write_json(path, plan.model_dump(mode="json"))


def load_plan(path: Path) -> Plan:
    """Read a plan and check its fingerprint; raises PlanError naming the file."""
    value = read_json(path, what="the plan", error=PlanError)
    fix = "write it again with `rewarm plan`; a plan is never edited by hand"
    if isinstance(value, dict) and value.get("kind") == STREAM_PLAN:
        raise PlanError.one(
            str(path),
            "it is of a run of `rewarm stream` over labelled examples: no such run is read alone",
            "open report.html in the stream's folder",
        )
    science = value.get("science") if isinstance(value, dict) else None
    written = science.get("format") if isinstance(science, dict) else None
    if isinstance(written, int) and written != PLAN_FORMAT:
        raise PlanError.one(
            str(path),
            f"it was written in format {written}, by another version of rewarm; this one reads "
            f"format {PLAN_FORMAT}",
            "go on with that version; or, with another name for the recipe, begin a run anew",
        )
    try:
        plan = Plan.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PlanError.one(str(path), f"{where}: {first['msg']}", fix) from error
    if plan.fingerprint != Plan.science_fingerprint(plan.science):
        raise PlanError.one(str(path), "its fingerprint does not match its contents", fix)
    return plan


def science_diff(old: Science, new: Science) -> list[str]:
    """Return what differs between two plans' science, a line per field: `seed: 1 → 2`."""
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    found: list[str] = []
    if [source.name for source in old.sources] == [source.name for source in new.sources]:
        for one, other in zip(before["sources"], after["sources"], strict=True):
            # Fingerprints: nobody reads from them what changed. Bins follow from the rest.
            one.pop("bins"), other.pop("bins")
            if one.pop("key") != other.pop("key"):
                found.append(f"the text of source {one['name']!r}, or how it is read, changed")
    return [*found, *differences(before, after, "")]


def differences(old: Any, new: Any, where: str) -> Iterator[str]:
    """Yield what differs between two JSON values, a line per field that has another value."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            inner = f"{where}.{key}" if where else key
            yield from differences(old.get(key), new.get(key), inner)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from differences(before, after, f"{where}[{index}]")
    elif old != new:
        yield f"{where}: {_short(old)} → {_short(new)}"


def _short(value: Any) -> str:
    text = canonical_json(value)
    return text if len(text) <= 60 else text[:57] + "..."
