"""`rewarm evaluate`: what was learned and what was forgotten, of a run or of any model folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.progress import track

from rewarm.errors import RunFolderError
from rewarm.evaluation.likelihood import evaluate
from rewarm.evaluation.suite import EvaluationSuite
from rewarm.model.load import load_base
from rewarm.planning.plan import Plan
from rewarm.records.facts import EvalRecord
from rewarm.records.run_folder import RunFolder
from rewarm.reporting.terminal import verdict_table
from rewarm.stages.job import open_run
from rewarm.stages.measuring import suite_of
from rewarm.stages.train import open_views
from rewarm.training.checkpoint import find_newest_verified
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
    suite = suite_of(plan)
    for warning in suite.warnings:
        console.print(f"warning: {warning}", markup=False, highlight=False)
    if model is not None:
        base = _base_records(plan, run, suite)
        step = max(plan.science.num_steps, 1)
        records = [*base, *_measure_folder(model, suite, step)]
        console.print(verdict_table(records))
        return
    _base_records(plan, run, suite)
    _newest_records(plan, run, suite)
    show_verdicts(run, console)


def show_verdicts(run: RunFolder, console: Console) -> None:
    """Print the verdict table of what is on record."""
    console.print(verdict_table(run.evals()))


def _base_records(plan: Plan, run: RunFolder, suite: EvaluationSuite) -> list[EvalRecord]:
    """Return the base's records at step 0, measuring it where they are missing."""
    found = [record for record in run.evals() if record.step == 0]
    if _covers(found, suite):
        return found
    records = _measure_folder(Path(plan.conduct.base_folder), suite, 0)
    run.make_log_folder()
    run.append_evals(records)
    return records


def _newest_records(plan: Plan, run: RunFolder, suite: EvaluationSuite) -> None:
    """Measure the newest verified checkpoint unless that is on record."""
    found = find_newest_verified(run.checkpoints)
    if found.path is None:
        raise RunFolderError.one(
            str(run.path), "it has no checkpoint yet", "run `rewarm train` first"
        )
    model = load_base(Path(plan.conduct.base_folder))
    step = read_weights(found.path, model, plan.science)
    if not _covers([record for record in run.evals() if record.step == step], suite):
        run.append_evals(_measured(model, suite, step))


def _covers(records: list[EvalRecord], suite: EvaluationSuite) -> bool:
    """Tell whether these records scored exactly what the suite scores."""
    have = {(record.domain, record.metric, record.items_key) for record in records}
    wanted = {
        (batched.measure.domain, batched.measure.metric, batched.measure.items_key)
        for batched in suite.measures
    }
    return wanted <= have


def _measure_folder(folder: Path, suite: EvaluationSuite, step: int) -> list[EvalRecord]:
    return _measured(load_base(folder), suite, step)


def _measured(model: object, suite: EvaluationSuite, step: int) -> list[EvalRecord]:
    bar = iter(track(range(suite.num_batches), description=f"evaluating step {step}"))
    records = evaluate(model, suite, step=step, progress=lambda done, total: next(bar, None))  # type: ignore[arg-type]
    next(bar, None)
    return records
