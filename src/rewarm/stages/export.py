"""`rewarm export`: the newest verified checkpoint to a Hugging Face folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from rewarm.artifacts import parse_json
from rewarm.batches.loader import BatchLoader
from rewarm.errors import EnvironmentFault, PlanError
from rewarm.evaluation.forgetting import domain_verdicts
from rewarm.export import Exported, ModelCard, export_model, find_export
from rewarm.model.adapter import merge_adapters
from rewarm.planning.amended import amended_plan
from rewarm.planning.amendments import read_amendments
from rewarm.planning.plan import Placement, Plan
from rewarm.records.facts import LOSS_METRICS
from rewarm.records.run_folder import RunFolder
from rewarm.stages.job import open_run
from rewarm.stages.train import open_views
from rewarm.stages.trained import load_newest, newest_checkpoint
from rewarm.training.checkpoint import step_of

__all__ = ["export_run", "run_export"]

_SAMPLE_SEQUENCES = 2


def run_export(
    path: Path,
    overrides: Iterable[str],
    *,
    output: Path | None,
    dtype: str | None,
    average: bool = False,
) -> None:
    """Export the run, or the average of its weights, and print the folder."""
    plan, run = open_run(path, overrides)
    export_run(plan, run, output=output, dtype=dtype, average=average, console=Console())


def export_run(
    plan: Plan,
    run: RunFolder,
    *,
    console: Console,
    output: Path | None = None,
    dtype: str | None = None,
    average: bool = False,
) -> Path:
    """Export the run's newest verified checkpoint, or the `average` of the weights that lies in it;
    what is there already is not made twice.

    An export of another step in the run's own folder is put aside, not overwritten. Raises
    RunFolderError where there is no checkpoint, CheckpointError where none can be trusted,
    PlanError where the run keeps no average.
    """
    if average and plan.science.retention.ema is None:
        raise PlanError.one(
            "retention.ema",
            f"the run {plan.name} keeps no average of its weights",
            "export without --average; a run with retention.ema.decay keeps one, and `rewarm merge "
            "--method average` makes one of checkpoints",
        )
    own = run.average_export if average else run.export
    folder = output or own
    checkpoint = newest_checkpoint(run, console)
    make_way: Callable[[], None] | None = None
    if output is None and own.exists():
        held = find_export(own, plan.fingerprint)
        if held == Exported(step_of(checkpoint), []) and dtype is None:
            _say(console, f"exported already: {folder}")
            return folder
        if held is not None:
            make_way = partial(_put_aside, own, held, console)
    model, step = load_newest(plan, run, console, device="cpu", average=average)
    if plan.science.parameters.adapter is not None:
        merge_adapters(model)
    if step < plan.science.num_steps:
        _say(console, f"warning: the run is at step {step} of {plan.science.num_steps}")
    measured = run.average_evals() if average else run.evals()
    records = [record for record in measured if record.step <= step]
    verdicts = [
        verdict
        for metric in sorted({record.metric for record in records})
        for verdict in domain_verdicts(records, metric=metric)
        if verdict.last_step > 0 or metric in LOSS_METRICS
    ]
    batches = BatchLoader(
        plan.science.order(),
        open_views(plan),
        sequence_length=plan.science.sequence_length,
        vocab_size=plan.conduct.model.vocab_size,
    )
    sample: torch.Tensor = batches.batch(0).input_ids[:_SAMPLE_SEQUENCES]
    amendments = read_amendments(run.amendments, plan.fingerprint)
    card = ModelCard(
        amended_plan(plan, amendments), verdicts, step, _precision(run), of_average=average
    )
    with console.status("exporting, and reading back what was written"):
        export_model(model, folder=folder, card=card, sample=sample, dtype=dtype, make_way=make_way)
    _say(console, f"exported and verified: {folder.resolve()}")
    return folder


def _precision(run: RunFolder) -> str | None:
    """Return the precision that the last launch computed in; None where it is not on record."""
    try:
        placement = Placement.model_validate(parse_json(run.placement.read_bytes()))
    except (OSError, ValueError):
        return None
    return placement.autocast_dtype or "float32"


def _put_aside(folder: Path, held: Exported, console: Console) -> None:
    """Rename the run's export of another step or type, or a damaged one: nothing that was handed
    out is lost."""
    name = f"{folder.name}-step-{held.step:08d}" + ("-damaged" if held.problems else "")
    aside = folder.with_name(name)
    number = 1
    while aside.exists():
        number += 1
        aside = folder.with_name(f"{name}-{number}")
    try:
        os.rename(folder, aside)
    except OSError as error:
        raise EnvironmentFault(
            f"{folder} cannot be renamed ({error.strerror or error})",
            "make the run folder writable, or name another folder with --output",
        ) from error
    if held.problems:
        _say(console, f"the export of step {held.step} is damaged: {'; '.join(held.problems)}")
    _say(console, f"the export of step {held.step} is now {aside.name}")


def _say(console: Console, message: str) -> None:
    console.print(message, markup=False, highlight=False, soft_wrap=True)
