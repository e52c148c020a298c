"""What came of streams: one record for each backbone, learner and seed, and their summary."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from rewarm.records.comparison import PairedEffect, Registration
from rewarm.records.facts import Record

__all__ = [
    "STREAM_PLAN",
    "Measure",
    "StreamCell",
    "StreamFigure",
    "StreamGain",
    "StreamMetric",
    "StreamProbe",
    "StreamResult",
    "StreamRun",
    "StreamSwap",
]

STREAM_PLAN: Final = "labelled stream"
"""The kind of a `plan.json` that is of no run over text."""

StreamMetric = Literal["final", "forgetting", "bwt", "min_acc", "wc_acc", "stability_gap"]

Measure = Literal["share right", "bits per byte"]
"""What a stream is measured by: accuracy on labelled examples, loss on held-out text."""


class StreamRun(Record):
    """One run. Figures are accuracies, as proportions, or bits per byte: the result's measure."""

    backbone: str
    learner: str
    seed: int
    matrix: tuple[tuple[float, ...], ...] = Field(
        description="row t: figures on tasks 0 … t after task t"
    )
    before: tuple[float, ...] = Field(
        (), description="of corpora: bits per byte on each task before the first step"
    )
    order: tuple[str, ...] = Field((), description="of corpora: which one each task is")
    second_stage: tuple[float, ...] | None = Field(description="figures by task, where it was")
    looks: tuple[tuple[int, int, tuple[float, ...]], ...] = Field(
        description="within a task: task, step, figures on the tasks before it"
    )
    metrics: dict[str, float | None]
    elapsed_s: float
    fingerprint: str = Field("", description="of all that the figures hang on")


class StreamFigure(Record):
    """A metric's mean over seeds with its 95 % t interval; one seed has none, nor have a few that
    are all the same."""

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
    mean_before: tuple[float, ...] = ()
    mean_second_stage: tuple[float, ...] = Field((), description="after it, where there was one")


class StreamProbe(Record):
    """How a linear classifier on a backbone's frozen features did, before anything was streamed."""

    backbone: str
    accuracies: tuple[float, ...] = Field(description="by seed, of training examples left out")
    figure: StreamFigure
    num_examples: int = Field(description="that it was fitted to, with the first seed")
    is_best: bool


class StreamGain(Record):
    """What a learner gains from a pre-trained backbone: its metric less that from scratch."""

    backbone: str
    scratch: str
    learner: str
    figure: StreamFigure
    rank_scratch: int = Field(description="of the learner's mean among learners, from 1")
    rank: int


class StreamSwap(Record):
    """Two learners whose order is one from scratch and the other on a pre-trained backbone."""

    backbone: str
    scratch: str
    ahead: str = Field(description="the learner that is ahead on the pre-trained backbone")
    behind: str
    effect: PairedEffect = Field(description="ahead - behind, pre-trained")
    effect_scratch: PairedEffect = Field(description="ahead - behind, from scratch")
    is_resolved: bool = Field(description="neither interval holds 0; unadjusted")


class StreamResult(Record):
    """The whole experiment: `result.json`."""

    name: str
    hypothesis: str
    registration: Registration | None = Field(
        description="of contrasts, as they stood before the first run; None: there are none"
    )
    measure: Measure = "share right"
    about: str = Field(description="scenario and source in a sentence")
    num_tasks: int
    mode: str
    task_names: tuple[str, ...] = Field(
        (), description="of corpora, where every seed has them in one order"
    )
    seeds: tuple[int, ...]
    cells: tuple[StreamCell, ...]
    runs: tuple[StreamRun, ...]
    probes: tuple[StreamProbe, ...] = ()
    control: str = Field(description="the cell that every other is held against")
    primary: tuple[PairedEffect, ...] = Field(description="the tests that Holm adjusts")
    secondary: tuple[PairedEffect, ...] = Field(
        description="against the control, metric by metric: exploratory, unadjusted"
    )
    gains: tuple[StreamGain, ...] = ()
    swaps: tuple[StreamSwap, ...] = ()
    verdict: str = Field(description="on the contrasts; empty where none was named")
    notes: tuple[str, ...] = ()
    provenance: dict[str, object]
