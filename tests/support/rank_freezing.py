"""Runs that train in stages on many ranks, and alone to compare with: a Llama of four layers."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from rewarm.distributed.world import ALONE, World, join, launched_world
from rewarm.planning.plan import Plan
from rewarm.planning.trainable import stages_of
from rewarm.recipe.parameters import FreezingRecipe, ParametersRecipe
from tests.support.rank_jobs import PLAN, TIMEOUT_S, train_llama
from tests.support.tiny_models import family_model
from tests.support.tiny_plans import VOCAB_SIZE

NUM_LAYERS = 4
KINDS = {
    "freezeout": (ParametersRecipe(), FreezingRecipe(kind="freezeout")),
    "auto": (ParametersRecipe(), FreezingRecipe(kind="auto", every=0.1)),
    "unfreeze": (
        ParametersRecipe(train=["attention", "embeddings"]),
        FreezingRecipe(kind="unfreeze"),
    ),
}


def new_deep_model() -> nn.Module:
    model: nn.Module = family_model("llama", vocab_size=VOCAB_SIZE, num_hidden_layers=NUM_LAYERS)
    return model.double().train()


def frozen_plan(kind: str) -> Plan:
    parameters, freezing = KINDS[kind]
    science = PLAN.science
    stages = stages_of(
        parameters,
        freezing,
        num_layers=NUM_LAYERS,
        num_steps=science.num_steps,
        phase_starts=[phase.start_step for phase in science.phases],
    )
    science = science.model_copy(
        update={
            "num_layers": NUM_LAYERS,
            "parameters": parameters,
            "freezing": freezing,
            "stages": stages,
        }
    )
    return PLAN.model_copy(
        update={"science": science, "fingerprint": Plan.science_fingerprint(science)}
    )


def train_frozen(
    folder: Path, kind: str, *, until_step: int | None = None, world: World = ALONE
) -> None:
    train_llama(
        folder, world, plan=frozen_plan(kind), until_step=until_step, load_model=new_deep_model
    )


def train(folder: str, kind: str, until_step: str) -> None:
    """Go on with a run on these ranks."""
    with join(launched_world(), device_type="cpu", timeout_s=TIMEOUT_S) as world:
        train_frozen(Path(folder), kind, until_step=int(until_step), world=world)
