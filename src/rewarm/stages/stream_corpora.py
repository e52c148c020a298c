"""`rewarm stream` over corpora: a language model learns one after the other, in the main engine.

All runs are planned before the first is trained: what a memory holds in a task follows from the
plan of the tasks before it. Each is then trained as any run is, in a folder of its own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from rewarm.artifacts import write_json
from rewarm.comparison.registration import register
from rewarm.errors import PlanError, Problems
from rewarm.planning.model_facts import read_model_facts
from rewarm.planning.plan import Plan
from rewarm.planning.size import sequence_length_of
from rewarm.recipe.base import BaseRecipe
from rewarm.records.comparison import Registration
from rewarm.records.stream import StreamResult, StreamRun
from rewarm.reporting.stream_page import write_stream_page
from rewarm.reporting.stream_terminal import print_stream, stream_plan
from rewarm.stages.base import find_base
from rewarm.stages.board import Board
from rewarm.stages.fresh_base import make_fresh_base
from rewarm.stages.job import Job, command_line, job_of, keep_plan
from rewarm.stages.launches import Launch, num_cores, run_here
from rewarm.stages.model_tools import MODEL_TOOLS
from rewarm.stages.plan import plan_job
from rewarm.stages.prepare import prepare_job
from rewarm.stages.stream_learners import memory_of
from rewarm.stages.stream_memory import documents_of_phase, write_memory
from rewarm.stages.stream_result import About, claims_of, conclude_stream, contrast_facts
from rewarm.stream.cells import Cell
from rewarm.stream.courses import Course, Tasks, as_experiment, courses_of, draft, order_of, replays
from rewarm.stream.documents import DocumentMemory
from rewarm.stream.experiment import StreamExperiment, WrittenStream
from rewarm.stream.metrics import Look, metrics_of_losses
from rewarm.training.lock import hold_lock
from rewarm.units import counted, format_count

__all__ = ["run_corpora"]

FINISHED = 0
FAILED = 1


def run_corpora(written: WrittenStream, console: Console, *, dry_run: bool) -> int:
    """Carry out an experiment over corpora from wherever it stands; return the exit code."""
    stream = _CorporaStream(written, console)
    # Mistakes show before hours of tokenization and training.
    sizes = stream.sizes(estimates_allowed=True)
    stream.check_recipes(sizes)
    console.print(stream_plan(written.experiment.name, _facts(written.experiment, sizes)))
    if dry_run:
        stream.register(write=False)
        console.print("\nnothing was run: leave out --dry-run to begin")
        return FINISHED
    written.folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(written.folder / "lock.json", console.print):
        return stream.carry_out()


class _Size(NamedTuple):
    """A corpus by a plan: sequences of a pass, tokens to train on, bytes held out."""

    num_windows: int
    num_tokens: int
    held_out_bytes: int


@dataclass(frozen=True, slots=True)
class _Sizes:
    """All corpora as one backbone's tokenizer has them."""

    by_corpus: Mapping[str, _Size]
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
            passes = counted(scenario.num_epochs, "pass").replace("passs", "passes")
            there = format_count(most * tokens_per_step)
            what = f"{passes} over {name} are {there} tokens, fewer than {scenario.tokens}"
            problems.add(where, what, f'give {there}, more text, or mode = "offline" and epochs')
        return wanted


@dataclass(frozen=True, slots=True)
class _PlannedCourse:
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
class _CorporaStream:
    written: WrittenStream
    console: Console

    @property
    def experiment(self) -> StreamExperiment:
        return self.written.experiment

    @property
    def folder(self) -> Path:
        """What paths of recipes count from: where the experiment's file lies."""
        return self.written.path.resolve().parent

    def sizes(self, *, estimates_allowed: bool) -> dict[str, _Sizes]:
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

    def check_recipes(self, sizes: Mapping[str, _Sizes]) -> None:
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

    def _sizes(self, backbone: str, estimates_allowed: bool) -> _Sizes:
        with as_experiment():
            plan = plan_job(self._draft(backbone), estimates_allowed=estimates_allowed)
        corpora = plan.conduct.corpora
        sizes = {
            source.name: _Size(
                source.num_windows,
                corpora[source.name].num_tokens,
                corpora[source.name].held_out_bytes,
            )
            for source in plan.science.sources
        }
        return _Sizes(sizes, plan.science.sequence_length, plan.measured)

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

    def carry_out(self) -> int:
        """Prepare, plan, train what is not trained, and conclude; the lock is held."""
        registration = self.register(write=True)
        for backbone in self.experiment.backbones:
            with as_experiment():
                prepare_job(self._draft(backbone), MODEL_TOOLS)
        sizes = self.sizes(estimates_allowed=False)
        planned = [
            run
            for cell in self.experiment.cells(None)
            for seed in self._seeds()
            for run in self._planned(cell, seed, sizes[cell.backbone])
        ]
        for run in planned:
            if not run.launch.is_done:
                keep_plan(run.plan, run.job)
                run.job.run.make_log_folder()
        if not self._train([run.launch for run in planned]):
            return FAILED
        result = self._conclude(planned, sizes, registration)
        write_json(self.written.folder / "result.json", result.model_dump(mode="json"))
        page = write_stream_page(result, self.written.folder)
        print_stream(result, self.console)
        self._say(f"\n{page}")
        return FINISHED

    def register(self, *, write: bool) -> Registration | None:
        """Hold the contrasts to what they were before the first run; None where there are none."""
        if not self.experiment.contrasts:
            return None
        begun = any(log.stat().st_size for log in self._runs_folder.glob("**/metrics/steps.jsonl"))
        return register(self.written, claims_of(self.experiment), has_begun=begun, write=write)

    @property
    def _runs_folder(self) -> Path:
        return self.written.folder / "runs"

    def _seeds(self) -> range:
        return range(1, self.experiment.seeds + 1)

    def _planned(self, cell: Cell, seed: int, sizes: _Sizes) -> Iterator[_PlannedCourse]:
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
            yield _PlannedCourse(cell, seed, course, job, plan)

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
        return self._runs_folder / cell.backbone / cell.learner / f"seed-{seed}"

    def _base_of(self, backbone: str, seed: int) -> str:
        """Return what a run begins from, drawn anew where it has to be."""
        recipe = self.experiment.backbones[backbone]
        assert recipe.path is not None
        if not recipe.from_scratch:
            return recipe.path
        shape = find_base(BaseRecipe(path=recipe.path), self.folder)
        return str(make_fresh_base(shape, self.written.folder / "bases", seed))

    def _train(self, launches: Sequence[Launch]) -> bool:
        """Train what is not done, one after the other; tell whether all is done then."""
        command = command_line("stream", self.written.path)
        with Board(launches, self.console) as board:
            states = run_here(
                launches,
                command=command,
                num_workers=1,
                num_threads=num_cores(),
                show=board.show,
            )
        failed = [launch for launch in launches if states[launch.name] != "done"]
        for launch in launches:
            if states[launch.name] == "done" and launch.run.checkpoints.exists():
                with hold_lock(launch.run.lock, self._say):
                    shutil.rmtree(launch.run.checkpoints)
        for launch in failed:
            self._say(f"\n{launch.name} failed; the last it said ({launch.run.output}):")
            for line in launch.run.last_lines().splitlines():
                self._say(f"    {line}")
        if failed:
            self._say(f"{len(failed)} of {len(launches)} runs are not done; `{command}` goes on")
        return not failed

    def _conclude(
        self,
        planned: Sequence[_PlannedCourse],
        sizes: Mapping[str, _Sizes],
        registration: Registration | None,
    ) -> StreamResult:
        by_cell: dict[tuple[Cell, int], list[_PlannedCourse]] = {}
        for run in planned:
            by_cell.setdefault((run.cell, run.seed), []).append(run)
        evaluate_every = self.experiment.scenario.evaluate_every
        runs = [
            _run_record(cell, seed, courses, evaluate_every)
            for (cell, seed), courses in by_cell.items()
        ]
        return conclude_stream(
            self.experiment, _about(self.experiment, sizes, runs), runs, [], registration
        )

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


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


def _run_record(
    cell: Cell, seed: int, courses: Sequence[_PlannedCourse], evaluate_every: int | None
) -> StreamRun:
    """Return what is on record of a cell's runs with a seed, row by row."""
    order = courses[-1].course.tasks.corpora
    matrix: list[list[float]] = []
    looks: list[Look] = []
    before: list[float] = []
    for planned in courses:
        tasks = planned.course.tasks
        values = {
            (record.step, record.domain): record.value
            for record in planned.job.run.evals()
            if record.metric == "bits_per_byte"
        }
        before = [values[0, name] for name in order]
        for row in planned.course.rows:
            end = tasks.ends[row]
            matrix.append([values[end, name] for name in order[: row + 1]])
            if len(planned.course.rows) > 1:
                looks += _looks_within(values, tasks, row, evaluate_every)
    metrics = metrics_of_losses(matrix, looks)
    return StreamRun(
        backbone=cell.backbone,
        learner=cell.learner,
        seed=seed,
        matrix=tuple(map(tuple, matrix)),
        before=tuple(before),
        order=order,
        second_stage=None,
        looks=tuple((look.task, look.step, tuple(look.accuracy.values())) for look in looks),
        metrics=metrics._asdict(),
        elapsed_s=sum(r.step_s for planned in courses for r in planned.job.run.steps()),
        fingerprint=courses[-1].plan.fingerprint,
    )


def _looks_within(
    values: Mapping[tuple[int, str], float], tasks: Tasks, task: int, evaluate_every: int | None
) -> Iterator[Look]:
    """Yield the looks at old tasks within a task, before its end."""
    if task == 0 or evaluate_every is None:
        return
    start, end = tasks.ends[task - 1], tasks.ends[task]
    for step in range(start + evaluate_every, end, evaluate_every):
        losses = {k: values[step, name] for k, name in enumerate(tasks.corpora[:task])}
        yield Look(task, step - start, losses)


def _about(
    experiment: StreamExperiment, sizes: Mapping[str, _Sizes], runs: Sequence[StreamRun]
) -> About:
    orders = {run.order for run in runs}
    names = next(iter(orders)) if len(orders) == 1 else ()
    found = next(iter(sizes.values()))
    steps = found.tasks(experiment, 1).num_steps
    tokens = sum(steps) * experiment.scenario.batch * found.sequence_length
    held_out = sum(size.held_out_bytes for size in found.by_corpus.values())
    in_order = ", one after the other" if names else ", in an order drawn by each seed"
    sentence = (
        f"{len(experiment.source.corpora)} corpora{in_order}, {experiment.scenario.mode}; "
        f"{format_count(tokens)} tokens to train on, measured on held-out text of each "
        f"(of {format_count(held_out)} bytes)"
    )
    return About("bits per byte", sentence, len(experiment.source.corpora), names)


def _facts(experiment: StreamExperiment, sizes: Mapping[str, _Sizes]) -> list[tuple[str, str]]:
    scenario, memory = experiment.scenario, experiment.memory
    found = next(iter(sizes.values()))
    tasks = found.tasks(experiment, 1)
    about = "" if found.is_measured else "about "
    order = " → ".join(tasks.corpora) if scenario.order == "given" else "drawn by the seed"
    of_memory = memory.num_sequences_per_step(scenario.batch)
    per_task = ", ".join(
        f"{name} {about}{steps} steps"
        for name, steps in zip(tasks.corpora, tasks.num_steps, strict=True)
    )
    num_runs = len(experiment.backbones) * len(experiment.learners) * experiment.seeds
    return [
        ("corpora", order),
        ("task", per_task),
        ("step", f"{scenario.batch} sequences of {found.sequence_length} tokens"),
        ("memory", f"{memory.size} documents, {memory.kind}, {of_memory} sequences a step"),
        ("backbones", ", ".join(experiment.backbones)),
        ("learners", ", ".join(experiment.learners)),
        ("runs", f"{num_runs}, {experiment.seeds} seeds each"),
        *contrast_facts(experiment),
    ]
