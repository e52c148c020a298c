"""How runs over corpora are planned: how large the corpora are, and what each memory holds.

All runs are planned before the first is trained: what a memory holds in a task follows from the
plan of the tasks before it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rewarm.errors import PlanError, Problems
from rewarm.planning.model_facts import read_model_facts
from rewarm.planning.plan import Plan
from rewarm.planning.size import sequence_length_of
from rewarm.recipe.base import BaseRecipe
from rewarm.records.stream_folder import StreamFolder
from rewarm.stages.base import find_base
from rewarm.stages.fresh_base import make_fresh_base
from rewarm.stages.job import Job, job_of
from rewarm.stages.launches import Launch
from rewarm.stages.model_tools import MODEL_TOOLS
from rewarm.stages.plan import plan_job
from rewarm.stages.prepare import prepare_job
from rewarm.stages.stream_learners import memory_of
from rewarm.stages.stream_memory import documents_of_phase, write_memory
from rewarm.stream.cells import Cell
from rewarm.stream.courses import Course, Tasks, as_experiment, courses_of, draft, order_of, replays
from rewarm.stream.documents import DocumentMemory
from rewarm.stream.experiment import StreamExperiment, WrittenStream
from rewarm.units import format_count

__all__ = ["CorporaPlans", "CorpusSizes", "PlannedCourse"]


class CorpusSize(NamedTuple):
    """A corpus by a plan: sequences of a pass, bytes held out."""

    num_windows: int
    held_out_bytes: int


@dataclass(frozen=True, slots=True)
class CorpusSizes:
    """All corpora as one backbone's tokenizer has them."""

    by_corpus: Mapping[str, CorpusSize]
    sequence_length: int
    is_measured: bool

    def tasks(self, experiment: StreamExperiment, seed: int) -> Tasks:
        """Return the tasks of a seed; raises PlanError with every corpus that is too small."""
        problems, order = Problems(), order_of(experiment, seed)
        steps = [self._num_steps(experiment, name, problems) for name in order]
        problems.raise_as(PlanError)
        return Tasks(order, tuple(steps), self.sequence_length)

    def _num_steps(self, experiment: StreamExperiment, name: str, problems: Problems) -> int:
        scenario = experiment.scenario
        most = self.by_corpus[name].num_windows * scenario.num_epochs // scenario.batch
        tokens_per_step = scenario.batch * self.sequence_length
        if scenario.tokens is None:
            wanted, where = most, f"source.corpora.{name}"
        else:
            wanted, where = scenario.tokens // tokens_per_step, "scenario.tokens"
        if wanted < 1:
            what = f"{name} has no step of {scenario.batch} sequences of {self.sequence_length}"
            problems.add(where, what, "give it more text, or a smaller scenario.batch")
        if wanted > most and self.is_measured:
            passes = "1 pass" if scenario.num_epochs == 1 else f"{scenario.num_epochs} passes"
            there = format_count(most * tokens_per_step)
            what = f"{passes} over {name} are {there} tokens, fewer than {scenario.tokens}"
            problems.add(where, what, f'give {there}, more text, or mode = "offline" and epochs')
        return wanted


@dataclass(frozen=True, slots=True)
class PlannedCourse:
    """A run of a cell, planned, and where it is trained."""

    cell: Cell
    seed: int
    course: Course
    job: Job
    plan: Plan

    @property
    def launch(self) -> Launch:
        """The run as it may be trained."""
        name = f"{self.cell}, seed {self.seed} {self.course.name}".rstrip()
        return Launch(name, self.plan, self.job.run)


@dataclass(frozen=True, slots=True)
class CorporaPlans:
    """Plans the runs of an experiment over corpora."""

    written: WrittenStream

    @property
    def experiment(self) -> StreamExperiment:
        """What is planned."""
        return self.written.experiment

    @property
    def folder(self) -> Path:
        """What paths of recipes count from: where the experiment's file lies."""
        return self.written.path.resolve().parent

    def sizes(self, *, estimates_allowed: bool) -> dict[str, CorpusSizes]:
        """Return by backbone how large the corpora are; raises with all that is wrong."""
        problems, found = Problems(), {}
        for name in self.experiment.backbones:
            try:
                found[name] = self._sizes(name, estimates_allowed)
                for seed in self._seeds():
                    found[name].tasks(self.experiment, seed)
            except PlanError as error:
                problems.extend(p for p in error.problems if p not in problems.noted)
        problems.raise_as(PlanError)
        return found

    def check_recipes(self, sizes: Mapping[str, CorpusSizes]) -> None:
        """Raise PlanError with what is wrong with any cell's recipe, memories left aside."""
        problems = Problems()
        for cell in self.experiment.cells(None):
            recipe = self.experiment.backbones[cell.backbone]
            tasks = sizes[cell.backbone].tasks(self.experiment, 1)
            *_, whole = courses_of(
                self.experiment, cell, 1, tasks, base=str(recipe.path), memories={}
            )
            try:
                with as_experiment():
                    plan_job(job_of(whole.recipe, self.folder), estimates_allowed=True)
            except PlanError as error:
                problems.extend(error.problems)
        problems.raise_as(PlanError)

    def prepare(self) -> None:
        """Prepare the corpora for every backbone."""
        for backbone in self.experiment.backbones:
            with as_experiment():
                prepare_job(self._draft(backbone), MODEL_TOOLS)

    def planned(self) -> list[PlannedCourse]:
        """Return all runs, planned, their memories and bases written; corpora are prepared."""
        sizes = self.sizes(estimates_allowed=False)
        return [
            run
            for cell in self.experiment.cells(None)
            for seed in self._seeds()
            for run in self._planned(cell, seed, sizes[cell.backbone])
        ]

    def _sizes(self, backbone: str, estimates_allowed: bool) -> CorpusSizes:
        with as_experiment():
            plan = plan_job(self._draft(backbone), estimates_allowed=estimates_allowed)
        corpora = plan.conduct.corpora
        sizes = {
            source.name: CorpusSize(
                source.num_windows,
                corpora[source.name].held_out_bytes,
            )
            for source in plan.science.sources
        }
        return CorpusSizes(sizes, plan.science.sequence_length, plan.measured)

    def _draft(self, backbone: str) -> Job:
        """Return the job that says how large the corpora are; what is learned does not matter."""
        path = self.experiment.backbones[backbone].path
        assert path is not None
        cell = Cell(backbone, next(iter(self.experiment.learners)))
        first = draft(self.experiment, cell, path, 1)
        model = read_model_facts(find_base(first.base, self.folder))
        length = sequence_length_of(first, model)
        if length is None:
            fix = "give recipe.batch.sequence_length"
            what = f"{backbone} does not say how long its sequences are"
            raise PlanError.one(f"backbones.{backbone}", what, fix)
        return job_of(draft(self.experiment, cell, path, length), self.folder)

    def _seeds(self) -> range:
        return range(1, self.experiment.seeds + 1)

    def _planned(self, cell: Cell, seed: int, sizes: CorpusSizes) -> Iterator[PlannedCourse]:
        """Yield the planned runs of a cell with a seed."""
        tasks, base = sizes.tasks(self.experiment, seed), self._base_of(cell.backbone, seed)
        memories: dict[int, str] = {}
        before = None
        if replays(self.experiment, cell.learner):
            before = self._fill_memories(cell, seed, tasks, base, memories)
        place = self._place(cell, seed)
        for course in courses_of(self.experiment, cell, seed, tasks, base=base, memories=memories):
            job = job_of(course.recipe, self.folder, place / course.name)
            plan = self._plan(job, course)
            if before is not None:
                _check_same_text(before, plan)
            yield PlannedCourse(cell, seed, course, job, plan)

    def _fill_memories(
        self, cell: Cell, seed: int, tasks: Tasks, base: str, memories: dict[int, str]
    ) -> Plan:
        """Write the memory of every task after the first; return the plan of those before the last.

        What a task shows is read off the plan of the tasks up to it, whose memories are there.
        """
        plan = None
        memory = DocumentMemory(memory_of(self.experiment.memory), seed)
        for task in range(1, len(tasks.corpora)):
            so_far = tasks.first(task)
            (course,) = courses_of(
                self.experiment, cell, seed, so_far, base=base, memories=memories
            )
            plan = self._plan(job_of(course.recipe, self.folder, self._place(cell, seed)), course)
            last = so_far.corpora[-1]
            memory.offer(task - 1, last, documents_of_phase(plan, task - 1, last))
            folder = self.written.folder / "memories" / cell.backbone / cell.learner
            shard = write_memory(plan, memory.kept(), folder / f"seed-{seed}" / f"task-{task + 1}")
            memories[task] = os.path.relpath(shard, self.folder)
        assert plan is not None  # there are two corpora at least
        return plan

    def _plan(self, job: Job, course: Course) -> Plan:
        """Return the plan of a job whose corpora are prepared, measured where the stream looks."""
        with as_experiment():
            if job.recipe.sources.keys() > self.experiment.source.corpora.keys():
                prepare_job(job, MODEL_TOOLS)  # a memory; the corpora are prepared
            plan = plan_job(job, estimates_allowed=False)
        steps = course.measured_at(self.experiment.scenario.evaluate_every)
        conduct = plan.conduct.model_copy(update={"evaluation_steps": steps})
        return plan.model_copy(update={"conduct": conduct})

    def _place(self, cell: Cell, seed: int) -> Path:
        return StreamFolder(self.written.folder).run(cell.backbone, cell.learner, seed).path

    def _base_of(self, backbone: str, seed: int) -> str:
        """Return what a run begins from, drawn anew where it has to be."""
        recipe = self.experiment.backbones[backbone]
        assert recipe.path is not None
        if not recipe.from_scratch:
            return recipe.path
        shape = find_base(BaseRecipe(path=recipe.path, revision=recipe.revision), self.folder)
        # A folder for each: two backbones may have one name on the disk.
        return str(make_fresh_base(shape, self.written.folder / "bases" / backbone, seed))


def _check_same_text(before: Plan, plan: Plan) -> None:
    """Raise PlanError where a memory's own text changed what of the corpora is shown.

    The memory was drawn from what the plan before it shows: that must stand in the plan with it.
    """
    shown = {source.name: source for source in plan.science.sources}
    changed = [s.name for s in before.science.sources if shown.get(s.name) != s]
    if changed:
        raise PlanError.one(
            f"source.corpora.{changed[0]}",
            f"what is shown of {', '.join(changed)} hangs on what else is a source",
            "leave out what drops copies of documents across sources",
        )
