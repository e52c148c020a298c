"""What tests run on many ranks, and alone to compare with: a small Llama in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rewarm.batches.loader import IGNORED_LABEL, Batch, BatchLoader
from rewarm.distributed.fsdp import Root, make_mesh, shard, whole
from rewarm.distributed.world import ALONE, World, join, launched_world
from rewarm.model.loss import sum_of_token_losses
from rewarm.planning.plan import Placement
from rewarm.recipe.schema import OptimizerRecipe
from rewarm.records.run_folder import RunFolder
from rewarm.training.optimizer import build_optimizer, moments
from rewarm.training.run import run_training
from rewarm.training.state import TrainState, weights_of
from rewarm.training.step import Stepper
from tests.support.tiny_models import family_model
from tests.support.tiny_plans import (
    SEQUENCE_LENGTH,
    VOCAB_SIZE,
    make_materials,
    make_placement,
    make_plan,
    make_views,
)

TIMEOUT_S = 30.0
PLAN = make_plan(
    num_steps=12,
    checkpoint_every=4,
    keep=9,
    optimizer=OptimizerRecipe(clip_grad_norm=0.05, weight_decay=0.1),
)


def new_llama_model(*, tied: bool = True) -> nn.Module:
    """Return a Llama in float64 whose vocabulary (61) no number of ranks divides."""
    model: nn.Module = family_model("llama", vocab_size=VOCAB_SIZE, tie_word_embeddings=tied)
    return model.double().train()


@dataclass(frozen=True)
class UnevenBatches:
    """Batches in which a label counts or not by what it is, so that no two rows count alike."""

    loader: BatchLoader

    def batch(self, step: int, /) -> Batch:
        batch = self.loader.batch(step)
        labels = batch.labels.clone()
        labels[(labels + batch.input_ids) % 3 == 0] = IGNORED_LABEL
        labels[batch.source == 0, : SEQUENCE_LENGTH // 2] = IGNORED_LABEL
        return replace(batch, labels=labels)


def placement_of(world: World, *, micro_batch: int, whole_gradients: bool = False) -> Placement:
    placement = make_placement(micro_batch_sequences=micro_batch)
    return placement.model_copy(
        update={"world_size": world.size, "whole_gradients": whole_gradients}
    )


def take_steps(
    world: World, *, num_steps: int, micro_batch: int, whole_gradients: bool, tied: bool
) -> dict[str, Tensor]:
    """Take steps on uneven batches; return every loss, norm, weight and moment, whole."""
    model = new_llama_model(tied=tied)
    root = Root(model) if world.is_alone else shard(model, make_mesh(world, "cpu"))
    state = TrainState(root, build_optimizer(model, PLAN.science.optimizer), world=world)
    stepper = Stepper(
        PLAN.science,
        placement_of(world, micro_batch=micro_batch, whole_gradients=whole_gradients),
        sum_of_token_losses,
        tell=lambda kind, step, message: None,
    )
    batches = UnevenBatches(
        BatchLoader(
            PLAN.science.order(),
            make_views(),
            sequence_length=SEQUENCE_LENGTH,
            vocab_size=VOCAB_SIZE,
            rank=world.rank,
            num_ranks=world.size,
        )
    )
    found: dict[str, Tensor] = {}
    for step in range(num_steps):
        record = stepper(state, batches.batch(step))
        state.step += 1
        numbers = [record.loss, record.grad_norm, record.num_valid_tokens, *record.samples]
        found[f"record.{step}"] = torch.tensor(numbers, dtype=torch.float64)
    tensors = {**weights_of(state.model), **moments(state.optimizer)}
    return found | {name: whole(tensor.detach()) for name, tensor in tensors.items()}


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "tied, one micro-batch": {"micro_batch": 8, "whole_gradients": False, "tied": True},
    "untied, accumulated": {"micro_batch": 1, "whole_gradients": False, "tied": False},
    "accumulated whole": {"micro_batch": 1, "whole_gradients": True, "tied": True},
}


def parity(folder: str) -> None:
    """Take three steps in every variant and save what came out."""
    with join(launched_world(), device_type="cpu", timeout_s=TIMEOUT_S) as world:
        for name, variant in VARIANTS.items():
            found = take_steps(world, num_steps=3, **variant)
            if world.is_main:
                torch.save(found, Path(folder) / f"{name}.pt")


def train_llama(folder: Path, world: World = ALONE, *, until_step: int | None = None) -> None:
    """Run the plan in a folder as far as `until_step` updates."""
    run_training(
        PLAN,
        placement_of(world, micro_batch=2),
        RunFolder(folder),
        make_materials(load_model=new_llama_model),
        resume_with="the same command",
        until_step=until_step,
        world=world,
    )


def train(folder: str, until_step: str) -> None:
    """Go on with a run on these ranks."""
    with join(launched_world(), device_type="cpu", timeout_s=TIMEOUT_S) as world:
        train_llama(Path(folder), world, until_step=int(until_step))


def losses_of(folder: Path) -> list[float]:
    return [record.loss for record in RunFolder(folder).steps()]
