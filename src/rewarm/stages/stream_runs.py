"""All runs of a stream: which there are, which are done, and what each of them hangs on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from rich.console import Console

from rewarm.artifacts import file_sha256, fingerprint, parse_json, write_json
from rewarm.comparison.paired import paired_mean
from rewarm.errors import BaseModelError, PlanError, Problems, RunFolderError
from rewarm.records.reading import record_or_none
from rewarm.records.run_folder import RunFolder
from rewarm.records.stream import StreamFigure, StreamProbe, StreamRun
from rewarm.records.stream_folder import StreamFolder
from rewarm.stages.stream_backbones import Backbones, folder_content
from rewarm.stages.stream_keep import keep_stream_plan
from rewarm.stages.stream_run import OneRun, RunPlace
from rewarm.stream.cells import PRESET, Cell
from rewarm.stream.experiment import WrittenStream
from rewarm.stream.inputs import Inputs, prepare_inputs
from rewarm.stream.labelled_plan import StreamPlan, plan_labelled_run
from rewarm.stream.learning import Learning
from rewarm.stream.memory import Reservoir
from rewarm.stream.network import build_network
from rewarm.stream.probe import deal_probe, probe_accuracy
from rewarm.stream.scenario import Scenario, deal_classes
from rewarm.stream.sections import ProbeRecipe
from rewarm.stream.source import Examples
from rewarm.stream.trial import try_backbone

__all__ = ["StreamRuns"]


@dataclass(slots=True)
class StreamRuns:
    """The runs of an experiment, carried out from wherever they stand."""

    written: WrittenStream
    examples: Examples
    console: Console
    device: torch.device
    _inputs: dict[str, Inputs] = field(default_factory=dict)  # of one backbone at a time
    _source: str | None = None
    _backbones: Backbones = field(init=False)

    def __post_init__(self) -> None:
        self._backbones = Backbones(self.written)

    def have_begun(self) -> bool:
        """Tell whether any run has left something."""
        left = StreamFolder(self.written.folder).left()
        return any(path.is_file() or RunFolder(path).has_begun() for path in left)

    def hold_commits(self) -> None:
        """Hold to the commits that branches of the hub stand for now, or stood for before."""
        for told in self._backbones.hold():
            self.console.print(told, markup=False, highlight=False, soft_wrap=True)

    def try_backbones(self, *, with_weights: bool) -> None:
        """Try every backbone of which a run is left on one example; without weights, in its shape.

        Raises BaseModelError with all that cannot be used: the last of them would be told only
        when all runs of the others are done.
        """
        problems = Problems()
        for name in self.written.experiment.backbones:
            try:
                if self._is_done(name):
                    continue
                recipe = self._backbones.recipe(name, with_weights=with_weights)
                if not with_weights and recipe.path is not None:
                    recipe = recipe.model_copy(update={"from_scratch": True})
                try_backbone(name, recipe, self.written.experiment.source, self.examples)
            except BaseModelError as error:
                problems.extend(error.problems)
        problems.raise_as(BaseModelError)

    def _is_done(self, backbone: str) -> bool:
        """Tell whether all runs of a backbone are; a probe may yet choose it for a preset's."""
        experiment = self.written.experiment
        cells = [Cell(backbone, learner) for learner in experiment.learners]
        runs = itertools.product(cells, self._seeds())
        return experiment.preset is None and all(self._known(*run) for run in runs)

    def probes(self) -> list[StreamProbe]:
        """Return what a linear probe says of each backbone; the best one is marked."""
        recipe = self.written.experiment.probed
        if recipe is None:
            return []
        found = [self._probe(name, recipe) for name in self.written.experiment.backbones]
        best = max(found, key=lambda probe: probe.figure.mean).backbone
        return [p.model_copy(update={"is_best": p.backbone == best}) for p in found]

    def carry_out(self, cells: list[Cell]) -> Iterator[StreamRun]:
        """Yield the runs of all cells, seed by seed; all are planned before the first begins."""
        runs = list(itertools.product(cells, self._seeds()))
        self._keep_plans(runs)
        for cell, seed in runs:
            yield self._carry_out(cell, seed)

    def _keep_plans(self, runs: Iterable[tuple[Cell, int]]) -> None:
        """Write the plans of all runs that are not done; raises RunFolderError with every folder of
        which it is not known what has begun there."""
        problems = Problems()
        for cell, seed in runs:
            if self._known(cell, seed) is not None:
                continue
            try:
                keep_stream_plan(
                    self._plan(cell, seed),
                    self._run_folder(cell, seed),
                    on_record=self._record(cell, seed).exists(),
                    tell=partial(self._tell, cell, seed),
                )
            except RunFolderError as error:
                problems.extend(error.problems)
        problems.raise_as(RunFolderError)

    def _plan(self, cell: Cell, seed: int) -> StreamPlan:
        experiment, classes = self.written.experiment, self.examples.classes
        hangs_on = self._hangs_on(cell, seed)
        return plan_labelled_run(experiment, cell, self._scenario(seed), classes, hangs_on)

    def _tell(self, cell: Cell, seed: int, what: str) -> None:
        told = f"{cell.backbone}, {cell.learner}, seed {seed}: {what}"
        self.console.print(told, markup=False, highlight=False, soft_wrap=True)

    def _carry_out(self, cell: Cell, seed: int) -> StreamRun:
        known = self._known(cell, seed)
        if known is not None:
            return known
        path, digest = self._record(cell, seed), self._fingerprint(cell, seed)
        experiment, tell = self.written.experiment, partial(self._tell, cell, seed)
        run = OneRun(
            names={"backbone": cell.backbone, "learner": cell.learner},
            seed=seed,
            backbone=self._backbones.recipe(cell.backbone, with_weights=True),
            recipe=experiment.learner(cell.learner),
            experiment=experiment,
            scenario=self._scenario(seed),
            inputs=self._inputs_of(cell.backbone),
            device=self.device,
        )
        every_s = experiment.checkpoint_every_s
        place = RunPlace(self._run_folder(cell, seed), every_s, digest, tell)
        record = run.carry_out(place).model_copy(update={"fingerprint": digest})
        write_json(path, record.model_dump(mode="json"))
        run.clear(place)
        tell(f"{record.metrics['final']:.3f} in {record.elapsed_s:.0f} s")
        return record

    def _record(self, cell: Cell, seed: int) -> Path:
        """Return where a run is written down."""
        return StreamFolder(self.written.folder).figures(cell.backbone, cell.learner, seed)

    def _run_folder(self, cell: Cell, seed: int) -> RunFolder:
        """Return where its plan, records and checkpoints are."""
        return StreamFolder(self.written.folder).run(cell.backbone, cell.learner, seed)

    def _known(self, cell: Cell, seed: int) -> StreamRun | None:
        """Return a run that is done, where it is of these very settings."""
        run = record_or_none(self._record(cell, seed), StreamRun)
        return run if run is not None and run.fingerprint == self._fingerprint(cell, seed) else None

    def _seeds(self) -> range:
        return range(1, self.written.experiment.seeds + 1)

    def _scenario(self, seed: int) -> Scenario:
        recipe = self.written.experiment.scenario
        return Scenario(
            labels=self.examples.labels,
            is_test=self.examples.is_test,
            tasks=deal_classes(len(self.examples.classes), recipe.num_tasks, seed),
            seed=seed,
            num_epochs=recipe.num_epochs,
            batch=recipe.batch,
        )

    def _inputs_of(self, backbone: str) -> Inputs:
        if backbone not in self._inputs:
            experiment = self.written.experiment
            recipe = self._backbones.recipe(backbone, with_weights=False)
            self._inputs = {backbone: prepare_inputs(self.examples, experiment.source, recipe)}
        return self._inputs[backbone]

    def _probe(self, backbone: str, recipe: ProbeRecipe) -> StreamProbe:
        path = self.written.folder / "probes" / f"{backbone}.json"
        digest = fingerprint({**self._common(backbone), "probe": recipe.model_dump(mode="json")})
        known = _known_probe(path, digest)
        if known is not None:
            return known
        measured = [self._probe_once(backbone, recipe, seed) for seed in self._seeds()]
        accuracies = tuple(accuracy for accuracy, _ in measured)
        mean = paired_mean(accuracies)
        probe = StreamProbe(
            backbone=backbone,
            accuracies=accuracies,
            figure=StreamFigure(mean=mean.mean, low=mean.low, high=mean.high),
            num_examples=measured[0][1],
            is_best=False,
        )
        write_json(path, {"fingerprint": digest, "probe": probe.model_dump(mode="json")})
        return probe

    def _probe_once(self, backbone: str, recipe: ProbeRecipe, seed: int) -> tuple[float, int]:
        scenario = self._scenario(seed)
        tasks = range(1 if recipe.classes == "first-task" else len(scenario.tasks))
        candidates = scenario.train_of_all(tasks)
        labels = self.examples.labels
        fitted, measured = deal_probe(labels, candidates, recipe.examples_per_class, seed)
        if not len(measured):
            raise PlanError.one(
                "probe", "no class has two training examples", "leave the probe out"
            )
        with torch.random.fork_rng():
            num_classes = len(self.examples.classes)
            own = self._backbones.recipe(backbone, with_weights=True)
            inputs = self._inputs_of(backbone)
            network = build_network(own, num_classes, seed, inputs.rows(np.arange(1)))
            learning = Learning(
                network=network.to(self.device),
                inputs=inputs,
                labels=torch.from_numpy(labels),
                memory=Reservoir(1),
                memory_batch=1,
                lr=own.learning_rate,
                seed=seed,
            )
            accuracy = probe_accuracy(
                learning.raw_features(fitted),
                labels[fitted].tolist(),
                learning.raw_features(measured),
                labels[measured].tolist(),
            )
        return accuracy, len(fitted)

    def _fingerprint(self, cell: Cell, seed: int) -> str:
        return fingerprint(self._hangs_on(cell, seed))

    def _hangs_on(self, cell: Cell, seed: int) -> dict[str, Any]:
        """Return what a run's figures hang on."""
        experiment = self.written.experiment
        return {
            **self._common(cell.backbone),
            "memory": experiment.memory.model_dump(mode="json"),
            "learner": experiment.learner(cell.learner).model_dump(mode="json"),
            "preset": cell.learner == PRESET,
            "seed": seed,
        }

    def _common(self, backbone: str) -> dict[str, Any]:
        """Return what a probe and a run of a backbone hang on alike."""
        experiment = self.written.experiment
        return {
            "format": 6,
            "source": experiment.source.model_dump(mode="json"),
            "content": self._content(),
            "scenario": experiment.scenario.model_dump(mode="json"),
            "backbone": experiment.backbones[backbone].claim(),
            "weights": self._backbones.identity(backbone),
            "device": self.device.type,
        }

    def _content(self) -> str:
        source = self.written.source_path
        if self._source is None:
            self._source = file_sha256(source) if source.is_file() else folder_content(source)
        return self._source


def _known_probe(path: Path, digest: str) -> StreamProbe | None:
    try:
        stored: Mapping[str, Any] = parse_json(path.read_bytes())
        probe = StreamProbe.model_validate(stored["probe"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None
    return probe if stored.get("fingerprint") == digest else None
