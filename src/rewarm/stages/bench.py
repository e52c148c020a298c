"""Where models are measured for a run: its suite, its precision, its records."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.progress import track
from torch import nn

from rewarm.evaluation.suite import EvaluationSuite
from rewarm.planning.plan import Placement, Plan
from rewarm.records.facts import EvalRecord
from rewarm.records.run_folder import RunFolder
from rewarm.stages.objective import MoreTasks, Objective
from rewarm.stages.trained import Trained, load_newest, load_planned_base

__all__ = ["Bench"]


@dataclass(frozen=True, slots=True)
class Bench:
    """What a run measures, and on what."""

    plan: Plan
    run: RunFolder
    suite: EvaluationSuite
    placement: Placement
    console: Console
    harness: MoreTasks | None = None

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
        is_whole = wanted <= have and (self.harness is None or self.harness.are_in(found))
        return found if is_whole else []

    def record_base(self) -> None:
        """Measure the base unless that is on record."""
        if not self.recorded(0):
            self._record(load_planned_base(self.plan, device=self.placement.device), 0)

    def record_newest(self) -> Trained:
        """Measure the newest verified checkpoint unless that is on record; return it."""
        trained = load_newest(self.plan, self.run, self.console, device=self.placement.device)
        if not self.recorded(trained.step):
            self._record(*trained)
        return trained

    def _record(self, model: nn.Module, step: int) -> None:
        records = self.measured(model, step)
        self.run.make_log_folder()
        self.run.append_evals(records)

    def measured(self, model: nn.Module, step: int, what: str = "") -> list[EvalRecord]:
        """Return the records of a model as those of a step, under a progress bar."""

        def advance(done: int, total: int) -> None:
            next(bar, None)

        objective = Objective.of(self.plan, self.placement)
        for notice in objective.settle_measures(model):
            self.say(f"warning: {notice}")
        told = f"evaluating {what or f'step {step}'}"
        bar = iter(track(range(self.suite.num_batches), told, console=self.console))
        records = objective.measure(
            model, self.suite, step=step, progress=advance, more=self.harness
        )
        next(bar, None)
        return records
