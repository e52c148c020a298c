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
from rewarm.stages.objective import head_loss, settle_loss
from rewarm.stages.train import open_views
from rewarm.stages.trained import load_newest, load_planned_base
from rewarm.training.lock import hold_lock
from rewarm.training.placement import autocast_dtype, choose_placement

__all__ = ["run_evaluate", "show_verdicts"]


def run_evaluate(path: Path, overrides: Iterable[str], *, model: Path | None) -> None:
    """Measure the run's newest checkpoint (or `model`) and the base; print the verdicts.

    What is already on record is not measured again. Figures of another model folder are shown
    against the base and not recorded: they are not of this run. Raises RunFolderError where a
    launch under way writes the records.
    """
    plan, run = open_run(path, overrides)
    console = Console()
    open_views(plan)
    # As in training: the same device and the same precision, so that figures can be compared.
    placement, _ = choose_placement(plan.conduct.training, plan.science, plan.conduct.model)
    bench = _Bench(plan, run, suite_of(plan), placement, console)
    for warning in bench.suite.warnings:
        bench.say(f"warning: {warning}")
    if model is not None:
        base = bench.recorded(0) or bench.measured(
            load_planned_base(plan, device=placement.device), 0
        )
        other = load_base(model, device=placement.device)
        records = bench.measured(other, max(plan.science.num_steps, 1))
        console.print(verdict_table([*base, *records]))
        return
    with hold_lock(run.lock, bench.say):
        bench.record_base()
        bench.record_newest()
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
    console: Console

    def say(self, message: str) -> None:
        """Print a line that stays."""
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def recorded(self, step: int) -> list[EvalRecord]:
        """Return the records of a step where they scored exactly what the suite scores, or none."""
        found = [record for record in self.run.evals() if record.step == step]
        have = {(record.domain, record.metric, record.items_key) for record in found}
        wanted = {
            (batched.measure.domain, batched.measure.metric, batched.measure.items_key)
            for batched in self.suite.measures
        }
        return found if wanted <= have else []

    def record_base(self) -> None:
        """Measure the base unless that is on record."""
        if not self.recorded(0):
            self._record(load_planned_base(self.plan, device=self.placement.device), 0)

    def record_newest(self) -> None:
        """Measure the newest verified checkpoint unless that is on record."""
        model, step = load_newest(self.plan, self.run, self.console, device=self.placement.device)
        if not self.recorded(step):
            self._record(model, step)

    def _record(self, model: nn.Module, step: int) -> None:
        records = self.measured(model, step)
        self.run.make_log_folder()
        self.run.append_evals(records)

    def measured(self, model: nn.Module, step: int) -> list[EvalRecord]:
        """Return the records of a model as those of a step, under a progress bar."""

        def advance(done: int, total: int) -> None:
            next(bar, None)

        loss = head_loss(self.placement)
        for notice in settle_loss(loss, self.placement, model, trains=False):
            self.say(f"warning: {notice}")
        bar = iter(track(range(self.suite.num_batches), description=f"evaluating step {step}"))
        records = evaluate(
            model,
            self.suite,
            step=step,
            losses=loss.token_losses,
            autocast_dtype=autocast_dtype(self.placement),
            progress=advance,
        )
        next(bar, None)
        return records
