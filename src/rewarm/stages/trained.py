"""The weights that a run is about: its base, checked to be the planned one, and its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from torch import nn

from rewarm.errors import BaseModelError, CheckpointError, Problems, RunFolderError
from rewarm.model.adapter import add_adapters
from rewarm.model.load import load_base
from rewarm.planning.model_facts import read_model_facts
from rewarm.planning.plan import Plan
from rewarm.records.run_folder import RunFolder
from rewarm.training.checkpoint import find_newest_verified
from rewarm.training.state import read_average, read_weights

__all__ = [
    "Trained",
    "check_planned_base",
    "load_newest",
    "load_planned_base",
    "newest_checkpoint",
]


class Trained(NamedTuple):
    """A run's model after `step` updates."""

    model: nn.Module
    step: int


def load_planned_base(plan: Plan, *, device: str = "cpu") -> nn.Module:
    """Return the base of a plan, float32 on `device`; with its adapters, where it trains such.

    Raises BaseModelError where the folder holds other weights or another tokenizer than at
    planning (a run would go on from, or be measured against, another model), and for whatever
    `load_base` refuses.
    """
    check_planned_base(plan)
    model = load_base(Path(plan.conduct.base_folder), device=device)
    if plan.science.parameters.adapter is not None:
        add_adapters(model, plan.science.parameters.adapter, seed=plan.science.seed)
    return model


def check_planned_base(plan: Plan) -> None:
    """Raise BaseModelError where the base's folder holds another model than was planned with."""
    folder = Path(plan.conduct.base_folder)
    facts = read_model_facts(folder)
    problems = Problems()
    for what, found, planned in (
        ("weights", facts.weights_fingerprint, plan.science.base_weights),
        ("tokenizer", facts.tokenizer_fingerprint, plan.science.tokenizer),
    ):
        if found != planned:
            problems.add(
                str(folder),
                f"its {what} changed since the plan ({planned[:12]} then, {found[:12]} now)",
                "restore the base, or plan a run of another name from this one",
            )
    problems.raise_as(BaseModelError)


def load_newest(
    plan: Plan, run: RunFolder, console: Console, *, device: str, average: bool = False
) -> Trained:
    """Return the base of a plan with the weights of its newest verified checkpoint, or with their
    `average`, which the plan then keeps.

    Raises what `load_planned_base` and `newest_checkpoint` do.
    """
    model = load_planned_base(plan, device=device)
    while True:
        path = newest_checkpoint(run, console)
        try:
            read = read_average if average else read_weights
            return Trained(model, read(path, model, plan.science))
        except (OSError, CheckpointError):
            if path.is_dir():
                raise
            # A launch under way has pruned it: a newer one is there.


def newest_checkpoint(run: RunFolder, console: Console) -> Path:
    """Return the newest verified checkpoint, telling which damaged ones were passed over.

    Raises RunFolderError where there is none, CheckpointError where none can be trusted.
    """
    found = find_newest_verified(run.checkpoints)
    for path, problems in found.passed_over:
        console.print(
            f"passed over {path.name}: {'; '.join(problems)}", markup=False, highlight=False
        )
    if found.path is None:
        raise RunFolderError.one(
            str(run.path), "it has no checkpoint yet", "run `rewarm train` first"
        )
    return found.path
