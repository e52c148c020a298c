"""All runs of a stream: which there are, which are done, and what each of them hangs on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from rich.console import Console

from rewarm.artifacts import file_sha256, fingerprint, parse_json, write_json
from rewarm.comparison.paired import paired_mean
from rewarm.errors import BaseModelError, PlanError, Problems
from rewarm.records.reading import record_or_none
from rewarm.records.stream import StreamFigure, StreamProbe, StreamRun
from rewarm.stages.stream_backbones import FoundBackbone, find_backbone, folder_content
from rewarm.stages.stream_run import OneRun, RunPlace
from rewarm.stream.cells import PRESET, Cell
from rewarm.stream.experiment import WrittenStream
from rewarm.stream.inputs import Inputs, prepare_inputs
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
    _backbones: dict[str, FoundBackbone] = field(default_factory=dict)
    _source: str | None = None

    def have_begun(self) -> bool:
        """Tell whether any run has left something."""
        return any((self.written.folder / "runs").glob("*/*/seed-*"))

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
                recipe = self._found(name).recipe
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
        """Yield the runs of all cells, seed by seed."""
        for cell in cells:
            for seed in self._seeds():
                yield self._carry_out(cell, seed)

    def _carry_out(self, cell: Cell, seed: int) -> StreamRun:
        known = self._known(cell, seed)
        if known is not None:
            return known
        path, digest = self._record(cell, seed), self._fingerprint(cell, seed)
        told = f"{cell.backbone}, {cell.learner}, seed {seed}"

        def tell(what: str) -> None:
            self.console.print(f"{told}: {what}", markup=False, highlight=False, soft_wrap=True)

        experiment = self.written.experiment
        if path.exists():
            tell("on record with another source, other weights or settings: it is done again")
        run = OneRun(
            names={"backbone": cell.backbone, "learner": cell.learner},
            seed=seed,
            backbone=self._found(cell.backbone).recipe,
            recipe=experiment.learner(cell.learner),
            experiment=experiment,
            scenario=self._scenario(seed),
            inputs=self._inputs_of(cell.backbone),
            device=self.device,
        )
        every_s = experiment.checkpoint_every_s
        place = RunPlace(path.with_suffix(".checkpoints"), every_s, digest, tell)
        record = run.carry_out(place).model_copy(update={"fingerprint": digest})
        write_json(path, record.model_dump(mode="json"))
        run.clear(place)
        tell(f"{record.metrics['final']:.3f} in {record.elapsed_s:.0f} s")
        return record

    def _record(self, cell: Cell, seed: int) -> Path:
        """Return where a run is written down."""
        runs = self.written.folder / "runs"
        return runs / cell.backbone / cell.learner / f"seed-{seed}.json"

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
            recipe = self._found(backbone).recipe
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
            own, inputs = self._found(backbone).recipe, self._inputs_of(backbone)
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
        experiment = self.written.experiment
        return fingerprint(
            {
                **self._common(cell.backbone),
                "memory": experiment.memory.model_dump(mode="json"),
                "learner": experiment.learner(cell.learner).model_dump(mode="json"),
                "preset": cell.learner == PRESET,
                "seed": seed,
            }
        )

    def _common(self, backbone: str) -> dict[str, Any]:
        """Return what a probe and a run of a backbone hang on alike."""
        experiment = self.written.experiment
        return {
            "format": 6,
            "source": experiment.source.model_dump(mode="json"),
            "content": self._content(),
            "scenario": experiment.scenario.model_dump(mode="json"),
            "backbone": experiment.backbones[backbone].claim(),
            "weights": self._found(backbone).identity,
            "device": self.device.type,
        }

    def _content(self) -> str:
        source = self.written.source_path
        if self._source is None:
            self._source = file_sha256(source) if source.is_file() else folder_content(source)
        return self._source

    def _found(self, name: str) -> FoundBackbone:
        """Return what a backbone begins from: where its weights are others, runs are made again."""
        if name not in self._backbones:
            self._backbones[name] = find_backbone(self.written, name)
        return self._backbones[name]


def _known_probe(path: Path, digest: str) -> StreamProbe | None:
    try:
        stored: Mapping[str, Any] = parse_json(path.read_bytes())
        probe = StreamProbe.model_validate(stored["probe"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None
    return probe if stored.get("fingerprint") == digest else None
