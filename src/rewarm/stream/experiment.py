"""The experiment file of a stream: scenario, source, backbones, learners, memory and seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator

from rewarm.errors import Problems, RecipeError
from rewarm.recipe.reading import check_secrets, parse_toml, problems_of, read_text
from rewarm.recipe.section import NAME, Section
from rewarm.records.comparison import Direction
from rewarm.records.stream import StreamMetric
from rewarm.stream.cells import PRESET, PROBED, Cell, Side, parse_side, side_problems

__all__ = [
    "Algorithm",
    "BackboneRecipe",
    "ContrastRecipe",
    "LearnerRecipe",
    "MemoryRecipe",
    "ProbeRecipe",
    "ScenarioRecipe",
    "SourceRecipe",
    "StreamExperiment",
    "WrittenStream",
    "read_stream",
]

Algorithm = Literal[
    "fine-tune", "joint", "er", "mir", "gss", "a-gem", "lwf", "ewc++", "icarl", "gdumb", "scr"
]


class SourceRecipe(Section):
    """Labelled examples."""

    path: str = Field(min_length=1, description="a parquet or JSONL file, or a folder of images")
    kind: Literal["image", "text"] = Field(description="what an example is")
    item: str = Field("", description="column of the example; default: image or text")
    label: str = Field("label", description="column of the class; a folder's name in a folder")
    split: str | None = Field(
        None, description="column that says `test` of test examples; default: drawn by class"
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
    """How the classes come."""

    tasks: int = Field(ge=2, le=1000, description="the classes are dealt into so many tasks")
    mode: Literal["online", "offline"] = Field(
        "online", description="one pass over the stream, or `epochs` passes over each task"
    )
    epochs: int = Field(5, ge=1, le=1000, description="offline: passes over each task")
    batch: int = Field(10, ge=1, description="examples of the stream in a step")
    evaluate_every: int | None = Field(
        None, ge=1, description="also measure old tasks every so many steps; min-ACC needs it"
    )

    @property
    def num_epochs(self) -> int:
        """Passes over each task."""
        return 1 if self.mode == "online" else self.epochs


class MemoryRecipe(Section):
    """Examples that are kept."""

    size: int = Field(1000, ge=1, description="examples")
    batch: int = Field(10, ge=1, description="examples of it in a step")
    kind: Literal["reservoir", "class-balanced"] = Field(
        "reservoir", description="every example alike, or every class alike"
    )


class BackboneRecipe(Section):
    """What the stream begins from."""

    path: str | None = Field(None, min_length=1, description="folder or hub id")
    small: Literal["cnn", "bytes"] | None = Field(
        None, description="a small architecture from scratch: cnn for images, bytes for text"
    )
    from_scratch: bool = Field(
        False, description="weights drawn anew in the shape of `path`, whatever weights it has"
    )
    lr: float | None = Field(
        None, gt=0, description="of plain SGD; default: 0.01 pre-trained, 0.1 from scratch"
    )

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
    ewc: float = Field(100.0, gt=0, description="ewc++: λ")
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
    expect: Direction = Field(description="where `cell` is expected: lower, higher, or equal")
    metric: StreamMetric = Field("final", description="by name")
    within: float | None = Field(
        None, gt=0, description="equal: the difference that still counts as equal"
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


class StreamExperiment(Section):
    """The whole file: every backbone with every learner, each with every seed."""

    name: str = Field(description="of the experiment and its folder")
    hypothesis: str = Field(
        "", description="what is expected and why; printed with the verdict as it stands"
    )
    preset: Literal["strong-simple-baseline"] | None = Field(
        None, description="adds ER with a second stage on the backbone that a probe finds best"
    )
    probe: ProbeRecipe | None = Field(
        None, description="a linear probe of every backbone; default: where a preset asks for it"
    )
    control: str | None = Field(
        None, description="BACKBONE/LEARNER that all are held against; default: the first of each"
    )
    contrasts: list[ContrastRecipe] = Field(
        default_factory=list, description="tests that decide; default: every cell and the control"
    )
    source: SourceRecipe = Field(description="labelled examples")
    scenario: ScenarioRecipe = Field(description="how the classes come")
    memory: MemoryRecipe = Field(MemoryRecipe(), description="examples that are kept")
    backbones: dict[str, BackboneRecipe] = Field(min_length=1, description="by name")
    learners: dict[str, LearnerRecipe] = Field(default_factory=dict, description="by name")
    seeds: int = Field(3, ge=1, le=100, description="how many: 1, 2, …")
    folder: str | None = Field(None, description="default: streams/<name> beside this file")
    checkpoint_every_s: float = Field(
        60.0, ge=0, le=86_400, description="seconds from one checkpoint of a run to its next"
    )

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if NAME.fullmatch(value) is None:
            raise ValueError(f"{value!r} must be letters, digits, '-', '_' or '.' (up to 64)")
        return value

    @field_validator("control")
    @classmethod
    def _control(cls, value: str | None) -> str | None:
        if value is not None:
            parse_side(value)
        return value

    @property
    def probed(self) -> ProbeRecipe | None:
        """How backbones are probed; None: they are not."""
        return self.probe or (ProbeRecipe() if self.preset is not None else None)

    def learner(self, name: str) -> LearnerRecipe:
        """Return a learner by its name, the preset's included."""
        return PRESET_LEARNER if name == PRESET else self.learners[name]

    def cells(self, picked: str | None) -> list[Cell]:
        """Return all cells; `picked` is the backbone that the probe found best."""
        found = [Cell(backbone, name) for backbone in self.backbones for name in self.learners]
        if self.preset is not None and picked is not None:
            found.append(Cell(picked, PRESET))
        return found

    def control_cell(self, picked: str | None) -> Cell:
        """Return the cell that all others are held against."""
        if self.control is None:
            return self.cells(picked)[0]
        return named_cell(parse_side(self.control).cell, picked)


def named_cell(cell: Cell, picked: str | None) -> Cell:
    """Return the cell that is meant, where `probed` stands for a backbone."""
    assert cell.backbone != PROBED or picked is not None
    return Cell(picked or "", cell.learner) if cell.backbone == PROBED else cell


PRESET_LEARNER = LearnerRecipe(algorithm="er", second_stage_epochs=10)
"""What stands behind the preset's name (Lee et al. 2023: ER, two stages)."""


@dataclass(frozen=True, slots=True)
class WrittenStream:
    """An experiment and the file that it was read from."""

    experiment: StreamExperiment
    path: Path
    sha256: str

    @property
    def folder(self) -> Path:
        """Where everything of the experiment is written."""
        beside = self.path.resolve().parent
        return beside / (self.experiment.folder or f"streams/{self.experiment.name}")

    @property
    def registration(self) -> Path:
        """What was claimed before the first run."""
        return self.folder / "experiment.json"

    @property
    def source_path(self) -> Path:
        """Where the examples are; relative paths count from the file."""
        return self.path.resolve().parent / self.experiment.source.path


def read_stream(path: Path) -> WrittenStream:
    """Return the experiment of a file; raises RecipeError with everything that is wrong with it."""
    text = read_text(path, what="experiment", fix="check the path; docs/stream.md shows one")
    tree = parse_toml(text, str(path))
    problems = Problems()
    check_secrets(text, str(path), problems)
    experiment: StreamExperiment | None = None
    try:
        experiment = StreamExperiment.model_validate(tree)
    except ValidationError as error:
        problems.extend(problems_of(error, StreamExperiment))
    for where, what, fix in _contradictions(tree):
        problems.add(where, what, fix)
    problems.raise_as(RecipeError)
    assert experiment is not None
    return WrittenStream(experiment, path, hashlib.sha256(text.encode("utf-8")).hexdigest())


def _contradictions(tree: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (field, what, fix) for what fields say against each other, as far as they are there."""
    for section in ("backbones", "learners"):
        for name in _tables(tree.get(section)):
            if NAME.fullmatch(name) is None:
                fix = "use letters, digits, '-', '_' or '.' (up to 64)"
                yield f"{section}.{name}", f"{name!r} cannot be a name", fix
            if name in (PRESET, PROBED):
                yield f"{section}.{name}", "the name is taken", "give it another one"
    if not _tables(tree.get("learners")) and "preset" not in tree:
        fix = f"describe one under [learners.NAME], or give preset = {PRESET!r}"
        yield "learners", "there is none", fix
    yield from side_problems(tree)
    contrasts = tree.get("contrasts")
    for index, contrast in enumerate(contrasts if isinstance(contrasts, list) else []):
        if isinstance(contrast, dict) and contrast.get("expect") in ("lower", "higher", "equal"):
            yield from _of_equality(f"contrasts[{index}].within", contrast)
    source = tree.get("source")
    kind = source.get("kind") if isinstance(source, dict) else None
    for name, backbone in _tables(tree.get("backbones")).items():
        where = f"backbones.{name}"
        if ("path" in backbone) == ("small" in backbone):
            yield where, "one of path and small is needed, and not both", "give one of them"
        if "small" in backbone and "from_scratch" in backbone:
            yield f"{where}.from_scratch", "small ones always begin from scratch", "leave it out"
        wanted = {"cnn": "image", "bytes": "text"}.get(str(backbone.get("small")))
        if wanted is not None and kind in ("image", "text") and wanted != kind:
            what = f"{backbone['small']!r} reads {wanted}s, and the source holds {kind}s"
            yield f"{where}.small", what, "name the other small architecture"
    for name, learner in _tables(tree.get("learners")).items():
        algorithm = learner.get("algorithm")
        without = algorithm in get_args(Algorithm) and algorithm not in ("lwf", "scr")
        if without and "temperature" in learner:
            yield f"learners.{name}.temperature", f"{algorithm} has none", "leave it out"


def _of_equality(where: str, contrast: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    is_equal = contrast["expect"] == "equal"
    if is_equal and "within" not in contrast:
        fix = "say which difference still counts as equal, e.g. within = 0.02"
        yield where, "is missing: nothing is equal to the last digit", fix
    if not is_equal and "within" in contrast:
        what = f"it has no meaning with expect = {contrast['expect']!r}"
        yield where, what, 'leave it out, or expect "equal"'


def _tables(value: object) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(value, dict):
        return {}
    return {name: entry for name, entry in value.items() if isinstance(entry, dict)}
