"""The training loss of a stream's cells, from the step records of their runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from rewarm.records.stream import StreamCell, StreamResult
from rewarm.records.stream_folder import StreamFolder
from rewarm.records.stream_steps import StreamStep, stream_steps
from rewarm.reporting.curves import Point, Span
from rewarm.reporting.figures import Axis, Figure
from rewarm.reporting.smoothed import smoothed_figure

__all__ = ["loss_figures"]

_MOST_SPANS = 6
_AXIS = Axis("loss")


def loss_figures(result: StreamResult, folder: Path) -> Iterator[Figure]:
    """Yield the loss of each cell whose runs have records of their steps, in `folder`.

    Runs of corpora are runs as any other, with reports of their own; runs from before steps were
    recorded have none.
    """
    if result.measure != "share right":
        return
    for cell in result.cells:
        found = [_steps_of(folder, cell, seed) for seed in result.seeds]
        of_seeds = [steps for steps in found if steps]
        if of_seeds:
            name = f"{cell.backbone}, {cell.learner}"
            title = f"Training loss of {name}"
            yield smoothed_figure(
                title, _AXIS, _mean(of_seeds), _common_spans(of_seeds), heading=name
            )


def _steps_of(folder: Path, cell: StreamCell, seed: int) -> list[StreamStep]:
    return stream_steps(StreamFolder(folder).run(cell.backbone, cell.learner, seed))


def _mean(of_seeds: Sequence[Sequence[StreamStep]]) -> list[Point]:
    """Return the mean over seeds of every step; the last few may be of some seeds alone."""
    by_step: dict[int, list[float]] = {}
    for steps in of_seeds:
        for record in steps:
            by_step.setdefault(record.step, []).append(record.loss)
    return [Point(step, sum(by_step[step]) / len(by_step[step])) for step in sorted(by_step)]


def _common_spans(of_seeds: Sequence[Sequence[StreamStep]]) -> tuple[Span, ...]:
    """Return the tasks where all seeds change them at the same steps: with classes of one size."""
    found = {_spans(steps) for steps in of_seeds}
    return found.pop() if len(found) == 1 else ()


def _spans(steps: Sequence[StreamStep]) -> tuple[Span, ...]:
    """Return the tasks, and a second stage; none where they are too many for their names."""
    found = []
    for (task, part), group in itertools.groupby(steps, lambda record: (record.task, record.part)):
        numbers = [record.step for record in group]
        name = "second stage" if part == "second-stage" else f"{task + 1}"
        found.append(Span(numbers[0], numbers[-1] + 1, name))
    return tuple(found) if len(found) <= _MOST_SPANS else ()
