"""One learner's way through one stream: steps, looks, and the matrix of accuracies."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rewarm.records.stream import StreamRun
from rewarm.stream.learning import Indices, Learner, Learning, shuffled_batches
from rewarm.stream.metrics import Look, StreamMetrics, metrics_of
from rewarm.stream.scenario import Scenario

__all__ = ["Progress", "second_stage", "take_course"]

Predict = Callable[[Indices], Indices]


@dataclass(slots=True)
class Progress:
    """How far a run is: `step` steps of `task` are done, and what was measured until then.

    `moment` counts steps and ends of tasks: all that is drawn hangs on the seed and on it. Step 0
    is before the learner has heard of the task; after the last task `task` is their number.
    """

    task: int = 0
    step: int = 0
    moment: int = 0
    matrix: list[list[float]] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)


def take_course(
    learner: Learner,
    learning: Learning,
    scenario: Scenario,
    progress: Progress,
    *,
    evaluate_every: int | None,
) -> Iterator[Progress]:
    """Go on from where `progress` is, and yield it, altered, after each step and each task.

    Its matrix is R in the end, row t of which holds the accuracies on tasks 0 … t after task t.
    """
    while progress.task < len(scenario.tasks):
        if progress.step == 0:
            learner.begin_task(scenario.tasks[progress.task])
        for indices in itertools.islice(scenario.batches_of(progress.task), progress.step, None):
            learning.draw_anew(progress.moment)
            with learning.one_step(indices, "task"):
                learner.observe(indices)
            _count(progress)
            if evaluate_every is not None and progress.task and not progress.step % evaluate_every:
                old = accuracies(learner.predict, scenario, progress.task)
                look = Look(progress.task, progress.step, dict(enumerate(old)))
                progress.looks.append(look)
            yield progress
        learning.draw_anew(progress.moment)
        learner.end_task()
        progress.matrix.append(accuracies(learner.predict, scenario, progress.task + 1))
        progress.task, progress.step, progress.moment = progress.task + 1, 0, progress.moment + 1
        yield progress


def _count(progress: Progress) -> None:
    progress.step += 1
    progress.moment += 1


def accuracies(predict: Predict, scenario: Scenario, num_tasks: int) -> list[float]:
    """Return the accuracy on the test examples of each of the first tasks."""
    parts = [scenario.test_of(task) for task in range(num_tasks)]
    right = predict(np.concatenate(parts)) == scenario.labels[np.concatenate(parts)]
    ends = np.cumsum([len(part) for part in parts])[:-1]
    return [float(part.mean()) for part in np.split(right, ends)]


def second_stage(
    learning: Learning, scenario: Scenario, kept: Indices, num_epochs: int, *, moment: int
) -> list[float]:
    """Train on the memory by cross-entropy; return the accuracy on each task, by the head.

    Plain SGD has no state, so a fresh optimizer is nothing but the same step. `moment` is that
    after the last task.
    """
    learning.draw_anew(moment)
    for rows in shuffled_batches(kept, learning.memory_batch, num_epochs, learning.generator):
        learning.train_on(rows, "second-stage")
    return accuracies(learning.by_head, scenario, len(scenario.tasks))


def run_record(
    names: Mapping[str, str],
    seed: int,
    progress: Progress,
    second: Sequence[float] | None,
    elapsed_s: float,
) -> StreamRun:
    """Return what is written down of a run; with a second stage its accuracies are the final ones.

    Then forgetting and BWT are those after it: the last row of the matrix is replaced, and what it
    was counts as a look within the last task.
    """
    matrix, looks = progress.matrix, progress.looks
    counted, seen = matrix, looks
    if second is not None:
        counted = [*matrix[:-1], list(second)]
        before = Look(len(matrix) - 1, 0, dict(enumerate(matrix[-1][:-1])))
        seen = [*looks, before] if looks else []
    figures: StreamMetrics = metrics_of(counted, seen)
    return StreamRun(
        backbone=names["backbone"],
        learner=names["learner"],
        seed=seed,
        matrix=tuple(map(tuple, matrix)),
        second_stage=tuple(second) if second is not None else None,
        looks=tuple((look.task, look.step, tuple(look.accuracy.values())) for look in looks),
        metrics=figures._asdict(),
        elapsed_s=elapsed_s,
    )
