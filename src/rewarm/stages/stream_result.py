"""From finished runs of a stream to its table, its tests, and what may be said.

The tests that Holm adjusts are the contrasts that the file names; where it names none, the final
accuracy of every cell against the control's. Gains from pre-training and learners that change
places are told beside them, unadjusted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rewarm.artifacts import provenance
from rewarm.comparison.effects import judged, paired_effect
from rewarm.comparison.metrics import MetricKind
from rewarm.comparison.paired import paired_mean
from rewarm.comparison.sentences import overall, sentence
from rewarm.records.comparison import Better, PairedEffect, Registration
from rewarm.records.stream import (
    Measure,
    StreamCell,
    StreamFigure,
    StreamGain,
    StreamMetric,
    StreamProbe,
    StreamResult,
    StreamRun,
    StreamSwap,
)
from rewarm.reporting.effects import expectation
from rewarm.stream.cells import Cell, Side
from rewarm.stream.experiment import StreamExperiment, named_cell
from rewarm.stream.sections import ContrastRecipe

__all__ = ["About", "claims_of", "conclude_stream", "contrast_facts"]

_LEVELS: tuple[StreamMetric, ...] = ("final", "min_acc", "wc_acc")
_BETTER: Mapping[StreamMetric, Better] = {
    "final": "higher",
    "forgetting": "lower",
    "bwt": "higher",
    "min_acc": "higher",
    "wc_acc": "higher",
    "stability_gap": "lower",
}
"""Of accuracies; of losses the levels are better where they are lower."""
_PACKAGES = ("rewarm", "torch", "transformers", "numpy", "pillow", "pyarrow")
_LEAST_SEEDS = 3


class About(NamedTuple):
    """What a stream is of: its measure, a sentence on scenario and source, its tasks."""

    measure: Measure
    sentence: str
    num_tasks: int
    task_names: tuple[str, ...] = ()


def contrast_facts(experiment: StreamExperiment) -> Iterator[tuple[str, str]]:
    """Yield each contrast that the file names as a plan tells it: which it is, what is expected."""
    for number, contrast in enumerate(experiment.contrasts, start=1):
        wanted = expectation(contrast.expect, contrast.within)
        pair = f"{contrast.cell} against {contrast.against}"
        yield f"contrast {number}", f"{contrast.metric}: {pair}, {wanted}"


def claims_of(experiment: StreamExperiment) -> dict[str, Any]:
    """Return all that the contrasts claim, and what the cells that they name hang on."""
    cells = {cell: None for c in experiment.contrasts for side in c.sides for cell in side.cells}
    shared = {
        "source": experiment.source.model_dump(mode="json"),
        "scenario": experiment.scenario.model_dump(mode="json"),
        "memory": experiment.memory.model_dump(mode="json"),
        "recipe": experiment.recipe,
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
        "backbone": backbone.claim() if backbone else cell.backbone,
        "learner": experiment.learner(cell.learner).model_dump(mode="json"),
    }


def conclude_stream(
    experiment: StreamExperiment,
    about: About,
    runs: Sequence[StreamRun],
    probes: Sequence[StreamProbe],
    registration: Registration | None,
) -> StreamResult:
    """Return what a finished experiment came to."""
    picked = next((probe.backbone for probe in probes if probe.is_best), None)
    table = _Table(runs, about.measure)
    cells = experiment.cells(picked)
    control = experiment.control_cell(picked)
    primary = judged(_primary(experiment, table, picked))
    gains, swaps = list(_gains(experiment, table)), list(_swaps(experiment, table))
    return StreamResult(
        name=experiment.name,
        hypothesis=experiment.hypothesis,
        registration=registration,
        measure=about.measure,
        about=about.sentence,
        task_names=about.task_names,
        num_tasks=about.num_tasks,
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

    def __init__(self, runs: Sequence[StreamRun], measure: Measure) -> None:
        self._runs = runs
        self._measure = measure

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
            self._kind(metric),
            (_told(own), _told(other)),
            (self.values(own, metric), self.values(other, metric)),
            expect=contrast.expect if contrast else None,
            within=contrast.within if contrast else None,
        )

    def rank(self, cell: Cell, cells: Sequence[Cell]) -> int:
        """Return the rank of a cell's mean among those of cells, from 1, the best."""
        return 1 + sum(self.is_better(self.mean(other), self.mean(cell)) for other in cells)

    def is_better(self, one: float, other: float) -> bool:
        """Tell whether a final level is better than another."""
        return one > other if self._kind("final").better == "higher" else one < other

    def best(self, cells: Sequence[Cell]) -> Cell:
        """Return the first of the cells with the best mean."""
        return min(cells, key=lambda cell: self.rank(cell, cells))

    def _kind(self, metric: StreamMetric) -> MetricKind:
        is_loss = self._measure == "bits per byte" and metric in _LEVELS
        return MetricKind("lower" if is_loss else _BETTER[metric], self._measure, by_subject=False)

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
    for cell, metric in itertools.product(cells, _BETTER):
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
        own, from_scratch = (
            [Cell(name, learner) for learner in learners] for name in (backbone, scratch)
        )
        for learner in learners:
            side = Side(Cell(backbone, learner), Cell(scratch, learner))
            yield StreamGain(
                backbone=backbone,
                scratch=scratch,
                learner=learner,
                figure=_figure(list(table.values(side, "final").values())),
                rank_scratch=table.rank(Cell(scratch, learner), from_scratch),
                rank=table.rank(Cell(backbone, learner), own),
            )


def _swaps(experiment: StreamExperiment, table: _Table) -> Iterator[StreamSwap]:
    found: list[StreamSwap] = []
    for backbone, scratch in _backbones(experiment):
        for ahead, behind in itertools.permutations(experiment.learners, 2):
            effects = [
                table.effect(Side(Cell(name, ahead)), Side(Cell(name, behind)), "final")
                for name in (backbone, scratch)
            ]
            own, from_scratch = effects
            if _sign(own) * (own.mean or 0.0) > 0.0 > _sign(own) * (from_scratch.mean or 0.0):
                found.append(
                    StreamSwap(
                        backbone=backbone,
                        scratch=scratch,
                        ahead=ahead,
                        behind=behind,
                        effect=own,
                        effect_scratch=from_scratch,
                        is_resolved=_leaves_zero_out(own) and _leaves_zero_out(from_scratch),
                    )
                )
    yield from sorted(found, key=lambda swap: not swap.is_resolved)


def _sign(effect: PairedEffect) -> int:
    return 1 if effect.better == "higher" else -1


def _leaves_zero_out(effect: PairedEffect) -> bool:
    low, high = effect.low, effect.high
    return low is not None and high is not None and (low > 0.0 or high < 0.0)


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
    tied = _as_good_as_the_best(probes)
    if tied:
        others = ", ".join(tied)
        yield f"The probe finds {others} as good as {best}, which comes first and is taken."
    elif best is not None and len(experiment.backbones) > 1 and experiment.learners:
        winners = {
            learner: table.best([Cell(name, learner) for name in experiment.backbones]).backbone
            for learner in experiment.learners
        }
        agreed = [learner for learner, winner in winners.items() if winner == best]
        told = f"The probe finds {best} best; on the stream it has the highest mean accuracy with"
        differing = sorted(set(experiment.learners) - set(agreed))
        differ = f" (not with {', '.join(differing)})" if differing else ""
        yield f"{told} {len(agreed)} of {len(experiment.learners)} learners{differ}."


def _as_good_as_the_best(probes: Sequence[StreamProbe]) -> list[str]:
    """Return the other backbones with the mean of the best one."""
    means = {probe.figure.mean for probe in probes if probe.is_best}
    return [p.backbone for p in probes if not p.is_best and p.figure.mean in means]


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
        mean_matrix=tuple(_means([run.matrix[t] for run in runs]) for t in rows),
        mean_before=_means([run.before for run in runs]),
        mean_second_stage=_means([run.second_stage or () for run in runs]),
    )


def _means(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.mean(rows, axis=0))
