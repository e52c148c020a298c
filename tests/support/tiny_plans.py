"""Plans, text and a model of a few thousand parameters, for runs that take milliseconds a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rewarm.batches.loader import WindowSource
from rewarm.corpus.views import Sequences
from rewarm.distributed.fsdp import Root
from rewarm.distributed.world import ALONE
from rewarm.model.loss import sum_of_token_losses
from rewarm.order.blend import quantise_weights
from rewarm.planning.plan import (
    Conduct,
    Placement,
    Plan,
    PlannedPhase,
    PlannedSource,
    Science,
)
from rewarm.planning.schedule import warmup_then_decay
from rewarm.recipe.base import BasePretraining
from rewarm.recipe.records import CheckpointRecipe, EvaluationRecipe
from rewarm.recipe.steps import OptimizerRecipe
from rewarm.records.facts import EvalRecord
from rewarm.records.run_folder import RunFolder
from rewarm.training.materials import Materials
from rewarm.training.run import Ending, run_training
from rewarm.training.state import TrainState, take_snapshot, write_snapshot
from tests.support.fake_facts import make_model_facts

VOCAB_SIZE = 61
SEQUENCE_LENGTH = 12
SEQUENCES_PER_STEP = 8


def make_plan(
    *,
    num_steps: int = 20,
    seed: int = 1,
    peak_lr: float = 1e-2,
    checkpoint_every: int = 5,
    keep: int = 2,
    evaluation_steps: Sequence[int] = (),
    optimizer: OptimizerRecipe | None = None,
    mirror: str | None = None,
    mirror_wait_s: float = 30.0,
) -> Plan:
    """Return a plan over two made-up sources and two phases."""
    half = max(1, num_steps // 2)
    spans = [("first", 0, half, (0.75, 0.25)), ("second", half, num_steps, (0.25, 0.75))]
    science = Science(
        seed=seed,
        base_weights="w" * 64,
        tokenizer="t" * 64,
        sequence_length=SEQUENCE_LENGTH,
        sequences_per_step=SEQUENCES_PER_STEP,
        mask_documents=False,
        num_steps=num_steps,
        sources=(
            PlannedSource(name="old", role="replay", key="o", num_windows=37),
            PlannedSource(name="new", role="new", key="n", num_windows=101),
        ),
        phases=tuple(
            PlannedPhase(
                name=name,
                start_step=start,
                end_step=end,
                weights=quantise_weights(weights),
                samples=(0, 0),
            )
            for name, start, end, weights in spans
            if end > start
        ),
        schedule=warmup_then_decay(
            kind="cosine",
            num_steps=num_steps,
            warmup_steps=0,
            peak_lr=peak_lr,
            final_lr=peak_lr / 100,
        ),
        optimizer=optimizer or OptimizerRecipe(),
        precision="float32",
    )
    conduct = Conduct(
        base_folder="base",
        base_pretraining=BasePretraining(),
        base_name="base",
        base_revision=None,
        corpora={},
        model=make_model_facts().model_copy(update={"vocab_size": VOCAB_SIZE}),
        evaluation=EvaluationRecipe(),
        evaluation_steps=tuple(evaluation_steps),
        checkpoints=CheckpointRecipe(keep=keep, mirror=mirror, mirror_wait_s=mirror_wait_s),
        checkpoint_every=checkpoint_every,
    )
    return Plan(
        name="tiny",
        fingerprint=Plan.science_fingerprint(science),
        measured=True,
        science=science,
        conduct=conduct,
        reasons=(),
        warnings=(),
        estimates=(),
    )


def make_placement(*, micro_batch_sequences: int = 4) -> Placement:
    """Return one thread of this CPU in float32."""
    return Placement(
        device="cpu",
        device_name="test",
        world_size=1,
        micro_batch_sequences=micro_batch_sequences,
        autocast_dtype=None,
        num_threads=1,
        deterministic=False,
        provenance={},
    )


@dataclass(frozen=True)
class FakeView:
    """Text without end: each token follows from its place by arithmetic."""

    salt: int
    vocab_size: int = VOCAB_SIZE
    document_length: int = 5

    def sequences(self, windows: NDArray[np.int64], sequence_length: int, /) -> Sequences:
        tokens = self.gather(windows, sequence_length)
        return Sequences(tokens[:, :-1], tokens[:, 1:])

    def gather(self, windows: NDArray[np.int64], sequence_length: int, /) -> NDArray[np.int64]:
        places = windows[:, None] * sequence_length + np.arange(sequence_length + 1)
        mixed = (places * 2654435761 + self.salt * 40503) % 2**32
        return np.asarray((mixed >> 7) % self.vocab_size, dtype=np.int64)

    def positions(self, windows: NDArray[np.int64], sequence_length: int, /) -> NDArray[np.int64]:
        """Return places in documents of one length, the first of which begins with the window."""
        places = np.arange(sequence_length) % self.document_length
        return np.tile(places, (len(windows), 1))


def make_views() -> dict[str, WindowSource]:
    """Return the two sources of `make_plan`."""
    return {"old": FakeView(1), "new": FakeView(2)}


class TinyModel(nn.Module):
    """A causal model with all that a state must carry: tied weights, a buffer, dropout."""

    running: Tensor

    def __init__(self, width: int = 16, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, width)
        self.norm = nn.LayerNorm(width)
        self.mixer = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, VOCAB_SIZE, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("running", torch.zeros(width))
        self.register_buffer("scratch", torch.zeros(3), persistent=False)

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        hidden = self.embedding(input_ids)
        places = torch.arange(1, input_ids.shape[1] + 1, dtype=hidden.dtype)
        before = hidden.cumsum(1) / places[:, None]
        hidden = hidden + torch.tanh(self.mixer(self.dropout(self.norm(before))))
        if self.training:
            with torch.no_grad():
                self.running.lerp_(hidden.mean((0, 1)), 0.1)
        return SimpleNamespace(logits=self.head(hidden))


def new_tiny_model(*, seed: int = 0, dropout: float = 0.1) -> TinyModel:
    """Return a model whose weights follow from the seed, whatever was drawn before."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyModel(dropout=dropout)


def noisy_evaluation(root: Root, step: int) -> list[EvalRecord]:
    """Measure nothing, but draw random numbers and change modes as a careless measure would."""
    model = root.model
    assert not model.training
    assert not torch.is_grad_enabled()
    value = float(model(torch.randint(VOCAB_SIZE, (2, SEQUENCE_LENGTH))).logits.mean())
    model.train()
    return [
        EvalRecord(
            step=step,
            domain="old",
            role="replay",
            metric="bits_per_byte",
            value=value,
            standard_error=None,
            item_values=(value,),
            item_weights=(1,),
            seconds=0.0,
        )
    ]


def make_materials(**changes: Any) -> Materials:
    """Return what a stage would hand in for a tiny plan."""
    given: dict[str, Any] = {
        "load_model": new_tiny_model,
        "loss": sum_of_token_losses,
        "views": make_views(),
    }
    return Materials(**{**given, **changes})


def write_state(folder: Path, state: TrainState, science: Science) -> None:
    """Write a state as a checkpoint of one process holds it, without a manifest."""
    write_snapshot(folder, take_snapshot(state, science, copy=False), ALONE)


def train_tiny(
    folder: Path,
    plan: Plan | None = None,
    *,
    until_step: int | None = None,
    micro_batch_sequences: int = 4,
    **changes: Any,
) -> Ending:
    """Run a tiny plan in `folder`; `changes` are to the materials."""
    return run_training(
        plan or make_plan(),
        make_placement(micro_batch_sequences=micro_batch_sequences),
        RunFolder(folder),
        make_materials(**changes),
        resume_with="the same command",
        until_step=until_step,
    )


def tensors_of(folder: Path) -> Mapping[str, bytes]:
    """Return the bytes of every file of the newest checkpoint but its manifest."""
    newest = max(path for path in (folder / "checkpoints").iterdir() if path.name[-1].isdigit())
    return {
        path.name: path.read_bytes() for path in newest.iterdir() if path.name != "MANIFEST.json"
    }
