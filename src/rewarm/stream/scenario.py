"""The order of a stream as a pure function of its seed: which classes in which task, what when.

No state is kept: task, pass and step say which examples a step sees, so a run that begins again
sees the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scenario", "deal_classes", "hold_out"]

Indices = NDArray[np.int64]

_CLASS_ORDER, _EXAMPLE_ORDER, _HELD_OUT = 1, 2, 3  # what a number is drawn for


def deal_classes(num_classes: int, num_tasks: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Return the classes of each task, in an order drawn by the seed.

    Where classes do not divide evenly, the first tasks have one more. Raises ValueError for more
    tasks than classes.
    """
    if not 1 <= num_tasks <= num_classes:
        raise ValueError(f"{num_classes} classes cannot be dealt into {num_tasks} tasks")
    order = np.random.default_rng((seed, _CLASS_ORDER)).permutation(num_classes)
    return tuple(tuple(int(label) for label in part) for part in np.array_split(order, num_tasks))


def hold_out(labels: Sequence[int], share: float) -> NDArray[np.bool_]:
    """Return which examples are for the test: `share` of each class, at least one, and never all.

    Drawn alike for every seed of an experiment. ValueError for a class with a single example.
    """
    found = np.asarray(labels)
    is_test = np.zeros(len(found), dtype=np.bool_)
    for label in np.unique(found):
        where = np.flatnonzero(found == label)
        if len(where) < 2:
            raise ValueError(f"class {label} has a single example")
        count = min(max(1, round(share * len(where))), len(where) - 1)
        generator = np.random.default_rng((int(label), _HELD_OUT))
        is_test[generator.permutation(where)[:count]] = True
    return is_test


@dataclass(frozen=True, slots=True, eq=False)
class Scenario:
    """A stream over examples with `labels` (0 to classes − 1), of which some are for the test."""

    labels: NDArray[np.int64]
    is_test: NDArray[np.bool_]
    tasks: tuple[tuple[int, ...], ...]
    seed: int
    num_epochs: int
    batch: int

    def train_of(self, task: int) -> Indices:
        """Return the training examples of a task, in the order of the source."""
        return np.flatnonzero(np.isin(self.labels, self.tasks[task]) & ~self.is_test)

    def train_of_all(self, tasks: Sequence[int]) -> Indices:
        """Return the training examples of some tasks, in the order of the source."""
        classes = [label for task in tasks for label in self.tasks[task]]
        return np.flatnonzero(np.isin(self.labels, classes) & ~self.is_test)

    def test_of(self, task: int) -> Indices:
        """Return the test examples of a task, in the order of the source."""
        return np.flatnonzero(np.isin(self.labels, self.tasks[task]) & self.is_test)

    def batches_of(self, task: int) -> Iterator[Indices]:
        """Yield the examples of each step of a task; the last of a pass may be smaller."""
        examples = self.train_of(task)
        for epoch in range(self.num_epochs):
            generator = np.random.default_rng((self.seed, _EXAMPLE_ORDER, task, epoch))
            order = generator.permutation(examples)
            for start in range(0, len(order), self.batch):
                yield order[start : start + self.batch]

    def seen_classes(self, task: int) -> tuple[int, ...]:
        """Return the classes of the tasks up to this one, ascending."""
        return tuple(sorted(label for part in self.tasks[: task + 1] for label in part))
