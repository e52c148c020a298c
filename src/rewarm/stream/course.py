"""One learner's way through one stream: steps, looks, and the matrix of accuracies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rewarm.records.stream import StreamRun
from rewarm.stream.learning import Indices, Learner, Learning, shuffled_batches
from rewarm.stream.metrics import Look, StreamMetrics, metrics_of
from rewarm.stream.scenario import Scenario

__all__ = ["second_stage", "take_course"]

Predict = Callable[[Indices], Indices]


def take_course(
    learner: Learner, scenario: Scenario, *, evaluate_every: int | None
) -> tuple[list[list[float]], list[Look]]:
    """Return R, row t of which holds the accuracies on tasks 0 … t after task t, and the looks."""
    matrix: list[list[float]] = []
    looks: list[Look] = []
    for task, classes in enumerate(scenario.tasks):
        learner.begin_task(classes)
        for step, indices in enumerate(scenario.batches_of(task), start=1):
            learner.observe(indices)
            if evaluate_every is not None and task and step % evaluate_every == 0:
                old = accuracies(learner.predict, scenario, task)
                looks.append(Look(task, step, dict(enumerate(old))))
        learner.end_task()
        matrix.append(accuracies(learner.predict, scenario, task + 1))
    return matrix, looks


def accuracies(predict: Predict, scenario: Scenario, num_tasks: int) -> list[float]:
    """Return the accuracy on the test examples of each of the first tasks."""
    parts = [scenario.test_of(task) for task in range(num_tasks)]
    right = predict(np.concatenate(parts)) == scenario.labels[np.concatenate(parts)]
    ends = np.cumsum([len(part) for part in parts])[:-1]
    return [float(part.mean()) for part in np.split(right, ends)]


def second_stage(
    learning: Learning, scenario: Scenario, kept: Indices, num_epochs: int
) -> list[float]:
    """Train on the memory by cross-entropy; return the accuracy on each task, by the head.

    Plain SGD has no state, so a fresh optimizer is nothing but the same step.
    """
    for rows in shuffled_batches(kept, learning.memory_batch, num_epochs, learning.generator):
        learning.step(learning.loss(rows))
    return accuracies(learning.by_head, scenario, len(scenario.tasks))


def run_record(
    names: Mapping[str, str],
    seed: int,
    matrix: Sequence[Sequence[float]],
    looks: Sequence[Look],
    second: Sequence[float] | None,
    elapsed_s: float,
) -> StreamRun:
    """Return what is written down of a run; with a second stage its accuracies are the final ones.

    Then forgetting and BWT are those after it: the last row of the matrix is replaced.
    """
    counted = [*matrix[:-1], second] if second is not None else matrix
    figures: StreamMetrics = metrics_of(counted, looks)
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
