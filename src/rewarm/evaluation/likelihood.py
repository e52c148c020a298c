"""Runs an evaluation suite through a model and leaves the model as it was found."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from rewarm.distributed.world import ALONE, World
from rewarm.errors import BaseModelError
from rewarm.evaluation.measure import Floats, Measure
from rewarm.evaluation.suite import Batch, EvaluationSuite
from rewarm.model.loss import CausalModel, token_losses
from rewarm.model.modes import evaluating
from rewarm.records.facts import EvalRecord

__all__ = ["Progress", "TokenLosses", "Within", "evaluate"]

Progress = Callable[[int, int], None]
"""Called after every batch with (batches done, batches of the evaluation)."""

TokenLosses = Callable[[CausalModel, Tensor, Tensor], Tensor]
"""Gives −log p(label) in nats at every position, as `rewarm.model.loss.token_losses` does."""

Within = Callable[..., Tensor]
"""`within(work, *arguments)` calls `work(model, *arguments)` where its weights are there."""


def evaluate(
    model: nn.Module,
    suite: EvaluationSuite,
    *,
    step: int,
    losses: TokenLosses = token_losses,
    autocast_dtype: torch.dtype | None = None,
    progress: Progress | None = None,
    within: Within | None = None,
    world: World = ALONE,
) -> list[EvalRecord]:
    """Return one record per measure of the suite, for the model after `step` updates.

    Of many ranks (`world`) each takes its share of the batches, inside `within`, and all get the
    same records.

    Costs `suite.num_tokens` forward positions. Training is bit-identical with and without it: no
    gradient is touched, modes of modules and random states are put back. Nats are summed per
    passage in float64; in float32 the figures agree to 1e-6 whatever the batch size, and whether
    `losses` come from all logits or in chunks. Raises BaseModelError where the model's loss is not
    finite.
    """
    device = _device_of(model)
    within = within or (lambda work, *arguments: work(model, *arguments))
    score = functools.partial(within, losses)
    done = 0
    records = []
    with _measuring(model, device, autocast_dtype):
        for batched in suite.measures:
            started = time.perf_counter()
            found = np.zeros(len(batched.measure.passages))
            for batch, counts in _share(batched.batches, world):
                row_nats = _row_nats(score, batch, device)
                if counts:
                    np.add.at(found, batch.passage, row_nats)
                done = min(done + world.data_size, suite.num_batches)
                if progress is not None:
                    progress(done, suite.num_batches)
            nats: Floats = world.sum_of_data(torch.from_numpy(found)).numpy()
            _check_finite(nats, batched.measure, step)
            seconds = time.perf_counter() - started
            records.append(batched.measure.record(nats, step=step, seconds=seconds))
    return records


def _share(batches: Sequence[Batch], world: World) -> Iterator[tuple[Batch, bool]]:
    """Yield a rank's batches, each with whether it counts: all ranks take part in every forward.

    One that has no batch left computes the first again, for nothing.
    """
    for start in range(0, len(batches), world.data_size):
        mine = start + world.data_rank
        yield (batches[mine], True) if mine < len(batches) else (batches[0], False)


def _row_nats(
    score: Callable[[Tensor, Tensor], Tensor], batch: Batch, device: torch.device
) -> Floats:
    """Return the nats of each row's labels, float64 [rows]."""
    losses = score(
        torch.from_numpy(batch.input_ids).to(device),
        torch.from_numpy(batch.labels).to(device),
    )
    row_nats: Floats = losses.to(torch.float64).sum(dim=1).cpu().numpy()
    return row_nats


def _check_finite(nats: Floats, measure: Measure, step: int) -> None:
    if not np.isfinite(nats).all():
        raise BaseModelError.one(
            f"{measure.metric} of {measure.domain!r} at step {step}",
            f"the loss of {int((~np.isfinite(nats)).sum())} of {len(nats)} passages is not finite",
            "at step 0 the base is damaged or overflows in this precision (try float32); later on, "
            "lower the learning rate and resume from an earlier checkpoint",
        )


def _device_of(model: nn.Module) -> torch.device:
    """Return where the model's first parameter lies; the CPU where it has none."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


@contextlib.contextmanager
def _measuring(
    model: nn.Module, device: torch.device, autocast_dtype: torch.dtype | None
) -> Iterator[None]:
    """Evaluation mode without gradients; modes and random states are as before afterwards.

    `no_grad` rather than `inference_mode`: what a model builds and keeps in its first forward pass
    (rotary tables, unsharded parameters) would be inference tensors, at which the next training
    step fails.
    """
    devices = [device] if device.type == "cuda" else []
    autocast = (
        contextlib.nullcontext()
        if autocast_dtype is None
        else torch.autocast(device.type, dtype=autocast_dtype)
    )
    with torch.random.fork_rng(devices), torch.no_grad(), autocast, evaluating(model):
        yield
