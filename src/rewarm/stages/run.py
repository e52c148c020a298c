"""`rewarm run`: the whole road for one recipe; each step is skipped where it is done."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.prompt import Confirm

from rewarm.errors import UserError
from rewarm.reporting.plan_terminal import plan_summary
from rewarm.reporting.report import write_run_report
from rewarm.stages.console import ledger_table
from rewarm.stages.evaluate import show_verdicts
from rewarm.stages.export import export_run
from rewarm.stages.job import command_line, keep_plan, open_job
from rewarm.stages.model_tools import MODEL_TOOLS
from rewarm.stages.plan import plan_job
from rewarm.stages.prepare import prepare_job
from rewarm.stages.rehearse import rehearse_job, show_rehearsals
from rewarm.stages.selecting import show_selections
from rewarm.stages.train import FINISHED, train_plan
from rewarm.training.sinks import check_sinks

__all__ = ["run_road"]


def run_road(path: Path, overrides: Iterable[str], *, yes: bool, sinks: tuple[str, ...]) -> int:
    """Plan, sample what the base makes up, prepare, plan on measured facts (shown, confirmed),
    train, evaluate, report, export.

    Returns the exit code: that of training where it was stopped before the end, else 0. Raises
    UserError where the plan has to be confirmed and nobody can be asked.
    """
    console = Console()
    check_sinks(sinks)
    overrides = list(overrides)
    job = open_job(path, overrides)
    # Mistakes in the recipe show before hours of tokenization.
    plan_job(job, estimates_allowed=True, open_chat=MODEL_TOOLS.open_chat)
    show_rehearsals(console, rehearse_job(job))
    facts = prepare_job(job, MODEL_TOOLS)
    console.print(ledger_table(facts))
    show_selections(facts, console)
    plan = plan_job(job, estimates_allowed=False)
    console.print(plan_summary(plan))
    begun = job.run.checkpoints.exists()
    if not (yes or begun):
        _confirm(path)
    keep_plan(plan, job)
    code = train_plan(
        plan, job.run, command=command_line("run", path, overrides, sinks), sinks=sinks
    )
    if code != FINISHED:
        return code
    show_verdicts(job.run, console)
    report = write_run_report(job.run)
    export_run(plan, job.run, console=console)
    console.print(f"report: {report}", markup=False, highlight=False, soft_wrap=True)
    return FINISHED


def _confirm(path: Path) -> None:
    if not sys.stdin.isatty():
        raise UserError.one(
            "rewarm run", "the plan wants a yes, and nobody can be asked here", "add --yes"
        )
    if not Confirm.ask("Train as planned?", default=True):
        raise UserError.one("rewarm run", "not confirmed", f"change {path} and run it again")
