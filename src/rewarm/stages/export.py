"""`rewarm export`: the newest verified checkpoint to a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from rich.console import Console

from rewarm.artifacts import read_json, write_json
from rewarm.batches.loader import BatchLoader
from rewarm.errors import RunFolderError
from rewarm.evaluation.forgetting import domain_verdicts
from rewarm.export import ModelCard, export_model
from rewarm.model.load import load_base
from rewarm.planning.plan import Plan
from rewarm.records.facts import LOSS_METRICS
from rewarm.records.run_folder import RunFolder
from rewarm.stages.job import open_run
from rewarm.stages.train import open_views
from rewarm.training.checkpoint import find_newest_verified, step_of
from rewarm.training.state import read_weights

__all__ = ["export_run", "run_export"]

_SAMPLE_SEQUENCES = 2


def run_export(
    path: Path, overrides: Iterable[str], *, output: Path | None, dtype: str | None
) -> None:
    """Export the run and print the folder."""
    plan, run = open_run(path, overrides)
    export_run(plan, run, output=output, dtype=dtype, console=Console())


def export_run(
    plan: Plan,
    run: RunFolder,
    *,
    console: Console,
    output: Path | None = None,
    dtype: str | None = None,
) -> Path:
    """Export the run's newest verified checkpoint; an export of a finished run is not made twice.

    Raises RunFolderError where there is no checkpoint, CheckpointError where none can be trusted.
    """
    folder = output or run.export
    found = find_newest_verified(run.checkpoints)
    for path, problems in found.passed_over:
        console.print(
            f"passed over {path.name}: {'; '.join(problems)}", markup=False, highlight=False
        )
    if found.path is None:
        raise RunFolderError.one(
            str(run.path), "it has no checkpoint to export", "run `rewarm train` first"
        )
    if output is None and dtype is None and _exported_step(run) == step_of(found.path):
        console.print(f"exported already: {folder}", markup=False, highlight=False, soft_wrap=True)
        return folder
    model = load_base(Path(plan.conduct.base_folder))
    step = read_weights(found.path, model, plan.science)
    if step < plan.science.num_steps:
        console.print(
            f"warning: the run is at step {step} of {plan.science.num_steps}",
            markup=False,
            highlight=False,
        )
    records = [record for record in run.evals() if record.step <= step]
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
    with console.status("exporting, and reading back what was written"):
        export_model(
            model, folder=folder, card=ModelCard(plan, verdicts, step), sample=sample, dtype=dtype
        )
    if output is None:
        write_json(_mark(run), {"step": step})
    console.print(
        f"exported and verified: {folder.resolve()}", markup=False, highlight=False, soft_wrap=True
    )
    return folder


def _mark(run: RunFolder) -> Path:
    """Return the file that says which step the run folder's own export holds."""
    return run.path / "export.json"


def _exported_step(run: RunFolder) -> int | None:
    if not (_mark(run).exists() and run.export.is_dir()):
        return None
    value = read_json(_mark(run), what="the export's mark", error=RunFolderError)
    return value.get("step") if isinstance(value, dict) else None
