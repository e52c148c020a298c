"""From finished runs of a stream to its table, its tests, and what may be said.

The tests that Holm adjusts are the contrasts that the file names; where it names none, the final
accuracy of every cell against the control's. Gains from pre-training and learners that change
places are told beside them, unadjusted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rewarm.artifacts import provenance
from rewarm.comparison.effects import judged, paired_effect
from rewarm.comparison.metrics import MetricKind
from rewarm.comparison.paired import paired_mean
from rewarm.comparison.sentences import overall, sentence
from rewarm.records.comparison import PairedEffect, Registration
from rewarm.records.stream import (
    StreamCell,
    StreamFigure,
    StreamGain,
    StreamMetric,
    StreamProbe,
    StreamResult,
    StreamRun,
    StreamSwap,
)
from rewarm.stream.cells import Cell, Side
from rewarm.stream.experiment import ContrastRecipe, StreamExperiment, named_cell
from rewarm.stream.source import Examples

__all__ = ["claims_of", "conclude_stream"]

_SHARE = "share right"
_KINDS: Mapping[StreamMetric, MetricKind] = {
    "final": MetricKind("higher", _SHARE, by_subject=False),
    "forgetting": MetricKind("lower", _SHARE, by_subject=False),
    "bwt": MetricKind("higher", _SHARE, by_subject=False),
    "min_acc": MetricKind("higher", _SHARE, by_subject=False),
    "wc_acc": MetricKind("higher", _SHARE, by_subject=False),
    "stability_gap": MetricKind("lower", _SHARE, by_subject=False),
}
_PACKAGES = ("rewarm", "torch", "transformers", "numpy", "pillow", "pyarrow")
_LEAST_SEEDS = 3


def claims_of(experiment: StreamExperiment) -> dict[str, Any]:
    """Return all that the contrasts claim, and what the cells that they name hang on."""
    cells = {cell: None for c in experiment.contrasts for side in c.sides for cell in side.cells}
    shared = {
        "source": experiment.source.model_dump(mode="json"),
        "scenario": experiment.scenario.model_dump(mode="json"),
        "memory": experiment.memory.model_dump(mode="json"),
    }
    return {
        "name": experiment.name,
        "hypothesis": experiment.hypothesis,
        "contrasts": [contrast.model_dump(mode="json") for contrast in experiment.contrasts],
        "seeds": experiment.seeds,
        "arms": {str(cell): {**shared, **_claim(experiment, cell)} for cell in cells},
    }


def _claim(experiment: StreamExperiment, cell: Cell) -> dict[str, Any]:
    backbone = experiment.backbones.get(cell.backbone)
    return {
        "backbone": backbone.model_dump(mode="json") if backbone else cell.backbone,
        "learner": experiment.learner(cell.learner).model_dump(mode="json"),
    }


def conclude_stream(
    experiment: StreamExperiment,
    examples: Examples,
    runs: Sequence[StreamRun],
    probes: Sequence[StreamProbe],
    registration: Registration | None,
) -> StreamResult:
    """Return what a finished experiment came to."""
    picked = next((probe.backbone for probe in probes if probe.is_best), None)
    table = _Table(runs)
    cells = experiment.cells(picked)
    control = experiment.control_cell(picked)
    primary = judged(_primary(experiment, table, picked))
    gains, swaps = list(_gains(experiment, table)), list(_swaps(experiment, table))
    return StreamResult(
        name=experiment.name,
        hypothesis=experiment.hypothesis,
        registration=registration,
        num_classes=len(examples.classes),
        num_tasks=experiment.scenario.tasks,
        num_train=int((~examples.is_test).sum()),
        num_test=int(examples.is_test.sum()),
        mode=experiment.scenario.mode,
        seeds=tuple(range(1, experiment.seeds + 1)),
        cells=tuple(_summary(cell, table.runs_of(cell)) for cell in cells),
        runs=tuple(runs),
        probes=tuple(probes),
        control=str(control),
        primary=primary,
        secondary=tuple(_secondary(table, cells, control)),
        gains=tuple(gains),
        swaps=tuple(swaps),
        verdict=overall(primary) if experiment.contrasts else "",
        notes=tuple(_notes(experiment, table, probes, registration)),
        provenance=provenance(_PACKAGES),
    )


class _Table:
    """Metrics of all runs, by cell and seed."""

    def __init__(self, runs: Sequence[StreamRun]) -> None:
        self._runs = runs

    def runs_of(self, cell: Cell) -> list[StreamRun]:
        return [run for run in self._runs if (run.backbone, run.learner) == cell]

    def values(self, side: Side, metric: StreamMetric) -> dict[int, float]:
        """Return a cell's metric by seed, or what it has more than another one's."""
        found, *less = (self._of_cell(cell, metric) for cell in side.cells)
        if not less:
            return found
        return {seed: found[seed] - less[0][seed] for seed in found if seed in less[0]}

    def mean(self, cell: Cell) -> float:
        """Return the mean final accuracy of a cell."""
        values = self.values(Side(cell), "final").values()
        return sum(values) / len(values)

    def effect(
        self, own: Side, other: Side, metric: StreamMetric, contrast: ContrastRecipe | None = None
    ) -> PairedEffect:
        return paired_effect(
            metric,
            _KINDS[metric],
            (_told(own), _told(other)),
            (self.values(own, metric), self.values(other, metric)),
            expect=contrast.expect if contrast else None,
            within=contrast.within if contrast else None,
        )

    def _of_cell(self, cell: Cell, metric: StreamMetric) -> dict[int, float]:
        values = {run.seed: run.metrics[metric] for run in self.runs_of(cell)}
        return {seed: value for seed, value in values.items() if value is not None}


def _told(side: Side) -> str:
    return str(side.cell) if side.less is None else f"({side.cell} − {side.less})"


def _primary(experiment: StreamExperiment, table: _Table, picked: str | None) -> list[PairedEffect]:
    def meant(side: Side) -> Side:
        return Side(*(named_cell(cell, picked) for cell in side.cells))

    if experiment.contrasts:
        return [
            table.effect(meant(c.sides[0]), meant(c.sides[1]), c.metric, c)
            for c in experiment.contrasts
        ]
    control = experiment.control_cell(picked)
    others = [cell for cell in experiment.cells(picked) if cell != control]
    return [table.effect(Side(cell), Side(control), "final") for cell in others]


def _secondary(table: _Table, cells: Sequence[Cell], control: Cell) -> Iterator[PairedEffect]:
    for cell, metric in itertools.product(cells, _KINDS):
        if cell != control:
            effect = table.effect(Side(cell), Side(control), metric)
            if effect.mean is not None:
                yield effect.model_copy(update={"sentence": sentence(effect, None)})


def _backbones(experiment: StreamExperiment) -> Iterator[tuple[str, str]]:
    """Yield every pre-trained backbone with the first one that begins from scratch."""
    scratch = [name for name, recipe in experiment.backbones.items() if not recipe.is_pretrained]
    for name, recipe in experiment.backbones.items():
        if recipe.is_pretrained and scratch:
            yield name, scratch[0]


def _gains(experiment: StreamExperiment, table: _Table) -> Iterator[StreamGain]:
    learners = list(experiment.learners)
    for backbone, scratch in _backbones(experiment):
        own, from_scratch = _ranks(table, backbone, learners), _ranks(table, scratch, learners)
        for learner in learners:
            side = Side(Cell(backbone, learner), Cell(scratch, learner))
            yield StreamGain(
                backbone=backbone,
                scratch=scratch,
                learner=learner,
                figure=_figure(list(table.values(side, "final").values())),
                rank_scratch=from_scratch[learner],
                rank=own[learner],
            )


def _ranks(table: _Table, backbone: str, learners: Sequence[str]) -> dict[str, int]:
    means = {learner: table.mean(Cell(backbone, learner)) for learner in learners}
    return {
        learner: 1 + sum(other > mean for other in means.values())
        for learner, mean in means.items()
    }


def _swaps(experiment: StreamExperiment, table: _Table) -> Iterator[StreamSwap]:
    found: list[StreamSwap] = []
    for backbone, scratch in _backbones(experiment):
        for ahead, behind in itertools.permutations(experiment.learners, 2):
            effects = [
                table.effect(Side(Cell(name, ahead)), Side(Cell(name, behind)), "final")
                for name in (backbone, scratch)
            ]
            own, from_scratch = effects
            if (own.mean or 0.0) > 0.0 and (from_scratch.mean or 0.0) < 0.0:
                found.append(
                    StreamSwap(
                        backbone=backbone,
                        scratch=scratch,
                        ahead=ahead,
                        behind=behind,
                        effect=own,
                        effect_scratch=from_scratch,
                        is_resolved=(own.low or 0.0) > 0.0 and (from_scratch.high or 0.0) < 0.0,
                    )
                )
    yield from sorted(found, key=lambda swap: not swap.is_resolved)


def _notes(
    experiment: StreamExperiment,
    table: _Table,
    probes: Sequence[StreamProbe],
    registration: Registration | None,
) -> Iterator[str]:
    """Yield what a reader has to know beside the numbers."""
    if registration is not None and not registration.before_runs:
        yield (
            f"What is claimed was written down at {registration.time}, after runs had begun: read "
            "it as a description, not as a prediction."
        )
    if experiment.seeds == 1:
        yield "One seed: how another would have come out is not known."
    elif experiment.seeds < _LEAST_SEEDS:
        yield f"Fewer than {_LEAST_SEEDS} seeds: intervals are very wide. Better take 5."
    best = next((probe.backbone for probe in probes if probe.is_best), None)
    if best is not None and len(experiment.backbones) > 1 and experiment.learners:
        winners = {
            learner: max(experiment.backbones, key=lambda name: table.mean(Cell(name, learner)))
            for learner in experiment.learners
        }
        agreed = [learner for learner, winner in winners.items() if winner == best]
        told = f"The probe finds {best} best; on the stream it has the highest mean accuracy with"
        others = sorted(set(experiment.learners) - set(agreed))
        differ = f" (not with {', '.join(others)})" if others else ""
        yield f"{told} {len(agreed)} of {len(experiment.learners)} learners{differ}."


def _figure(values: Sequence[float]) -> StreamFigure:
    found = paired_mean(values)  # a mean of seeds is one of differences from nothing
    return StreamFigure(mean=found.mean, low=found.low, high=found.high)


def _summary(cell: Cell, runs: Sequence[StreamRun]) -> StreamCell:
    figures = {}
    for name in runs[0].metrics:
        values = [value for run in runs if (value := run.metrics[name]) is not None]
        if values:
            figures[name] = _figure(values)
    rows = range(len(runs[0].matrix))
    return StreamCell(
        backbone=cell.backbone,
        learner=cell.learner,
        num_seeds=len(runs),
        figures=figures,
        mean_matrix=tuple(
            tuple(float(v) for v in np.mean([run.matrix[t] for run in runs], axis=0)) for t in rows
        ),
    )
