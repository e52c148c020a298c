"""The sections of a stream's experiment file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from rewarm.recipe.section import Count, Section, Share
from rewarm.recipe.sources import SourceRecipe as SourceOfText
from rewarm.records.comparison import Direction
from rewarm.records.facts import Role
from rewarm.records.stream import StreamMetric
from rewarm.stream.cells import Side, parse_side

__all__ = [
    "Algorithm",
    "BackboneRecipe",
    "ContrastRecipe",
    "CorpusRecipe",
    "LearnerRecipe",
    "MemoryRecipe",
    "ProbeRecipe",
    "ScenarioRecipe",
    "SourceRecipe",
]

Algorithm = Literal[
    "fine-tune", "joint", "er", "mir", "gss", "a-gem", "lwf", "ewc++", "icarl", "gdumb", "scr"
]


class CorpusRecipe(SourceOfText):
    """One corpus of a stream of text: a source of a recipe, all of whose keys it knows."""

    role: Role = Field("new", description="what the corpora of a stream are")
    held_out: Share = Field(0.05, description="share of documents (or groups) kept for evaluation")


class SourceRecipe(Section):
    """Labelled examples, or corpora."""

    path: str | None = Field(
        None,
        min_length=1,
        description="a parquet or JSONL file (.gz, .zst or plain), or a folder of images",
    )
    kind: Literal["image", "text", "corpora"] = Field(
        description="what an example is; corpora: a language model's text, one corpus a task"
    )
    corpora: dict[str, CorpusRecipe] = Field(
        default_factory=dict, description="by name, in their order, in place of path"
    )
    item: str = Field("", description="column of the example; default: image or text")
    label: str = Field(
        "label", min_length=1, description="column of the class; a folder's name in a folder"
    )
    split: str | None = Field(
        None,
        min_length=1,
        description="column that says `test` of test examples; default: drawn by class",
    )
    test_share: float = Field(
        0.2, gt=0, lt=1, description="of each class, where no column says which are for the test"
    )
    image_size: int = Field(28, ge=8, le=1024, description="pixels of a side, images are resized")
    max_bytes: int = Field(256, ge=8, le=65_536, description="of a text that are read")
    classes: list[str] = Field(
        default_factory=list, description="beginnings of the labels to take; default: all"
    )


class ScenarioRecipe(Section):
    """How the classes, or the corpora, come."""

    tasks: int | None = Field(
        None,
        ge=2,
        le=1000,
        description="the classes are dealt into so many tasks; of corpora each is one",
    )
    order: Literal["by-seed", "given"] = Field(
        "by-seed", description="of corpora: drawn by the seed, or as they are written"
    )
    mode: Literal["online", "offline"] = Field(
        "online", description="one pass over the stream, or `epochs` passes over each task"
    )
    epochs: int = Field(5, ge=1, le=1000, description="offline: passes over each task")
    batch: int = Field(
        10, ge=1, description="examples of the stream in a step; corpora: sequences of a step"
    )
    tokens: Count | None = Field(
        None, description="corpora: trained on in each task; default: its passes over the corpus"
    )
    evaluate_every: int | None = Field(
        None, ge=1, description="also measure old tasks every so many steps; min-ACC needs it"
    )

    @property
    def num_epochs(self) -> int:
        """Passes over each task."""
        return 1 if self.mode == "online" else self.epochs

    @property
    def num_tasks(self) -> int:
        """Tasks that classes are dealt into."""
        assert self.tasks is not None  # of labelled examples it must be given
        return self.tasks


class MemoryRecipe(Section):
    """Examples, or documents, that are kept."""

    size: int = Field(1000, ge=1, description="examples; of corpora documents")
    batch: int | None = Field(
        None,
        ge=1,
        description="examples of it in a step, 10 by default; corpora: how many of a step's "
        "sequences are its, by default a quarter",
    )
    kind: Literal["reservoir", "class-balanced"] = Field(
        "reservoir", description="every example alike, or every class (corpus) alike"
    )

    @property
    def num_examples_per_step(self) -> int:
        """Examples of it in a step, of labelled ones."""
        return 10 if self.batch is None else self.batch

    def num_sequences_per_step(self, num_sequences: int) -> int:
        """Sequences of it among a step's, of corpora."""
        return max(1, num_sequences // 4) if self.batch is None else self.batch


class BackboneRecipe(Section):
    """What the stream begins from."""

    path: str | None = Field(None, min_length=1, description="folder or hub id")
    revision: str | None = Field(
        None, min_length=1, description="hub branch, tag or commit; default: its main branch"
    )
    small: Literal["cnn", "bytes"] | None = Field(
        None, description="a small architecture from scratch: cnn for images, bytes for text"
    )
    from_scratch: bool = Field(
        False, description="weights drawn anew in the shape of `path`, whatever weights it has"
    )
    lr: float | None = Field(
        None,
        gt=0,
        description="of plain SGD, by default 0.01 pre-trained and 0.1 from scratch; corpora: the "
        "schedule's peak",
    )

    def claim(self) -> dict[str, Any]:
        """Return what runs hang on. No revision is left out: older ones were made without any."""
        unsaid = {"revision"} if self.revision is None else None
        return self.model_dump(mode="json", exclude=unsaid)

    @property
    def is_pretrained(self) -> bool:
        """Whether its weights are those of somebody's training."""
        return self.path is not None and not self.from_scratch

    @property
    def learning_rate(self) -> float:
        """The rate of plain SGD (Lee et al. 2023: 0.1 from scratch, 0.01 pre-trained)."""
        return self.lr if self.lr is not None else 0.01 if self.is_pretrained else 0.1


class LearnerRecipe(Section):
    """An algorithm and what of it is not by default."""

    algorithm: Algorithm = Field(description="by name")
    second_stage_epochs: int = Field(
        0, ge=0, le=1000, description="passes over the memory after the last task; 0: no 2nd stage"
    )
    candidates: int = Field(50, ge=1, description="mir: examples whose loss is looked at")
    compared: int = Field(10, ge=1, description="gss: examples whose gradient is compared")
    temperature: float | None = Field(
        None, gt=0, description="lwf (default 2) and scr (default 0.07)"
    )
    ewc: float = Field(1.0, gt=0, description="ewc++: λ")
    fisher_decay: float = Field(0.9, gt=0, lt=1, description="ewc++: weight of what was before")
    fisher_every: int = Field(5, ge=1, description="ewc++: steps from one look to the next")
    memory_epochs: int = Field(30, ge=1, description="gdumb: passes over the memory")


class ProbeRecipe(Section):
    """A linear classifier on each backbone's frozen features, before any of the runs."""

    classes: Literal["all", "first-task"] = Field(
        "all", description="whose training examples are looked at: all look ahead of the stream"
    )
    examples_per_class: int = Field(
        20, ge=2, le=100_000, description="half of them to fit it, the others to measure it"
    )


class ContrastRecipe(Section):
    """What is held against what: a primary test, named before anything runs."""

    cell: str = Field(
        min_length=1, description="BACKBONE/LEARNER, or a gain: one such - another such"
    )
    against: str = Field(min_length=1, description="the same")
    expect: Direction = Field(
        description="where `cell` is expected: lower, higher, equal, not_higher, or not_lower"
    )
    metric: StreamMetric = Field("final", description="by name")
    within: float | None = Field(
        None,
        gt=0,
        description="equal, not_higher, not_lower: the margin",
    )

    @field_validator("cell", "against")
    @classmethod
    def _side(cls, value: str) -> str:
        parse_side(value)
        return value

    @property
    def sides(self) -> tuple[Side, Side]:
        """What is held against what."""
        return parse_side(self.cell), parse_side(self.against)
