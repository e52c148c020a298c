"""Runs that hold on to their base in every way there is, alone and on ranks: a Llama in float64."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rewarm.batches.loader import Batch, BatchLoader, StoredDistributions
from rewarm.distributed.fsdp import Root, whole
from rewarm.distributed.world import ALONE, World
from rewarm.model.head_loss import HeadLoss
from rewarm.planning.plan import Plan, PlannedSource
from rewarm.recipe.retention import (
    AgemRecipe,
    DistillRecipe,
    EmaRecipe,
    EwcRecipe,
    L2SpRecipe,
    RetentionRecipe,
)
from rewarm.records.run_folder import RunFolder
from rewarm.training import retained, run
from rewarm.training.checkpoint import find_newest_verified
from rewarm.training.run import run_training
from rewarm.training.state import read_average, read_weights, weights_of
from tests.support.rank_jobs import placement_of, with_uneven_labels
from tests.support.rank_tensor import joined, maker
from tests.support.tiny_plans import VOCAB_SIZE, make_materials, make_plan

NUM_TOP = 4

L2SP = RetentionRecipe(l2sp=L2SpRecipe(weight=0.3))
EWC = RetentionRecipe(ewc=EwcRecipe(weight=2.0, fisher_from="old", sequences=5))
LWF = RetentionRecipe(distill=DistillRecipe(on=["new"], temperature=2.0, weight=0.7))
KL_ALONE = RetentionRecipe(distill=DistillRecipe(on=["old"], temperature=1.0, replaces_loss=True))
STORED = RetentionRecipe(distill=DistillRecipe(on=["old"], temperature=1.0, teacher="stored"))
AGEM = RetentionRecipe(agem=AgemRecipe(memory=["old"], sequences_per_step=5))
EMA = RetentionRecipe(ema=EmaRecipe(decay=0.75))
ALL = RetentionRecipe(l2sp=L2SP.l2sp, ewc=EWC.ewc, distill=LWF.distill, agem=AGEM.agem, ema=EMA.ema)
TERMS: Mapping[str, RetentionRecipe] = {
    "l2sp": L2SP,
    "ewc": EWC,
    "lwf": LWF,
    "kl-alone": KL_ALONE,
    "stored": STORED,
    "agem": AGEM,
    "ema": EMA,
    "all": ALL,
}


def retaining(recipe: RetentionRecipe, **changes: Any) -> Plan:
    """Return a tiny plan with retention; `changes` are to `make_plan`."""
    plan = make_plan(**{"num_steps": 8, "checkpoint_every": 2, "keep": 9, **changes})
    memory = PlannedSource(name="old", role="replay", key="o", num_windows=37)
    reads = recipe.ewc is not None or recipe.agem is not None
    science = plan.science.model_copy(
        update={"retention": recipe, "memory": (memory,) if reads else ()}
    )
    return plan.model_copy(
        update={"science": science, "fingerprint": Plan.science_fingerprint(science)}
    )


class MadeUpDistributions:
    """The same likeliest tokens and probabilities for a window, whoever asks."""

    num_top = NUM_TOP

    def gather(
        self, windows: NDArray[np.int64], sequence_length: int, /
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        places = windows[:, None] * sequence_length + np.arange(sequence_length)
        first = (places * 7) % (VOCAB_SIZE - NUM_TOP)
        ids = first[..., None] + np.arange(NUM_TOP)
        log_probs = np.log(np.array([0.4, 0.2, 0.1, 0.05])) * np.ones((*places.shape, 1))
        log_probs[places % 5 == 0] = -np.inf
        return ids, log_probs.astype(np.float32)


def head_loss(chunk_bytes: int | None = 4 * VOCAB_SIZE * 7) -> HeadLoss:
    """Return a loss in chunks of seven tokens; None: the plain one, which is never settled."""
    return HeadLoss(chunk_bytes=chunk_bytes)


def train_retaining(
    folder: Path,
    recipe: RetentionRecipe,
    world: World = ALONE,
    *,
    until_step: int | None = None,
    micro_batch: int = 2,
    uneven: bool = False,
    plan: Plan | None = None,
    plain: bool = False,
    **changes: Any,
) -> None:
    """Go on with a run that holds on to its base, as far as `until_step` updates."""
    loss = head_loss(None if plain else 4 * VOCAB_SIZE * 7)

    def settle(root: Root) -> list[str]:
        if plain:
            return []
        why = loss.settle(root.model, within=root)
        assert why is None, why
        return []

    stored: dict[str, StoredDistributions] = (
        {"old": MadeUpDistributions()} if recipe == STORED else {}
    )
    materials = make_materials(
        **{
            "load_model": maker("llama"),
            "loss": loss,
            "fill_model": settle,
            "stored": stored,
            **changes,
        }
    )
    with _uneven_labels() if uneven else contextlib.nullcontext():
        run_training(
            plan or retaining(recipe),
            placement_of(world, micro_batch=micro_batch),
            RunFolder(folder),
            materials,
            resume_with="the same command",
            until_step=until_step,
            world=world,
        )


@contextlib.contextmanager
def _uneven_labels() -> Iterator[None]:
    """Let labels count or not by what they are in every batch that is gathered, memory's too."""

    class Uneven(BatchLoader):
        def batch(self, step: int, /) -> Batch:
            return with_uneven_labels(super().batch(step))

    with (
        mock.patch.object(run, "BatchLoader", Uneven),
        mock.patch.object(retained, "BatchLoader", Uneven),
    ):
        yield


def outcome(folder: Path, recipe: RetentionRecipe, plan: Plan | None = None) -> dict[str, Tensor]:
    """Return the newest checkpoint's weights and average, whole, and what the steps recorded."""
    plan = plan or retaining(recipe)
    path = find_newest_verified(RunFolder(folder).checkpoints).path
    assert path is not None
    model = maker("llama")()
    read_weights(path, model, plan.science)
    found = {name: whole(tensor.detach()).clone() for name, tensor in weights_of(model).items()}
    if recipe.ema is not None:
        read_average(path, model, plan.science)
        found |= {f"average.{n}": t.detach().clone() for n, t in weights_of(model).items()}
    for record in RunFolder(folder).steps():
        numbers = [record.loss, record.grad_norm, *record.retention.values()]
        found[f"record.{record.step}"] = torch.tensor(numbers, dtype=torch.float64)
    return found


def train_all(folder: str, names: str, tensor_parallel: str = "1") -> None:
    """Train with terms (names with commas) on these ranks, in a folder each."""
    with joined(tensor_parallel) as world:
        for name in names.split(","):
            train_retaining(
                Path(folder) / name,
                TERMS[name],
                world,
                until_step=3,
                micro_batch=1,
                uneven=True,
            )


def train_on_ranks(folder: str, name: str, until_step: str) -> None:
    """Go on with a run on these ranks."""
    with joined("1") as world:
        train_retaining(Path(folder), TERMS[name], world, until_step=int(until_step))
