"""The plan of a run over labelled examples: all that it will do, frozen before it begins.

It is a record of its own, beside the `Plan` of a run over text: there are no tokens, sources,
schedules or phases here. What figures hang on is fingerprinted; the rest follows from it, or says
why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any, Literal

import numpy as np
from pydantic import Field

from rewarm.artifacts import fingerprint
from rewarm.planning.plan import Estimate, Reason, differences
from rewarm.planning.retention import STREAMS
from rewarm.records.facts import Record
from rewarm.records.stream import STREAM_PLAN
from rewarm.stream.cells import Cell
from rewarm.stream.experiment import StreamExperiment
from rewarm.stream.scenario import Scenario
from rewarm.stream.sections import BackboneRecipe, LearnerRecipe

__all__ = ["PlannedTask", "StreamPlan", "plan_labelled_run", "stream_plan_diff"]


class PlannedTask(Record):
    """The classes that come together, and what of them is learned and measured."""

    classes: tuple[str, ...]
    num_examples: int = Field(description="to train on, in each pass")
    num_test: int
    num_steps: int = Field(description="on the stream, over all passes")


class StreamPlan(Record):
    """The whole plan, as it stands in `plan.json`."""

    kind: Literal["labelled stream"] = STREAM_PLAN
    name: str
    fingerprint: str = Field(description="of what it hangs on")
    hangs_on: dict[str, Any] = Field(
        description="source and content, scenario, memory, learner, backbone and its weights (of "
        "the hub: their commit), device, seed: a run goes on under no other"
    )
    tasks: tuple[PlannedTask, ...] = Field(description="in their order")
    num_epochs: int = Field(description="passes over each task")
    batch: int = Field(description="examples of the stream in a step")
    lr: float = Field(description="of every step: plain SGD")
    reasons: tuple[Reason, ...]
    estimates: tuple[Estimate, ...]

    def is_whole(self) -> bool:
        """Tell whether it says what its fingerprint is of."""
        return self.fingerprint == fingerprint(self.hangs_on)


def plan_labelled_run(
    experiment: StreamExperiment,
    cell: Cell,
    scenario: Scenario,
    classes: tuple[str, ...],
    hangs_on: Mapping[str, Any],
) -> StreamPlan:
    """Return the plan of a cell with the seed of its scenario; `classes` are names by number."""
    tasks = tuple(_tasks(scenario, classes))
    backbone = experiment.backbones[cell.backbone]
    return StreamPlan(
        name=f"{cell}, seed {scenario.seed}",
        fingerprint=fingerprint(hangs_on),
        hangs_on=dict(hangs_on),
        tasks=tasks,
        num_epochs=scenario.num_epochs,
        batch=scenario.batch,
        lr=backbone.learning_rate,
        reasons=tuple(_reasons(experiment, cell, scenario.seed, hangs_on)),
        estimates=(_updates(experiment, experiment.learner(cell.learner), tasks),),
    )


def stream_plan_diff(old: StreamPlan, new: StreamPlan) -> list[str]:
    """Return what differs in what two plans hang on: `memory.size: 12 → 20`."""
    before, after = dict(old.hangs_on), dict(new.hangs_on)
    found = []
    # Digests: nobody reads from them what changed.
    if before.pop("content", None) != after.pop("content", None):
        found.append("the examples of the source changed")
    if before.pop("weights", None) != after.pop("weights", None):
        found.append("the weights of the backbone changed")
    return [*found, *differences(before, after, "")]


def _tasks(scenario: Scenario, classes: tuple[str, ...]) -> Iterator[PlannedTask]:
    num_classes = len(classes)
    train, test = (
        np.bincount(scenario.labels[of], minlength=num_classes)
        for of in (~scenario.is_test, scenario.is_test)
    )
    for labels in scenario.tasks:
        num_examples = int(train[list(labels)].sum())
        yield PlannedTask(
            classes=tuple(classes[label] for label in labels),
            num_examples=num_examples,
            num_test=int(test[list(labels)].sum()),
            num_steps=scenario.num_epochs * _num_batches(num_examples, scenario.batch),
        )


def _num_batches(num_examples: int, batch: int) -> int:
    return -(-num_examples // batch)


def _updates(
    experiment: StreamExperiment, learner: LearnerRecipe, tasks: tuple[PlannedTask, ...]
) -> Estimate:
    """Return how many updates the run takes; `scr` leaves steps without two of a class out."""
    memory, so_far = experiment.memory, list(accumulate(task.num_examples for task in tasks))
    passes, size = experiment.scenario.num_epochs, memory.size
    of_memory = [_num_batches(min(size, n), memory.num_examples_per_step) for n in so_far]
    if learner.algorithm == "joint":
        batch = experiment.scenario.batch
        number = passes * sum(_num_batches(n, batch) for n in so_far)
        formula = "Σ over tasks of passes · ⌈examples so far / batch⌉"
    elif learner.algorithm == "gdumb":
        number = learner.memory_epochs * sum(of_memory)
        formula = "Σ over tasks of memory_epochs · ⌈examples kept / memory.batch⌉"
    else:
        number = sum(task.num_steps for task in tasks)
        formula = "Σ over tasks of passes · ⌈examples / batch⌉"
    if learner.second_stage_epochs:
        number += learner.second_stage_epochs * of_memory[-1]
        formula += " + second_stage_epochs · ⌈examples kept / memory.batch⌉"
    return Estimate(name="updates", value=number, unit="updates", formula=formula)


def _reasons(
    experiment: StreamExperiment, cell: Cell, seed: int, hangs_on: Mapping[str, Any]
) -> Iterator[Reason]:
    scenario, memory = experiment.scenario, experiment.memory
    learner, backbone = experiment.learner(cell.learner), experiment.backbones[cell.backbone]

    def because(field: str, value: object, reason: str, source: str = "experiment") -> Reason:
        return Reason(field=field, value=str(value), reason=reason, source=source)

    yield because(
        "tasks",
        scenario.num_tasks,
        f"the order of classes, and of examples within a task, is drawn by seed {seed}; every "
        "backbone and learner has the same",
    )
    passes = "one pass: online" if scenario.mode == "online" else "offline"
    yield because("num_epochs", scenario.num_epochs, passes)
    whose = "given" if scenario.said(["batch"]) else "the default"
    yield because("batch", scenario.batch, f"examples of the stream in a step: {whose}")
    yield because(
        "memory",
        f"{memory.size}, {memory.kind}",
        f"{memory.num_examples_per_step} of them a step, where the learner replays; an example is "
        "offered when it is first shown",
    )
    if backbone.lr is None:
        what = "pre-trained weights" if backbone.is_pretrained else "weights from scratch"
        yield because("lr", backbone.learning_rate, f"of {what}, unless it is given", STREAMS)
    else:
        yield because("lr", backbone.learning_rate, "given")
    yield because("learner", learner.algorithm, _learner_reason(learner))
    yield because("backbone", cell.backbone, _weights_reason(backbone, hangs_on["weights"]))
    yield because("device", hangs_on["device"], "a GPU where torch sees one", "this machine")


def _learner_reason(learner: LearnerRecipe) -> str:
    if not learner.second_stage_epochs:
        return "one stage"
    return f"then {learner.second_stage_epochs} passes over the memory"


def _weights_reason(backbone: BackboneRecipe, weights: str | None) -> str:
    if backbone.path is None or weights is None:
        return f"the small {backbone.small}, its weights drawn by the seed"
    drawn = ", its weights drawn anew by the seed" if backbone.from_scratch else ""
    if weights.startswith(f"{backbone.path}@"):
        return f"commit {weights.removeprefix(f'{backbone.path}@')} of the hub{drawn}"
    return f"the folder whose content has the digest {weights[:12]}{drawn}"
