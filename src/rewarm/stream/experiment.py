"""The experiment file of a stream: scenario, source, backbones, learners, memory and seeds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from rewarm.errors import PlanError, Problems, RecipeError
from rewarm.recipe.reading import check_secrets, parse_toml, problems_of, read_text
from rewarm.recipe.section import NAME, Section
from rewarm.stream.cells import PRESET, PROBED, Cell, parse_side
from rewarm.stream.contradictions import contradictions
from rewarm.stream.sections import (
    BackboneRecipe,
    ContrastRecipe,
    LearnerRecipe,
    MemoryRecipe,
    ProbeRecipe,
    ScenarioRecipe,
    SourceRecipe,
)

__all__ = ["StreamExperiment", "WrittenStream", "named_cell", "read_stream"]


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
    source: SourceRecipe = Field(description="labelled examples, or corpora")
    scenario: ScenarioRecipe = Field(ScenarioRecipe(), description="how classes or corpora come")
    memory: MemoryRecipe = Field(MemoryRecipe(), description="examples that are kept")
    recipe: dict[str, Any] = Field(
        default_factory=dict,
        description="corpora: sections of a recipe (docs/recipe.md) for how they are trained on",
    )
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

    def make_folder(self) -> None:
        """Make the folder; raises PlanError where there can be none."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"{self.folder} cannot be made ({error.strerror or error})"
            fix = "give another folder, one that can be written to"
            raise PlanError.one("folder", what, fix) from error

    @property
    def registration(self) -> Path:
        """What was claimed before the first run."""
        return self.folder / "experiment.json"

    @property
    def source_path(self) -> Path:
        """Where labelled examples are; relative paths count from the file."""
        assert self.experiment.source.path is not None
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
    for where, what, fix in contradictions(tree):
        problems.add(where, what, fix)
    problems.raise_as(RecipeError)
    assert experiment is not None
    return WrittenStream(experiment, path, hashlib.sha256(text.encode("utf-8")).hexdigest())
