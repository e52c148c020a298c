"""Runs an evaluation suite through a model and leaves the model as it was found."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from rewarm.errors import BaseModelError
from rewarm.evaluation.measure import Floats, Measure
from rewarm.evaluation.suite import Batch, EvaluationSuite
from rewarm.model.loss import token_losses
from rewarm.model.modes import evaluating
from rewarm.records.facts import EvalRecord

__all__ = ["Progress", "evaluate"]

Progress = Callable[[int, int], None]
"""Called after every batch with (batches done, batches of the evaluation)."""


def evaluate(
    model: nn.Module,
    suite: EvaluationSuite,
    *,
    step: int,
    autocast_dtype: torch.dtype | None = None,
    progress: Progress | None = None,
) -> list[EvalRecord]:
    """Return one record per measure of the suite, for the model after `step` updates.

    Costs `suite.num_tokens` forward positions. Training is bit-identical with and without it: no
    gradient is touched, modes of modules and random states are put back. Nats are summed per
    passage in float64; in float32 the figures agree to 1e-6 whatever the batch size. Raises
    BaseModelError where the model's loss is not finite.
    """
    device = _device_of(model)
    done = 0
    records = []
    with _measuring(model, device, autocast_dtype):
        for batched in suite.measures:
            started = time.perf_counter()
            nats = np.zeros(len(batched.measure.passages))
            for batch in batched.batches:
                np.add.at(nats, batch.passage, _row_nats(model, batch, device))
                done += 1
                if progress is not None:
                    progress(done, suite.num_batches)
            _check_finite(nats, batched.measure, step)
            seconds = time.perf_counter() - started
            records.append(batched.measure.record(nats, step=step, seconds=seconds))
    return records


def _row_nats(model: nn.Module, batch: Batch, device: torch.device) -> Floats:
    """Return the nats of each row's labels, float64 [rows]."""
    losses: Tensor = token_losses(
        model,
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
