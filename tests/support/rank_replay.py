"""Runs that raise their share of old text on many ranks, and alone to compare with."""

from __future__ import annotations

from pathlib import Path

from rewarm.distributed.fsdp import Root
from rewarm.distributed.world import ALONE, World, join, launched_world
from rewarm.evaluation.forgetting_rule import evidence_of_forgetting
from rewarm.planning.plan import Plan
from rewarm.recipe.records import ForgettingRecipe
from rewarm.records.facts import EvalRecord
from rewarm.records.run_folder import RunFolder
from tests.support.rank_jobs import PLAN, TIMEOUT_S, train_llama

RULE = ForgettingRecipe(action="replay", above=0.1, patience=1, add=0.2, ceiling=0.7)


def replay_plan() -> Plan:
    evaluation = PLAN.conduct.evaluation.model_copy(update={"on_forgetting": RULE})
    conduct = PLAN.conduct.model_copy(
        update={"evaluation": evaluation, "evaluation_steps": (0, 7, 12)}
    )
    return PLAN.model_copy(update={"conduct": conduct})


def forgetful(root: Root, step: int) -> list[EvalRecord]:
    value = 1.0 + 0.1 * step
    return [
        EvalRecord(
            step=step,
            domain="old",
            role="replay",
            metric="bits_per_byte",
            value=value,
            standard_error=None,
            item_values=(value,) * 8,
            item_weights=(1,) * 8,
            seconds=0.0,
        )
    ]


def train_replayed(folder: Path, *, until_step: int | None = None, world: World = ALONE) -> None:
    def find(step: int, since_step: int) -> str | None:
        records = RunFolder(folder).evals()
        return evidence_of_forgetting(RULE, records, step=step, since_step=since_step)

    train_llama(
        folder,
        world,
        plan=replay_plan(),
        until_step=until_step,
        evaluator=forgetful,
        find_forgetting=find,
    )


def train(folder: str, until_step: str) -> None:
    """Go on with a run on these ranks."""
    with join(launched_world(), device_type="cpu", timeout_s=TIMEOUT_S) as world:
        train_replayed(Path(folder), until_step=int(until_step), world=world)
