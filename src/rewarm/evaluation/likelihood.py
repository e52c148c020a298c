"""Runs an evaluation suite through a model and leaves the model as it was found."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from rewarm.distributed.world import ALONE, World
from rewarm.errors import BaseModelError
from rewarm.evaluation.measure import Floats, Measure
from rewarm.evaluation.suite import Batch, EvaluationSuite
from rewarm.model.loss import CausalModel, token_losses, token_losses_and_misses
from rewarm.model.modes import evaluating
from rewarm.records.facts import EvalRecord

__all__ = ["Progress", "Scorer", "TokenLosses", "Within", "evaluate", "measuring"]

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
    scorer = Scorer(model, world, within, tokens_done=progress, num_batches=suite.num_batches)
    records = []
    with measuring(model, autocast_dtype):
        for batched in suite.measures:
            started = time.perf_counter()
            measure = batched.measure
            score = losses if measure.counts == "nats" else _misses
            (figures,) = scorer.sums(score, batched.batches, len(measure.passages), num_figures=1)
            _check_finite(figures, measure, step)
            seconds = time.perf_counter() - started
            records.append(measure.record(figures, step=step, seconds=seconds))
    return records


def _misses(model: CausalModel, input_ids: Tensor, labels: Tensor) -> Tensor:
    return token_losses_and_misses(model, input_ids, labels)[1]


class Scorer:
    """Runs batches through a model and sums what a score gives of each token, by passage.

    Of many ranks each takes its share of the batches, and all get the same sums.
    """

    def __init__(
        self,
        model: nn.Module,
        world: World = ALONE,
        within: Within | None = None,
        *,
        tokens_done: Progress | None = None,
        num_batches: int = 0,
    ) -> None:
        """`within` is where its weights are there; `tokens_done` is told of every batch."""
        self.model = model
        self.world = world
        self.device = _device_of(model)
        self.within: Within = within or (lambda work, *arguments: work(model, *arguments))
        self._progress = tokens_done
        self._num_batches = num_batches
        self._done = 0

    def sums(
        self, score: TokenLosses, batches: Sequence[Batch], num_passages: int, *, num_figures: int
    ) -> Floats:
        """Return what `score` gives of each token, summed by passage; collective.

        `score` gives [batch, time], or [figures, batch, time] where there are several; the sums are
        taken in float64 [figures, passages].
        """
        found = np.zeros((num_figures, num_passages))
        for batch, counts in _share(batches, self.world):
            of_rows = self._row_sums(score, batch)
            if counts:
                for of_passages, rows in zip(found, of_rows, strict=True):
                    np.add.at(of_passages, batch.passage, rows)
            self._done = min(self._done + self.world.data_size, self._num_batches)
            if self._progress is not None:
                self._progress(self._done, self._num_batches)
        sums: Floats = self.world.sum_of_data(torch.from_numpy(found)).numpy()
        return sums

    def _row_sums(self, score: TokenLosses, batch: Batch) -> Floats:
        """Return the sums over each row, float64 [figures, rows]."""
        tokens: Tensor = self.within(
            score,
            torch.from_numpy(batch.input_ids).to(self.device),
            torch.from_numpy(batch.labels).to(self.device),
        )
        rows: Floats = tokens.to(torch.float64).sum(dim=-1).cpu().numpy()
        return rows if rows.ndim == 2 else rows[None]


def _share(batches: Sequence[Batch], world: World) -> Iterator[tuple[Batch, bool]]:
    """Yield a rank's batches, each with whether it counts: all ranks take part in every forward.

    One that has no batch left computes the first again, for nothing.
    """
    for start in range(0, len(batches), world.data_size):
        mine = start + world.data_rank
        yield (batches[mine], True) if mine < len(batches) else (batches[0], False)


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
def measuring(model: nn.Module, autocast_dtype: torch.dtype | None = None) -> Iterator[None]:
    """Evaluation mode without gradients; modes and random states are as before afterwards.

    `no_grad` rather than `inference_mode`: what a model builds and keeps in its first forward pass
    (rotary tables, unsharded parameters) would be inference tensors, at which the next training
    step fails.
    """
    device = _device_of(model)
    devices = [device] if device.type == "cuda" else []
    autocast = (
        contextlib.nullcontext()
        if autocast_dtype is None
        else torch.autocast(device.type, dtype=autocast_dtype)
    )
    with torch.random.fork_rng(devices), torch.no_grad(), autocast, evaluating(model):
        yield
