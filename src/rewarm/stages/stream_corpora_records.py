"""What is told of runs over corpora: before they are trained, and of their records afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rewarm.records.stream import StreamRun
from rewarm.stages.stream_corpora_plans import CorpusSizes, PlannedCourse
from rewarm.stages.stream_result import About, contrast_facts
from rewarm.stream.cells import Cell
from rewarm.stream.courses import Tasks
from rewarm.stream.experiment import StreamExperiment
from rewarm.stream.metrics import Look, metrics_of_losses
from rewarm.units import counted, format_count

__all__ = ["about_corpora", "plan_facts", "run_records"]


def plan_facts(
    experiment: StreamExperiment, sizes: Mapping[str, CorpusSizes]
) -> list[tuple[str, str]]:
    """Return what will be done, row by row: what, and how."""
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
        ("step", f"{counted(scenario.batch, 'sequence')} of {found.sequence_length} tokens"),
        (
            "memory",
            f"{counted(memory.size, 'document')}, {memory.kind}, "
            f"{counted(of_memory, 'sequence')} a step",
        ),
        ("backbones", ", ".join(experiment.backbones)),
        ("learners", ", ".join(experiment.learners)),
        ("runs", f"{num_runs}, {counted(experiment.seeds, 'seed')} each"),
        *contrast_facts(experiment),
    ]


def about_corpora(
    experiment: StreamExperiment, sizes: Mapping[str, CorpusSizes], runs: Sequence[StreamRun]
) -> About:
    """Return what the stream was of; `sizes` are by backbone."""
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


def run_records(planned: Sequence[PlannedCourse], evaluate_every: int | None) -> list[StreamRun]:
    """Return what is on record of all runs, one record for a cell with a seed."""
    by_cell: dict[tuple[Cell, int], list[PlannedCourse]] = {}
    for run in planned:
        by_cell.setdefault((run.cell, run.seed), []).append(run)
    return [
        _run_record(cell, seed, courses, evaluate_every)
        for (cell, seed), courses in by_cell.items()
    ]


def _run_record(
    cell: Cell, seed: int, courses: Sequence[PlannedCourse], evaluate_every: int | None
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
