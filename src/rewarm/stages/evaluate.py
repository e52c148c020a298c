"""`rewarm evaluate`: what was learned and what was forgotten, of a run or of any model folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from torch import nn

from rewarm.evaluation.likelihood import evaluate
from rewarm.evaluation.suite import EvaluationSuite
from rewarm.model.load import load_base
from rewarm.planning.plan import Placement, Plan
from rewarm.records.facts import EvalRecord
from rewarm.records.run_folder import RunFolder
from rewarm.reporting.terminal import verdict_table
from rewarm.stages.job import open_run
from rewarm.stages.measuring import suite_of
from rewarm.stages.train import open_views
from rewarm.stages.trained import load_planned_base, newest_checkpoint
from rewarm.training.placement import autocast_dtype, choose_placement
from rewarm.training.state import read_weights

__all__ = ["run_evaluate", "show_verdicts"]


def run_evaluate(path: Path, overrides: Iterable[str], *, model: Path | None) -> None:
    """Measure the run's newest checkpoint (or `model`) and the base; print the verdicts.

    What is already on record is not measured again. Figures of another model folder are shown
    against the base and not recorded: they are not of this run.
    """
    plan, run = open_run(path, overrides)
    console = Console()
    open_views(plan)
    # As in training: the same device and the same precision, so that figures can be compared.
    placement, _ = choose_placement(plan.conduct.training, plan.science, plan.conduct.model)
    bench = _Bench(plan, run, suite_of(plan), placement)
    for warning in bench.suite.warnings:
        console.print(f"warning: {warning}", markup=False, highlight=False)
    base = bench.base_records()
    if model is not None:
        other = load_base(model, device=placement.device)
        records = bench.measured(other, max(plan.science.num_steps, 1))
        console.print(verdict_table([*base, *records]))
        return
    bench.record_newest(newest_checkpoint(run, console))
    show_verdicts(run, console)


def show_verdicts(run: RunFolder, console: Console) -> None:
    """Print the verdict table of what is on record."""
    console.print(verdict_table(run.evals()))


@dataclass(frozen=True, slots=True)
class _Bench:
    """What a run measures, and on what."""

    plan: Plan
    run: RunFolder
    suite: EvaluationSuite
    placement: Placement

    def base_records(self) -> list[EvalRecord]:
        """Return the base's records at step 0, measuring it where they are missing."""
        found = [record for record in self.run.evals() if record.step == 0]
        if self._covered(found):
            return found
        records = self.measured(load_planned_base(self.plan, device=self.placement.device), 0)
        self.run.make_log_folder()
        self.run.append_evals(records)
        return records

    def record_newest(self, checkpoint: Path) -> None:
        """Measure a checkpoint unless that is on record."""
        model = load_planned_base(self.plan, device=self.placement.device)
        step = read_weights(checkpoint, model, self.plan.science)
        if not self._covered([record for record in self.run.evals() if record.step == step]):
            self.run.append_evals(self.measured(model, step))

    def _covered(self, records: list[EvalRecord]) -> bool:
        """Tell whether these records scored exactly what the suite scores."""
        have = {(record.domain, record.metric, record.items_key) for record in records}
        wanted = {
            (batched.measure.domain, batched.measure.metric, batched.measure.items_key)
            for batched in self.suite.measures
        }
        return wanted <= have

    def measured(self, model: nn.Module, step: int) -> list[EvalRecord]:
        """Return the records of a model as those of a step, under a progress bar."""

        def advance(done: int, total: int) -> None:
            next(bar, None)

        bar = iter(track(range(self.suite.num_batches), description=f"evaluating step {step}"))
        records = evaluate(
            model,
            self.suite,
            step=step,
            autocast_dtype=autocast_dtype(self.placement),
            progress=advance,
        )
        next(bar, None)
        return records
