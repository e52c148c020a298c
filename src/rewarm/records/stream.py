"""What came of streams: one record for each backbone, learner and seed, and their summary."""

from __future__ import annotations

from pydantic import Field

from rewarm.records.facts import Record

__all__ = ["StreamCell", "StreamFigure", "StreamResult", "StreamRun"]


class StreamRun(Record):
    """One run. Accuracies are proportions of test examples."""

    backbone: str
    learner: str
    seed: int
    matrix: tuple[tuple[float, ...], ...] = Field(
        description="row t: accuracies on tasks 0 … t after task t"
    )
    second_stage: tuple[float, ...] | None = Field(description="accuracies by task, where it was")
    looks: tuple[tuple[int, int, tuple[float, ...]], ...] = Field(
        description="within a task: task, step, accuracies on the tasks before it"
    )
    metrics: dict[str, float | None]
    elapsed_s: float
    fingerprint: str = Field("", description="of all that the figures hang on")


class StreamFigure(Record):
    """A metric's mean over seeds with its 95 % t interval; one seed has none."""

    mean: float
    low: float | None
    high: float | None


class StreamCell(Record):
    """One backbone with one learner."""

    backbone: str
    learner: str
    num_seeds: int
    figures: dict[str, StreamFigure]
    mean_matrix: tuple[tuple[float, ...], ...]


class StreamResult(Record):
    """The whole experiment: `result.json`."""

    name: str
    num_classes: int
    num_tasks: int
    num_train: int
    num_test: int
    mode: str
    seeds: tuple[int, ...]
    cells: tuple[StreamCell, ...]
    runs: tuple[StreamRun, ...]
    provenance: dict[str, object]
