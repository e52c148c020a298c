"""The experiment file: what is compared, how often, and what is claimed before anything runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from rewarm.comparison.metrics import kind_of, metric_problem
from rewarm.errors import Problems, RecipeError
from rewarm.recipe.reading import check_secrets, parse_toml, problems_of, read_text
from rewarm.recipe.section import NAME, Section
from rewarm.records.comparison import Direction
from rewarm.records.comparison_folder import ComparisonFolder
from rewarm.records.margins import margin_problem

__all__ = [
    "NOISE_FLOOR",
    "ArmRecipe",
    "ContrastRecipe",
    "Experiment",
    "PrimaryRecipe",
    "RunRecipe",
    "WrittenExperiment",
    "read_experiment",
]

NOISE_FLOOR = "noise-floor"
"""Name of the control's copy."""

_MOST_SEEDS = 100


class PrimaryRecipe(Section):
    """A metric that the hypothesis is about, named beforehand."""

    metric: str = Field(min_length=1, description="by name, e.g. forgetting or held_out.new")
    expect: Direction = Field(
        description="where an arm is expected against the control: lower, higher, equal, "
        "not_higher, or not_lower"
    )
    within: float | None = Field(
        None,
        gt=0,
        description="equal, not_higher, not_lower: the margin, in the metric's unit",
    )


class ContrastRecipe(Section):
    """Two arms that are held against each other."""

    arm: str = Field(description="one of the arms")
    against: str | None = Field(None, description="another one; default: the control")
    expect: dict[str, Direction] = Field(
        default_factory=dict, description="where this pair is expected otherwise, by metric"
    )
    exploratory: bool = Field(
        False, description="told and not tested: the hypothesis does not hang on it"
    )


class ArmRecipe(Section):
    """One way to continue: the recipe with some of its keys changed."""

    description: str = Field("", description="for tables and pages")
    recipe: str | None = Field(None, description="another recipe in place of the experiment's")
    set: dict[str, Any] = Field(
        default_factory=dict,
        description="keys to change, as a recipe writes them (schedule.peak_lr = 1e-3)",
    )
    without: list[str] = Field(
        default_factory=list, description="dotted keys of the recipe to leave out"
    )
    from_scratch: bool = Field(
        False, description="weights drawn anew in the base's shape: retraining, not continuing"
    )
    budget_differs: str | None = Field(
        None, min_length=1, description="why this arm has another budget than the control"
    )


class RunRecipe(Section):
    """How the runs are carried out; may change at any time."""

    mode: Literal["sequential", "processes", "slurm", "ray"] = Field(
        "sequential", description="one after another, side by side here, or as jobs"
    )
    workers: int | None = Field(
        None, gt=0, le=10_000, description="runs at a time; default: by cores; slurm: no limit"
    )
    threads_each: int | None = Field(
        None,
        gt=0,
        le=1024,
        description="CPU threads of a run; default: the cores shared out, up to OMP_NUM_THREADS",
    )
    gpus_each: int = Field(
        0, ge=0, le=1024, description="GPUs of a run; 0: as the machine has them"
    )
    keep_checkpoints: bool = Field(
        True, description="false: a measured run's weights are deleted, its records stay"
    )
    sbatch: list[str] = Field(
        default_factory=list, description="slurm: options of each job, e.g. --partition=gpu"
    )
    launch: str | None = Field(
        None,
        min_length=1,
        description="slurm: what stands for `rewarm`, e.g. torchrun --nproc-per-node=8 -m rewarm",
    )
    address: str | None = Field(None, description="ray: of the cluster; default: this machine")

    @field_validator("sbatch")
    @classmethod
    def _options(cls, value: list[str]) -> list[str]:
        for option in value:
            if not option.startswith("--") or "\n" in option:
                raise ValueError(f"{option!r} is not an option of sbatch, such as --time=04:00:00")
            if option.replace("=", " ").split()[0] in _NOT_FOR_JOBS:
                raise ValueError(
                    f"{option!r}: one job with a task for each run is what is followed"
                )
        return value


_NOT_FOR_JOBS = frozenset({"--array", "--wait", "--test-only"})
"""What would make other tasks than one for each run, or none, or keep sbatch from answering."""


class Experiment(Section):
    """The whole file. Only name, hypothesis, recipe, seeds, primary, control and arms are asked."""

    name: str = Field(description="of the comparison and its folder")
    hypothesis: str = Field(
        min_length=1, description="what is expected and why; printed with the verdict as it stands"
    )
    recipe: str | dict[str, Any] = Field(
        description="path of the recipe that the arms change, or the recipe itself as a table"
    )
    seeds: int | list[int] = Field(description="how many (1, 2, …), or which")
    primary: list[PrimaryRecipe] = Field(
        min_length=1, description="the metrics that decide, with what is expected of each"
    )
    control: str = Field(description="the arm that the others are held against")
    arms: dict[str, ArmRecipe] = Field(min_length=2, description="by name, the control among them")
    contrasts: list[ContrastRecipe] | None = Field(
        None, min_length=1, description="default: every arm against the control"
    )
    noise_floor: bool = Field(
        False, description="also run the control again with the data in another order (A/A)"
    )
    folder: str | None = Field(None, description="default: comparisons/<name> beside this file")
    run: RunRecipe = Field(RunRecipe(), description="how the runs are carried out")

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if NAME.fullmatch(value) is None:
            raise ValueError(f"{value!r} must be letters, digits, '-', '_' or '.' (up to 64)")
        return value

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: int | list[int]) -> int | list[int]:
        listed = value if isinstance(value, list) else list(range(1, min(value, 1000) + 1))
        if not 1 <= len(listed) <= _MOST_SEEDS or len(set(listed)) != len(listed):
            raise ValueError(f"{value!r} must be 1 to {_MOST_SEEDS} seeds, each of them once")
        if not all(0 <= seed < 2**62 for seed in listed):
            raise ValueError(f"{value!r}: a seed lies in [0, 2^62)")
        return value

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds, each of which every arm runs with."""
        return (
            tuple(self.seeds) if isinstance(self.seeds, list) else tuple(range(1, self.seeds + 1))
        )

    def pairs(self) -> list[tuple[str, str, Mapping[str, Direction]]]:
        """Return the contrasts that decide: arm, what it is held against, what else is expected."""
        if self.contrasts is None:
            return [(name, self.control, {}) for name in self.arms if name != self.control]
        deciding = (contrast for contrast in self.contrasts if not contrast.exploratory)
        return [(c.arm, c.against or self.control, c.expect) for c in deciding]

    def explored(self) -> list[tuple[str, str]]:
        """Return the contrasts that are told and not tested: arm, and what it is held against."""
        contrasts = (c for c in self.contrasts or () if c.exploratory)
        return [(c.arm, c.against or self.control) for c in contrasts]


@dataclass(frozen=True, slots=True)
class WrittenExperiment:
    """An experiment and the file that it was read from."""

    experiment: Experiment
    path: Path
    sha256: str

    @property
    def folder(self) -> ComparisonFolder:
        """Where everything of the comparison is written."""
        beside = self.path.resolve().parent
        name = self.experiment.folder or f"comparisons/{self.experiment.name}"
        return ComparisonFolder(beside / name)

    @property
    def registration(self) -> Path:
        """What was claimed before the first run."""
        return self.folder.registration


def read_experiment(path: Path) -> WrittenExperiment:
    """Return the experiment of a file; raises RecipeError with everything that is wrong with it.

    Recipes that it names are not looked at here.
    """
    text = read_text(path, what="experiment", fix="check the path; docs/compare.md shows one")
    tree = parse_toml(text, str(path))
    problems = Problems()
    check_secrets(text, str(path), problems)
    experiment: Experiment | None = None
    try:
        experiment = Experiment.model_validate(tree)
    except ValidationError as error:
        problems.extend(problems_of(error, Experiment))
    for where, what, fix in _contradictions(tree):
        problems.add(where, what, fix)
    problems.raise_as(RecipeError)
    assert experiment is not None
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return WrittenExperiment(experiment, path, digest)


def _contradictions(tree: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (field, what, fix) for what fields say against each other, as far as they are there."""
    arms = tree.get("arms")
    names = list(arms) if isinstance(arms, dict) else []
    for name in names:
        if NAME.fullmatch(name) is None or len(name) > 40:
            yield (
                f"arms.{name}",
                f"{name!r} cannot be the name of an arm",
                "use letters, digits, '-', '_' or '.' (up to 40)",
            )
        if name == NOISE_FLOOR:
            yield f"arms.{name}", "the control's copy is called so", "give the arm another name"
    if names:
        yield from _unknown_arms(tree, names)
    yield from _without_effect(tree.get("run"))
    metrics = _tables(tree.get("primary"))
    contrasts = _tables(tree.get("contrasts"))
    yield from _contradictions_of_primaries(metrics, contrasts)
    if contrasts and all(contrast.get("exploratory") is True for contrast in contrasts):
        yield (
            "contrasts",
            "all of them are exploratory: none would decide on the hypothesis",
            "take `exploratory` from those that it is about",
        )
    for index, contrast in enumerate(contrasts):
        expected = contrast.get("expect")
        if expected and contrast.get("exploratory") is True:
            yield (
                f"contrasts[{index}].expect",
                "an exploratory contrast is held against no expectation",
                "leave it out, or take `exploratory` away",
            )
        for metric in expected if isinstance(expected, dict) else {}:
            if metric not in [entry.get("metric") for entry in metrics]:
                yield (
                    f"contrasts[{index}].expect.{metric}",
                    "it is not among the primary metrics",
                    "name it under [[primary]], or leave it out",
                )


def _unknown_arms(tree: Mapping[str, Any], names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    known = f"name one of: {', '.join(names)}"
    control = tree.get("control")
    if isinstance(control, str) and control not in names:
        yield "control", f"no arm is called {control!r}", known
    pairs: list[tuple[object, object]] = []
    for index, contrast in enumerate(_tables(tree.get("contrasts"))):
        for key in ("arm", "against"):
            name = contrast.get(key)
            if isinstance(name, str) and name not in names:
                yield f"contrasts[{index}].{key}", f"no arm is called {name!r}", known
        pair = (contrast.get("arm"), contrast.get("against", control))
        if pair[0] == pair[1]:
            yield f"contrasts[{index}]", "an arm is held against itself", "name two arms"
        elif pair in pairs or pair[::-1] in pairs:
            yield f"contrasts[{index}]", f"{pair[0]!r} and {pair[1]!r} meet twice", "leave one out"
        pairs.append(pair)


def _contradictions_of_primaries(
    primaries: Sequence[Mapping[str, Any]], contrasts: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, str, str]]:
    own = [contrast["expect"] for contrast in contrasts if isinstance(contrast.get("expect"), dict)]
    seen: list[str] = []
    for index, primary in enumerate(primaries):
        metric = primary.get("metric")
        expectations = [primary.get("expect")]
        if isinstance(metric, str):
            problem = metric_problem(metric.strip())
            if problem is not None:
                yield f"primary[{index}].metric", *problem
            elif _is_whole(primary.get("within"), metric.strip()):
                yield (
                    f"primary[{index}].within",
                    "no two shares of right answers differ by more than 1",
                    "give it as a share: 0.02 are two points",
                )
            if metric in seen:
                yield f"primary[{index}].metric", f"{metric!r} is named twice", "leave one out"
            seen.append(metric)
            expectations += [expected[metric] for expected in own if metric in expected]
        problem = margin_problem(expectations, given="within" in primary)
        if problem is not None:
            yield f"primary[{index}].within", *problem


def _without_effect(run: object) -> Iterator[tuple[str, str, str]]:
    if not isinstance(run, dict) or run.get("mode", "sequential") != "sequential":
        return
    workers = run.get("workers")
    if isinstance(workers, int) and workers > 1:
        yield (
            "run.workers",
            f"it is {workers}, and runs go one after another",
            'set run.mode = "processes", or leave it out',
        )


def _is_whole(within: object, metric: str) -> bool:
    """Tell whether a margin of shares lets every difference pass."""
    if not isinstance(within, int | float) or within < 1:
        return False
    return kind_of(metric).unit == "share right"


def _tables(value: object) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
