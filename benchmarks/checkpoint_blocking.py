"""How long a step waits for a checkpoint: written in the background against written at once.

A model of some 25 million parameters (300 MB of weights and moments) in one process; and, as the
limit, the bare copy of the same bytes in memory. On a GPU, and on several ranks, a run saves in the
background by default; one process on a CPU saves at once, as it has no cores to spare.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from record import Figure, write_results
from transformers import LlamaConfig, LlamaForCausalLM

from rewarm.distributed.fsdp import Root
from rewarm.distributed.world import ALONE
from rewarm.records.run_folder import RunFolder
from rewarm.training.checkpoint import CheckpointStore
from rewarm.training.lock import hold_lock
from rewarm.training.optimizer import build_optimizer, moments, trainable_parameters
from rewarm.training.saver import CheckpointSaver
from rewarm.training.sinks import Journal
from rewarm.training.state import TrainState, weights_of
from tests.support.tiny_plans import make_plan

REPEATS = 5
PLAN = make_plan()


def blocked_s(state: TrainState, folder: Path, *, background: bool) -> list[float]:
    """Return the seconds that each of some saves keeps a step waiting."""
    run = RunFolder(folder)
    run.make_log_folder()
    found = []
    with (
        hold_lock(run.lock, print) as lock,
        CheckpointSaver(
            PLAN.science,
            CheckpointStore(run.checkpoints, keep=1),
            Journal(run),
            lock,
            training=ALONE,
            saving=ALONE,
            background=background,
        ) as saver,
    ):
        for _ in range(REPEATS):
            state.step += 1
            started = time.perf_counter()
            saver.save(state)
            found.append(time.perf_counter() - started)
            saver.finish()
    return found


def copied_s(state: TrainState) -> float:
    """Return the seconds of one copy of all tensors in memory."""
    started = time.perf_counter()
    tensors = [*weights_of(state.model).values(), *moments(state.optimizer).values()]
    _ = [tensor.detach().clone() for tensor in tensors]
    return time.perf_counter() - started


def main() -> None:
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=6,
        num_attention_heads=8,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    state = TrainState(
        Root(model), build_optimizer(trainable_parameters(model), PLAN.science.optimizer)
    )
    num_bytes = 12 * sum(parameter.numel() for parameter in model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        at_once = statistics.median(blocked_s(state, Path(folder) / "a", background=False))
        background = statistics.median(blocked_s(state, Path(folder) / "b", background=True))
    copy = statistics.median(copied_s(state) for _ in range(REPEATS))
    write_results("checkpoint_blocking", figures_of(num_bytes, at_once, background, copy))


def figures_of(num_bytes: int, at_once: float, background: float, copy: float) -> list[Figure]:
    """Return the figures of a state of so many bytes, from the seconds that each way took."""
    waits = "wait for a save in the background"
    return [
        Figure("state", num_bytes / 1e6, "MB", "lower"),
        Figure("a save at once", at_once, "s", "lower"),
        Figure("a save at once, once a minute", at_once / 60, "", "lower", 0.05, "60 s"),
        Figure(waits, background / at_once, "", "lower", 0.2, "at once"),
        Figure(waits, background / copy, "", "lower", 2.0, "one copy in memory"),
        Figure(f"{waits}, once a minute", background / 60, "", "lower", 0.05, "60 s"),
    ]


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
