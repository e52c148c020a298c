"""From an experiment over corpora to the recipes of its runs: each is a run as any other.

Tasks are the phases of one run. In every task all learners take the same steps over the same number
of tokens: what comes from the memory takes the stream's place (compute-equivalent replay, Ibrahim
et al. 2024). `joint` has a run for every row of its matrix, on all corpora so far at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from rewarm.errors import Problem, Problems, UserError
from rewarm.recipe.load import recipe_of
from rewarm.recipe.schema import Recipe
from rewarm.stream.cells import Cell
from rewarm.stream.corpora_problems import REPLAYS
from rewarm.stream.experiment import StreamExperiment
from rewarm.stream.scenario import deal_classes

__all__ = [
    "Course",
    "Tasks",
    "as_experiment",
    "courses_of",
    "draft",
    "memory_name",
    "order_of",
    "replays",
]

_WARMUP, _COOLDOWN_END, _ANNEAL = 0.01, 0.6, 0.15
"""Ibrahim et al. 2024, of one data set: here of the first task, and the anneal of the last."""
_OFTEN = "a bounded memory is there to be repeated"
# Its documents went through their corpus's curation.
_CURATED = {"decontaminate": False}


def order_of(experiment: StreamExperiment, seed: int) -> tuple[str, ...]:
    """Return the corpora by task."""
    names = tuple(experiment.source.corpora)
    if experiment.scenario.order == "given":
        return names
    return tuple(names[number] for (number,) in deal_classes(len(names), len(names), seed))


def memory_name(task: int) -> str:
    """Return what the source is called that is replayed in a task, counted from 0."""
    return f"memory-{task + 1}"


@dataclass(frozen=True, slots=True)
class Tasks:
    """The tasks of one seed: their corpora and optimizer steps, and tokens of a sequence."""

    corpora: tuple[str, ...]
    num_steps: tuple[int, ...]
    sequence_length: int

    @property
    def ends(self) -> tuple[int, ...]:
        """The step at which each task is over."""
        return tuple(accumulate(self.num_steps))

    def first(self, count: int) -> Tasks:
        """Return the first tasks alone."""
        return Tasks(self.corpora[:count], self.num_steps[:count], self.sequence_length)


class Course(NamedTuple):
    """One run of a cell: its recipe, and the rows of the matrix that it measures."""

    name: str
    recipe: Recipe
    tasks: Tasks
    rows: tuple[int, ...]

    def measured_at(self, evaluate_every: int | None) -> tuple[int, ...]:
        """Return the steps at which it is measured: its beginning and the ends of its rows' tasks,
        and within each task every so many steps of it."""
        found = {0, *(self.tasks.ends[row] for row in self.rows)}
        if evaluate_every is not None and len(self.rows) > 1:
            for start, end in zip((0, *self.tasks.ends), self.tasks.ends, strict=False):
                found.update(range(start, end, evaluate_every))
        return tuple(sorted(found))


@dataclass(frozen=True, slots=True)
class _Maker:
    experiment: StreamExperiment
    cell: Cell
    seed: int
    base: str

    def recipe(
        self, tasks: Tasks, phases: Sequence[Mapping[str, Any]], memories: Mapping[int, str]
    ) -> Recipe:
        """Return a recipe over so many tasks; `memories` are shards by the task they are for."""
        experiment, total = self.experiment, sum(tasks.num_steps)
        tokens_per_step = experiment.scenario.batch * tasks.sequence_length
        evaluate_every = experiment.scenario.evaluate_every or total
        return _checked(
            {
                **experiment.recipe,
                "name": f"{self.cell.learner[:40]}-seed-{self.seed}",
                "seed": self.seed,
                "base": self._base(),
                "sources": {**_sources(experiment), **_memory_sources(memories)},
                "phases": list(phases),
                "budget": {"tokens": total * tokens_per_step},
                "schedule": self._schedule(tasks, len(phases) == 1),
                "batch": {**experiment.recipe.get("batch", {}), "tokens": tokens_per_step},
                "evaluation": {
                    **experiment.recipe.get("evaluation", {}),
                    "every_steps": min(evaluate_every, total),
                },
            }
        )

    def _base(self) -> dict[str, Any]:
        backbone = self.experiment.backbones[self.cell.backbone]
        # What was drawn anew is a folder beside the experiment.
        is_hubs = self.base == backbone.path and backbone.revision is not None
        return {"path": self.base, **({"revision": backbone.revision} if is_hubs else {})}

    def _schedule(self, tasks: Tasks, is_one: bool) -> dict[str, Any]:
        lr = self.experiment.backbones[self.cell.backbone].lr
        peak = {} if lr is None else {"peak_lr": lr}
        given = self.experiment.recipe.get("schedule", {})
        if given.keys() - {"peak_lr"}:
            return {**given, **peak}
        total = sum(tasks.num_steps)
        first, last = (1.0, 1.0) if is_one else (tasks.num_steps[i] / total for i in (0, -1))
        return {
            "kind": "infinite",
            "warmup_fraction": _WARMUP * first,
            "cooldown_end": _COOLDOWN_END * first,
            "anneal_start": 1 - _ANNEAL * last,
            "final_lr": "peak/10",
            **given,
            **peak,
        }


def draft(experiment: StreamExperiment, cell: Cell, base: str, sequence_length: int) -> Recipe:
    """Return a recipe of a step over all corpora: what it is planned to says how large they are."""
    tasks = Tasks(tuple(experiment.source.corpora), (1,), sequence_length)
    weights = dict.fromkeys(tasks.corpora, 1.0)
    any_rate = {"kind": "constant", "peak_lr": 1e-3}
    without = experiment.model_copy(update={"recipe": {**experiment.recipe, "schedule": any_rate}})
    maker = _Maker(without, cell, 1, base)
    return maker.recipe(tasks, [{"name": "all", "weights": weights}], {})


def courses_of(
    experiment: StreamExperiment,
    cell: Cell,
    seed: int,
    tasks: Tasks,
    *,
    base: str,
    memories: Mapping[int, str],
) -> list[Course]:
    """Return the runs of a cell with a seed over some tasks; paths are relative to the experiment.

    `memories` are shards by the task (from 0) in which they are replayed.
    """
    maker = _Maker(experiment, cell, seed, base)
    if experiment.learner(cell.learner).algorithm == "joint":
        return [_joint(maker, tasks.first(count + 1)) for count in range(len(tasks.corpora))]
    phases = list(_phases(experiment, tasks, memories))
    return [Course("", maker.recipe(tasks, phases, memories), tasks, tuple(range(len(phases))))]


def _joint(maker: _Maker, tasks: Tasks) -> Course:
    """Return the run anew from the first weights on all of some tasks, mixed."""
    weights = dict(zip(tasks.corpora, tasks.num_steps, strict=True))
    recipe = maker.recipe(tasks, [{"name": "joint", "weights": weights}], {})
    row = len(tasks.corpora) - 1
    return Course(f"after-{row + 1}", recipe, tasks, (row,))


def _phases(
    experiment: StreamExperiment, tasks: Tasks, memories: Mapping[int, str]
) -> Iterator[dict[str, Any]]:
    batch = experiment.scenario.batch
    of_memory = experiment.memory.num_sequences_per_step(batch)
    for task, (corpus, end) in enumerate(zip(tasks.corpora, tasks.ends, strict=True)):
        weights: dict[str, float] = {corpus: batch}
        if task in memories:
            weights = {corpus: batch - of_memory, memory_name(task): of_memory}
        until = {"until": {"step": end}} if end < tasks.ends[-1] else {}
        yield {"name": f"task-{task + 1}", "weights": weights, **until}


def _sources(experiment: StreamExperiment) -> dict[str, dict[str, Any]]:
    num_epochs = experiment.scenario.num_epochs
    # Shares are rounded to whole sequences, so that a task may show a few more than its passes.
    often = {
        "max_epochs": num_epochs + 1,
        "max_epochs_reason": f"{num_epochs} passes are asked for",
    }
    return {
        name: {
            "role": "new",
            "held_out": corpus.held_out,
            **(often if num_epochs > 4 - 1 else {}),
            **corpus.model_dump(mode="json", exclude_unset=True),
        }
        for name, corpus in experiment.source.corpora.items()
    }


def _memory_sources(memories: Mapping[int, str]) -> dict[str, dict[str, Any]]:
    return {
        memory_name(task): {
            "path": path,
            "format": "tokens",
            "role": "replay",
            "held_out": 0.0,
            "curate": _CURATED,
            "max_epochs": 1e9,
            "max_epochs_reason": _OFTEN,
        }
        for task, path in memories.items()
    }


def replays(experiment: StreamExperiment, learner: str) -> bool:
    """Tell whether a learner reads from the memory."""
    return experiment.learner(learner).algorithm in REPLAYS


def _checked(tree: Mapping[str, Any]) -> Recipe:
    """Return the recipe that a tree is; raises RecipeError in the experiment's own words."""
    with as_experiment(is_schema=True):
        return recipe_of(tree, Problems())


@contextlib.contextmanager
def as_experiment(*, is_schema: bool = False) -> Iterator[None]:
    """Tell what is wrong with a recipe by where the experiment's file has it.

    Problems of a schema are all of keys, known or not; others may be of files.
    """
    try:
        yield
    except UserError as error:
        raise type(error)([_reworded(problem, is_schema) for problem in error.problems]) from error


def _reworded(problem: Problem, is_schema: bool) -> Problem:
    where = problem.where
    if where.startswith("base."):
        return Problem("backbones", f"{where}: {problem.what}", problem.fix)
    if where.startswith("sources.memory-"):
        fix = "raise memory.size, or take shorter sequences (recipe.batch.sequence_length)"
        return Problem("memory.size", f"{where.removeprefix('sources.')}: {problem.what}", fix)
    if where.startswith("sources."):
        name = where.removeprefix("sources.")
        return Problem(f"source.corpora.{name}", problem.what, problem.fix)
    is_key = is_schema or where.partition(".")[0].partition("[")[0] in Recipe.model_fields
    return Problem(f"recipe.{where}", problem.what, problem.fix) if is_key else problem
