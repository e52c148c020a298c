"""`rewarm stream`: every backbone with every learner over one stream, seed by seed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydantic import ValidationError
from rich.console import Console

from rewarm.artifacts import (
    file_entries,
    file_sha256,
    fingerprint,
    parse_json,
    provenance,
    write_json,
)
from rewarm.comparison.paired import paired_mean
from rewarm.errors import CorpusError, PlanError
from rewarm.records.stream import StreamCell, StreamFigure, StreamResult, StreamRun
from rewarm.reporting.stream_page import write_stream_page
from rewarm.reporting.stream_terminal import stream_plan, stream_table
from rewarm.stages.stream_learners import build_learner, memory_of
from rewarm.stream.course import run_record, second_stage, take_course
from rewarm.stream.experiment import StreamExperiment, WrittenStream, read_stream
from rewarm.stream.learning import Learning
from rewarm.stream.network import Inputs, build_network, prepare_inputs
from rewarm.stream.scenario import Scenario, deal_classes
from rewarm.stream.source import Examples, read_examples
from rewarm.training.lock import hold_lock

__all__ = ["run_stream"]

_PACKAGES = ("rewarm", "torch", "transformers", "numpy", "pillow", "pyarrow")


class _Cell(NamedTuple):
    backbone: str
    learner: str
    seed: int

    @property
    def file_name(self) -> str:
        return f"{self.backbone}/{self.learner}/seed-{self.seed}.json"


def run_stream(path: Path, *, dry_run: bool) -> int:
    """Carry out an experiment from wherever it stands; return the exit code.

    With `dry_run` it is read, checked and shown, and nothing is written. A run that was killed
    begins again and comes to the same figures: all that it draws hangs on its seed.
    """
    console = Console()
    written = read_stream(path)
    examples = read_examples(written.experiment.source, written.source_path)
    _check(written.experiment, examples)
    console.print(stream_plan(written.experiment.name, _facts(written.experiment, examples)))
    if dry_run:
        console.print("\nnothing was run: leave out --dry-run to begin")
        return 0
    written.folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(written.folder / "lock.json", console.print):
        result = _Stream(written, examples, console).carry_out()
    write_json(written.folder / "result.json", result.model_dump(mode="json"))
    page = write_stream_page(result, written.folder)
    console.print(stream_table(result))
    console.print(f"\n{page}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _facts(experiment: StreamExperiment, examples: Examples) -> list[tuple[str, str]]:
    scenario, memory = experiment.scenario, experiment.memory
    num_test = int(examples.is_test.sum())
    num_runs = len(experiment.backbones) * len(experiment.learners) * experiment.seeds
    passes = "one pass" if scenario.mode == "online" else f"{scenario.epochs} passes over each task"
    return [
        ("classes", f"{len(examples.classes)} in {scenario.tasks} tasks, {passes}"),
        ("examples", f"{len(examples.labels) - num_test} to train on, {num_test} to test on"),
        ("memory", f"{memory.size} examples, {memory.kind}, {memory.batch} a step"),
        ("backbones", ", ".join(experiment.backbones)),
        ("learners", ", ".join(experiment.learners)),
        ("runs", f"{num_runs}, {experiment.seeds} seeds each"),
    ]


def _check(experiment: StreamExperiment, examples: Examples) -> None:
    tasks, classes = experiment.scenario.tasks, len(examples.classes)
    if tasks > classes:
        raise PlanError.one(
            "scenario.tasks", f"{tasks} tasks of {classes} classes", f"give at most {classes}"
        )
    if examples.is_test.all() or not examples.is_test.any():
        raise CorpusError.one("source", "nothing to train or to test on", "check source.split")


@dataclass(frozen=True, slots=True)
class _Stream:
    written: WrittenStream
    examples: Examples
    console: Console

    def cells(self) -> Iterator[_Cell]:
        experiment = self.written.experiment
        for backbone in experiment.backbones:
            for learner in experiment.learners:
                for seed in range(1, experiment.seeds + 1):
                    yield _Cell(backbone, learner, seed)

    def carry_out(self) -> StreamResult:
        runs: list[StreamRun] = []
        identity = {name: self._identity(name) for name in self.written.experiment.backbones}
        inputs: dict[str, Inputs] = {}  # of one backbone at a time
        for cell in self.cells():
            path = self.written.folder / "runs" / cell.file_name
            digest = self._fingerprint(cell, identity[cell.backbone])
            run = _known(path, digest)
            if run is None:
                if cell.backbone not in inputs:
                    recipe = self.written.experiment.backbones[cell.backbone]
                    made = prepare_inputs(self.examples, self.written.experiment.source, recipe)
                    inputs = {cell.backbone: made}
                run = self._run(cell, inputs[cell.backbone])
                run = run.model_copy(update={"fingerprint": digest})
                write_json(path, run.model_dump(mode="json"))
                self.console.print(
                    f"{cell.backbone}, {cell.learner}, seed {cell.seed}: "
                    f"{run.metrics['final']:.3f} in {run.elapsed_s:.0f} s",
                    markup=False,
                    highlight=False,
                )
            runs.append(run)
        return self._result(runs)

    def scenario(self, seed: int) -> Scenario:
        recipe = self.written.experiment.scenario
        return Scenario(
            labels=self.examples.labels,
            is_test=self.examples.is_test,
            tasks=deal_classes(len(self.examples.classes), recipe.tasks, seed),
            seed=seed,
            num_epochs=recipe.num_epochs,
            batch=recipe.batch,
        )

    def _run(self, cell: _Cell, inputs: Inputs) -> StreamRun:
        experiment, started = self.written.experiment, time.perf_counter()
        scenario = self.scenario(cell.seed)
        recipe = experiment.learners[cell.learner]
        backbone = experiment.backbones[cell.backbone]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(cell.seed)  # dropout of a pre-trained backbone
            learning = Learning(
                network=build_network(backbone, len(self.examples.classes), cell.seed),
                inputs=inputs,
                labels=torch.from_numpy(self.examples.labels),
                memory=memory_of(experiment.memory, cell.seed),
                memory_batch=experiment.memory.batch,
                lr=backbone.learning_rate,
                generator=np.random.default_rng((cell.seed, 5)),
            )
            learning.network.train()
            built = build_learner(recipe, experiment, learning, cell.seed)
            matrix, looks = take_course(
                built.learner, scenario, evaluate_every=experiment.scenario.evaluate_every
            )
            second = None
            if recipe.second_stage_epochs:
                second = second_stage(learning, scenario, built.kept(), recipe.second_stage_epochs)
        names = {"backbone": cell.backbone, "learner": cell.learner}
        elapsed_s = time.perf_counter() - started
        return run_record(names, cell.seed, matrix, looks, second, elapsed_s)

    def _identity(self, name: str) -> object:
        """Return what a local backbone's weights are: an altered folder's runs are made again."""
        recipe = self.written.experiment.backbones[name]
        folder = Path(recipe.path or "")
        if recipe.path is None or not folder.is_dir():
            return recipe.path
        return file_entries(folder, [f.name for f in folder.iterdir() if f.is_file()])

    def _fingerprint(self, cell: _Cell, identity: object) -> str:
        experiment, source = self.written.experiment, self.written.source_path
        return fingerprint(
            {
                "source": experiment.source.model_dump(mode="json"),
                "content": file_sha256(source) if source.is_file() else _folder_content(source),
                "scenario": experiment.scenario.model_dump(mode="json"),
                "memory": experiment.memory.model_dump(mode="json"),
                "backbone": experiment.backbones[cell.backbone].model_dump(mode="json"),
                "weights": identity,
                "learner": experiment.learners[cell.learner].model_dump(mode="json"),
                "seed": cell.seed,
            }
        )

    def _result(self, runs: Sequence[StreamRun]) -> StreamResult:
        experiment = self.written.experiment
        return StreamResult(
            name=experiment.name,
            num_classes=len(self.examples.classes),
            num_tasks=experiment.scenario.tasks,
            num_train=int((~self.examples.is_test).sum()),
            num_test=int(self.examples.is_test.sum()),
            mode=experiment.scenario.mode,
            seeds=tuple(range(1, experiment.seeds + 1)),
            cells=tuple(
                _summary([r for r in runs if (r.backbone, r.learner) == (backbone, learner)])
                for backbone in experiment.backbones
                for learner in experiment.learners
            ),
            runs=tuple(runs),
            provenance=provenance(_PACKAGES),
        )


def _folder_content(folder: Path) -> str:
    names = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
    return fingerprint(file_entries(folder, names))


def _known(path: Path, digest: str) -> StreamRun | None:
    """Return the run of a file, where it is of these very settings."""
    try:
        run = StreamRun.model_validate(parse_json(path.read_bytes()))
    except (OSError, ValueError, ValidationError):
        return None
    return run if run.fingerprint == digest else None


def _summary(runs: Sequence[StreamRun]) -> StreamCell:
    figures = {}
    for name in runs[0].metrics:
        values = [value for run in runs if (value := run.metrics[name]) is not None]
        if values:
            found = paired_mean(values)  # a mean of seeds is one of differences from nothing
            figures[name] = StreamFigure(mean=found.mean, low=found.low, high=found.high)
    rows = range(len(runs[0].matrix))
    return StreamCell(
        backbone=runs[0].backbone,
        learner=runs[0].learner,
        num_seeds=len(runs),
        figures=figures,
        mean_matrix=tuple(
            tuple(float(v) for v in np.mean([run.matrix[t] for run in runs], axis=0)) for t in rows
        ),
    )
