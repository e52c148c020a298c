"""What tests run on many ranks, and alone to compare with: a small Llama in float64."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rewarm.batches.loader import IGNORED_LABEL, Batch, BatchLoader, WindowSource
from rewarm.cli import main
from rewarm.corpus.views import Sequences
from rewarm.distributed.fsdp import Root, blocks_of, local, make_mesh, reshard, shard, whole
from rewarm.distributed.world import ALONE, World, join, launched_world
from rewarm.errors import FaultElsewhere, RewarmError
from rewarm.model.blocks import checkpoint_blocks
from rewarm.model.document_attention import Road
from rewarm.model.load import base_without_weights
from rewarm.model.loss import sum_of_token_losses, token_losses
from rewarm.model.packing import DocumentAttention
from rewarm.planning.plan import Placement, Plan
from rewarm.recipe.steps import GuardRecipe, OptimizerRecipe
from rewarm.records.facts import StepRecord
from rewarm.records.probe import Checkpointing
from rewarm.records.run_folder import RunFolder
from rewarm.stages.base_on_ranks import fill_base
from rewarm.training.checkpoint import find_newest_verified
from rewarm.training.mirror.contents import Mirror
from rewarm.training.optimizer import build_optimizer, moments, trainable_parameters
from rewarm.training.run import run_training
from rewarm.training.state import TrainState, weights_of
from rewarm.training.step import Stepper
from tests.support.optimizer_states import step_on_ranks, take_over
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
        return with_uneven_labels(self.loader.batch(step))


def with_uneven_labels(batch: Batch) -> Batch:
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
    world: World,
    *,
    num_steps: int,
    micro_batch: int,
    whole_gradients: bool,
    tied: bool,
    roads: tuple[Road, ...] = (),
    checkpointing: Checkpointing = "none",
    new_model: Callable[..., nn.Module] = new_llama_model,
    optimizer: OptimizerRecipe = PLAN.science.optimizer,
) -> dict[str, Tensor]:
    """Take steps on uneven batches; return every loss, norm, weight and moment, whole.

    With `roads` documents are kept apart, by the last of them, which the others fall back to.
    """
    model = new_model(tied=tied)
    checkpoint_blocks(blocks_of(model), checkpointing)
    root = Root(model) if world.is_alone else shard(model, make_mesh(world, "cpu"))
    attention = DocumentAttention(roads, sequence_length=SEQUENCE_LENGTH)
    assert len(attention.settle(model, within=root)) == max(0, len(roads) - 1)
    reshard(root)
    root.train()
    state = TrainState(root, build_optimizer(trainable_parameters(model), optimizer), world=world)
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
            mask_documents=bool(roads),
            rank=world.data_rank,
            num_ranks=world.data_size,
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
    "untied, accumulated": {
        "micro_batch": 1,
        "whole_gradients": False,
        "tied": False,
        "checkpointing": "full",
    },
    "accumulated whole": {"micro_batch": 1, "whole_gradients": True, "tied": True},
    "documents apart": {
        "micro_batch": 2,
        "whole_gradients": False,
        "tied": True,
        "roads": ("varlen", "split"),  # the first does not run here
        "checkpointing": "selective",
    },
    "muon": {
        "micro_batch": 4,
        "whole_gradients": False,
        "tied": False,
        "optimizer": OptimizerRecipe(kind="muon"),
    },
}


def parity(folder: str) -> None:
    """Take three steps in every variant and save what came out."""
    with join(launched_world(), device_type="cpu", timeout_s=TIMEOUT_S) as world:
        for name, variant in VARIANTS.items():
            found = take_steps(world, num_steps=3, **variant)
            if world.is_main:
                torch.save(found, Path(folder) / f"{name}.pt")


def train_llama(
    folder: Path,
    world: World = ALONE,
    *,
    until_step: int | None = None,
    plan: Plan | None = None,
    **changes: Any,
) -> None:
    """Run the plan in a folder as far as `until_step` updates."""
    run_training(
        plan or PLAN,
        placement_of(world, micro_batch=2),
        RunFolder(folder),
        make_materials(**{"load_model": new_llama_model, **changes}),
        resume_with="the same command",
        until_step=until_step,
        world=world,
    )


MUON = make_plan(num_steps=12, checkpoint_every=4, keep=9, optimizer=OptimizerRecipe(kind="muon"))
"""Checkpoints of two kinds of moments."""

SAVING = make_plan(num_steps=40, checkpoint_every=1, keep=2)
"""A save after every step, in the background: hardly a moment without one."""


def train_saving(folder: str) -> None:
    """Train to the end, saving all the time."""
    with join(launched_world(), device_type="cpu", timeout_s=TIMEOUT_S) as world:
        train_llama(Path(folder), world, plan=SAVING)


def train(folder: str, until_step: str) -> None:
    """Go on with a run on these ranks."""
    with join(launched_world(), device_type="cpu", timeout_s=TIMEOUT_S) as world:
        train_llama(Path(folder), world, until_step=int(until_step))


def train_half(folder: str, until_step: str) -> None:
    """Go on with a run whose blocks compute in bf16 on these ranks."""
    with join(launched_world(), device_type="cpu", timeout_s=TIMEOUT_S) as world:
        train_llama_in_half(Path(folder), world, until_step=int(until_step))


def train_llama_in_half(
    folder: Path, world: World = ALONE, *, until_step: int | None = None
) -> None:
    """Run the plan with weights in float32 and products in bf16 as far as `until_step` updates."""
    placement = placement_of(world, micro_batch=2)
    run_training(
        PLAN,
        placement.model_copy(update={"autocast_dtype": "bfloat16"}),
        RunFolder(folder),
        make_materials(load_model=lambda: new_llama_model().float()),
        resume_with="the same command",
        until_step=until_step,
        world=world,
    )


def train_mirrored(folder: str, url: str, until_step: str, slow_s: str, timeout_s: str) -> None:
    """Go on with a run that has a mirror, each file of which takes so long to come back."""
    fetch = Mirror._fetch_once

    def slow(*arguments: Any) -> bytes:
        time.sleep(float(slow_s))
        return fetch(*arguments)

    Mirror._fetch_once = slow  # type: ignore[assignment,method-assign]
    recipe = PLAN.conduct.checkpoints.model_copy(update={"mirror": url})
    conduct = PLAN.conduct.model_copy(update={"checkpoints": recipe})
    plan = PLAN.model_copy(update={"conduct": conduct})
    with join(launched_world(), device_type="cpu", timeout_s=float(timeout_s)) as world:
        train_llama(Path(folder), world, plan=plan, until_step=int(until_step))


@dataclass(frozen=True)
class At:
    """Strikes once a step was taken, on one rank."""

    step: int
    rank: int
    strike: Callable[[], None]
    world: World

    def before_train(self, state: TrainState, /) -> None: ...

    def after_step(self, state: TrainState, record: StepRecord | None, /) -> None:
        if state.step == self.step and self.world.rank == self.rank:
            self.strike()

    def on_stop(self, state: TrainState, /) -> None: ...


def _wait_for_a_save(folder: Path) -> None:
    """Saves go on beside the steps: on a busy machine one may not be whole yet."""
    deadline = time.monotonic() + TIMEOUT_S / 2
    saved = RunFolder(folder).checkpoints
    while time.monotonic() < deadline and find_newest_verified(saved).path is None:
        time.sleep(0.02)


def train_and_strike(folder: str, number: str, timeout_s: str) -> None:
    """Train; after step 6, with step 4 saved, rank 1 sends itself a signal.

    Exits as the command line would.
    """

    def wait() -> None:  # on both: none of them waits in a collective meanwhile
        _wait_for_a_save(Path(folder))

    def strike() -> None:
        wait()
        os.kill(os.getpid(), int(number))

    def run() -> int:
        world = launched_world()
        with join(world, device_type="cpu", timeout_s=float(timeout_s)) as joined:
            train_llama(
                Path(folder), joined, hooks=[At(6, 0, wait, joined), At(6, 1, strike, joined)]
            )
        return 0

    sys.exit(_exit_code(run))


def train_and_die_once(folder: str) -> None:
    """Train under torchrun; in the first attempt rank 1 dies after step 6, with step 4 saved."""

    def die() -> None:
        if os.environ["TORCHELASTIC_RESTART_COUNT"] != "0":
            return
        _wait_for_a_save(Path(folder))
        os.kill(os.getpid(), signal.SIGKILL)

    def run() -> int:
        with join(launched_world(), device_type="cpu", timeout_s=TIMEOUT_S) as world:
            train_llama(Path(folder), world, hooks=[At(6, 1, die, world)])
        return 0

    sys.exit(_exit_code(run))


def train_past_a_fault(folder: str) -> None:
    """Train where one sequence of step 7, which one rank alone sees, makes the loss infinite."""
    guard = GuardRecipe(non_finite="skip")
    plan = PLAN.model_copy(update={"conduct": PLAN.conduct.model_copy(update={"guard": guard})})
    bad = slots_tokens(7)

    def loss(
        model: nn.Module, ids: Tensor, labels: Tensor, *documents: Tensor | None
    ) -> tuple[Tensor, object]:
        nats, count = sum_of_token_losses(model, ids, labels)
        here = bool((ids == bad).all(-1).any())
        return (nats * float("inf") if here else nats), count

    with join(launched_world(), device_type="cpu", timeout_s=TIMEOUT_S) as world:
        train_llama(Path(folder), world, plan=plan, loss=loss)


def slots_tokens(step: int) -> Tensor:
    """Return the last sequence of a step."""
    loader = BatchLoader(
        PLAN.science.order(),
        make_views(),
        sequence_length=SEQUENCE_LENGTH,
        vocab_size=VOCAB_SIZE,
    )
    return loader.batch(step).input_ids[-1]


class _Unreadable:
    """Text that one rank cannot read from some step on."""

    def __init__(self, source: WindowSource, steps: list[int]) -> None:
        self._source = source
        self._steps = steps

    def sequences(self, windows: NDArray[np.int64], sequence_length: int, /) -> Sequences:
        found = self._source.sequences(windows, sequence_length)
        self._steps.append(1)
        return (
            found if len(self._steps) < 5 else Sequences(*(ids * 0 + VOCAB_SIZE for ids in found))
        )

    def positions(self, windows: NDArray[np.int64], sequence_length: int, /) -> NDArray[np.int64]:
        return self._source.positions(windows, sequence_length)


def train_on_bad_text(folder: str) -> None:
    """Train; rank 1 alone meets a token that is outside of the vocabulary."""

    def run() -> int:
        with join(launched_world(), device_type="cpu", timeout_s=TIMEOUT_S) as world:
            views = make_views()
            if world.rank == 1:
                views = {name: _Unreadable(view, []) for name, view in views.items()}
            train_llama(Path(folder), world, views=views)
        return 0

    sys.exit(_exit_code(run))


def loads(root_folder: str) -> None:
    """Load every base in a folder in parts; save the whole tensors, or what was refused."""
    with join(launched_world(), device_type="cpu", timeout_s=TIMEOUT_S) as world:
        for folder in sorted(Path(root_folder).iterdir()):
            said: dict[str, Any] = {}
            try:
                model = base_without_weights(folder)
                most = max(parameter.numel() for parameter in model.parameters())
                assert all(parameter.is_meta for parameter in model.parameters())
                root = shard(model.eval(), make_mesh(world, "cpu"))
                said["notice"] = fill_base(root, folder, world, device="cpu")
                parts = [local(parameter).numel() for parameter in model.parameters()]
                assert max(parts) <= -(-most // world.size) + most // 4, "a rank holds all of it"
                ids = torch.arange(2 * SEQUENCE_LENGTH).view(2, -1)
                with torch.no_grad():
                    said["losses"] = root(token_losses, ids, ids)
                reshard(root)
                said |= {name: whole(tensor) for name, tensor in weights_of(model).items()}
            except RewarmError as error:
                said["refused"] = str(error)
            if world.is_main:
                torch.save(said, folder / "loaded.pt")


EIGHT_BIT = make_plan(
    num_steps=12, checkpoint_every=4, keep=9, optimizer=OptimizerRecipe(kind="adamw8bit")
)


def new_wide_llama() -> nn.Module:
    """Return a float32 Llama some of whose moments are 8-bit codes, alone and on two ranks."""
    model: nn.Module = family_model(
        "llama", vocab_size=VOCAB_SIZE, hidden_size=64, intermediate_size=128
    )
    return model.train()


def train_eight_bit(
    folder: Path,
    world: World = ALONE,
    *,
    until_step: int | None = None,
    optimizer: OptimizerRecipe = EIGHT_BIT.science.optimizer,
) -> None:
    """Train a float32 Llama with 8-bit moments, or those of another optimizer."""
    science = EIGHT_BIT.science.model_copy(update={"optimizer": optimizer})
    plan = EIGHT_BIT.model_copy(
        update={"science": science, "fingerprint": Plan.science_fingerprint(science)}
    )
    train_llama(folder, world, until_step=until_step, plan=plan, load_model=new_wide_llama)


def train_eight_bit_on_ranks(folder: str, until_step: str) -> None:
    """Go on with such a run on these ranks."""
    with join(launched_world(), device_type="cpu", timeout_s=TIMEOUT_S) as world:
        train_eight_bit(Path(folder), world, until_step=int(until_step))


def takes_over(folder: str) -> None:
    """Go on with every optimizer state in a folder for one step; save the whole weights."""
    with join(launched_world(), device_type="cpu", timeout_s=TIMEOUT_S) as world:
        for path in sorted((Path(folder) / "states").iterdir()):
            model = new_llama_model()
            model.load_state_dict(torch.load(Path(folder) / "model.pt", weights_only=True))
            shard(model, make_mesh(world, "cpu"))
            optimizer, _ = take_over(path.name.partition("-")[0], path, model, world=world)
            step_on_ranks(model, optimizer, 4)
            weights = {name: whole(tensor.detach()) for name, tensor in model.named_parameters()}
            if world.is_main:
                torch.save(weights, Path(folder) / f"{path.name}.pt")


def rewarm(*arguments: str) -> None:
    """Give the command line a command."""
    sys.exit(main(list(arguments)))


def _exit_code(run: Callable[[], int]) -> int:
    """Answer errors as `rewarm.cli` does."""
    try:
        return run()
    except FaultElsewhere as error:
        return error.exit_code
    except RewarmError as error:
        sys.stderr.write(f"rewarm: error: {error}\n")
        return error.exit_code


def losses_of(folder: Path) -> list[float]:
    return [record.loss for record in RunFolder(folder).steps()]
