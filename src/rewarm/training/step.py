"""One optimizer step: micro-batches, gradient, clipping, rate, AdamW; or nothing at all.

The loss of a step is Σ nats / number of valid tokens, both over the *whole* step: all micro-batches
of all ranks. That number is known from the labels before the first micro-batch, so each contributes
its sum divided by it, gradients are added up, and how the step is split over micro-batches and
ranks does not matter. (A mean of the parts' means would weigh a token by how few others share its
part.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from rewarm.batches.loader import IGNORED_LABEL, Batch
from rewarm.distributed.fsdp import clip_gradients, local, reduce_gradients, share_of_copies
from rewarm.distributed.world import World
from rewarm.errors import RewarmError
from rewarm.planning.plan import Placement, Science
from rewarm.planning.trainable import layer_of
from rewarm.records.facts import StepRecord
from rewarm.training.optimizer import masked_step, named_parameters
from rewarm.training.placement import autocast_of
from rewarm.training.randomness import seed_step
from rewarm.training.stages import set_rates
from rewarm.training.state import TrainState, buffers_of

__all__ = ["NonFiniteStep", "Stepper", "Tell", "TokenLoss"]


class TokenLoss(Protocol):
    """The training objective."""

    def __call__(
        self, model: nn.Module, input_ids: Tensor, labels: Tensor, position_ids: Tensor | None, /
    ) -> tuple[Tensor, object]:
        """Return the sum over valid labels of their nats (shape [], with its graph), and a count.

        `input_ids` and `labels` are int64 [sequences, time]; labels are not shifted any more.
        `position_ids` start again at 0 with every document; None leaves documents unmasked.
        """
        ...


class Tell(Protocol):
    """Where something worth telling goes."""

    def __call__(self, kind: str, step: int, message: str, /) -> None:
        """Note an event of a kind that `EventRecord` knows."""
        ...


class NonFiniteStep(RewarmError):  # noqa: N818 - it names what happened, as the records do
    """A step's loss or gradient is not finite, and was not when it was replayed either."""

    def __init__(self, step: int, quantity: str, value: float, trace_with: str) -> None:
        """`quantity` is "loss" or "gradient norm"; `trace_with` a command that takes --step."""
        super().__init__(
            f"step {step}: the {quantity} is {value}, also when the step was replayed; the "
            "weights were not touched\n"
            f"    → see what it reads with `{trace_with} --step {step}`; where the text is sound, "
            'a lower schedule.peak_lr or training.precision = "float32" helps'
        )
        self.step = step
        self.quantity = quantity
        self.value = value


@dataclass(frozen=True, slots=True)
class Stepper:
    """Takes the steps of a plan on one device.

    A policy beyond "replay once, then stop" (roll back, skip the window) wraps this callable: after
    NonFiniteStep weights, buffers, moments and random state are as they were before the step.
    """

    science: Science
    placement: Placement
    loss: TokenLoss
    tell: Tell
    trace_with: str = "rewarm trace RUN"

    def __call__(self, state: TrainState, batch: Batch, /) -> StepRecord:
        """Update the state with one batch (a rank: with its share) and return the step's record.

        Raises NonFiniteStep. A step without any valid label has loss 0 and gradient 0, which
        AdamW answers with momentum and decay alone; a warning tells of it. Collective.
        """
        assert batch.step == state.step, f"batch of step {batch.step} at step {state.step}"
        started = time.perf_counter()
        num_valid, samples = _count(state.world, batch, len(self.science.sources))
        if num_valid == 0:
            self.tell("warning", batch.step, "no label of this step counts: loss and gradient 0")
        before = _Buffers.capture(state)
        measured = self._update(state, batch, num_valid)
        if not measured.is_finite:
            self.tell("non_finite", batch.step, f"{measured}; the step is replayed once")
            before.restore(state)
            measured = self._update(state, batch, num_valid)
        if not measured.is_finite:
            before.restore(state)
            raise NonFiniteStep(batch.step, *measured.first_non_finite(), self.trace_with)
        return self._record(batch, measured, num_valid, samples, time.perf_counter() - started)

    def _update(self, state: TrainState, batch: Batch, num_valid: int) -> _Measured:
        """Update weights and moments, unless loss or gradient is not finite; return both.

        Finiteness is reduced on the device and masks the update there; the host reads it
        afterwards, in one transfer.
        """
        optimizer = state.optimizer
        set_rates(optimizer, self.science, batch.step)
        seed_step(self.science.seed, batch.step, state.world.data_rank)
        loss = state.world.sum_of_data(self._accumulate_gradients(state, batch, num_valid))
        parameters = [parameter for _, parameter in named_parameters(optimizer)]
        by_layer = self._layer_norms(state)
        grad_norm = clip_gradients(parameters, self.science.optimizer.clip_grad_norm, state.world)
        measured = torch.stack((loss, grad_norm.to(loss)))
        masked_step(optimizer, skip=~measured.isfinite().all())
        optimizer.zero_grad(set_to_none=True)
        loss_value, norm, *norms = torch.cat((measured, by_layer.to(loss))).tolist()
        return _Measured(loss_value, norm, tuple(norms))

    def _layer_norms(self, state: TrainState) -> Tensor:
        """Return the norm of each layer's gradient, float64 [layers], where freezing asks for it;
        else an empty tensor. A layer without a gradient has 0. Collective.
        """
        if self.science.freezing.kind != "auto":
            return torch.zeros(0, dtype=torch.float64, device=state.device)
        squares = torch.zeros(self.science.num_layers, dtype=torch.float64, device=state.device)
        for name, parameter in named_parameters(state.optimizer):
            layer = layer_of(name)
            if layer is not None and parameter.grad is not None:
                share = share_of_copies(parameter, state.world)
                squares[layer] += local(parameter.grad).double().square().sum() * share
        return state.world.sum(squares).sqrt()

    def _accumulate_gradients(self, state: TrainState, batch: Batch, num_valid: int) -> Tensor:
        """Add each micro-batch's share of the step's gradient; return their loss, float64 []."""
        divisor = max(num_valid, 1)
        total = torch.zeros((), dtype=torch.float64, device=state.device)
        size = self.placement.micro_batch_sequences
        most_rows = -(-self.science.sequences_per_step // state.world.data_size)
        num_parts = -(-most_rows // size)
        for part, tensors in enumerate(_micro_batches(batch, size, num_parts)):
            input_ids, labels, position_ids = (
                None if tensor is None else tensor.to(state.device) for tensor in tensors
            )
            assert input_ids is not None
            assert labels is not None
            reduce_gradients(
                state.root, now=part == num_parts - 1, keep_whole=self.placement.whole_gradients
            )
            with autocast_of(self.placement):
                nats, _ = state.root(self.loss, input_ids, labels, position_ids)
            (nats / divisor).backward()
            total += nats.detach()
        return total / divisor

    def _record(
        self,
        batch: Batch,
        measured: _Measured,
        num_valid: int,
        samples: tuple[int, ...],
        step_s: float,
    ) -> StepRecord:
        science = self.science
        return StepRecord(
            step=batch.step,
            loss=measured.loss,
            lr=science.lr(batch.step),
            grad_norm=measured.grad_norm,
            num_valid_tokens=num_valid,
            num_tokens=(batch.step + 1) * science.tokens_per_step,
            phase=science.phase_at(batch.step).name,
            samples=samples,
            step_s=step_s,
            layer_grad_norms=measured.layer_norms,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Buffers:
    """What a forward pass changes whether or not the update follows."""

    values: dict[str, Tensor]

    @classmethod
    def capture(cls, state: TrainState) -> _Buffers:
        return cls({name: buffer.clone() for name, buffer in buffers_of(state.model).items()})

    def restore(self, state: TrainState) -> None:
        for name, buffer in buffers_of(state.model).items():
            buffer.copy_(self.values[name])


@dataclass(frozen=True, slots=True)
class _Measured:
    """Loss (nats per valid token) and gradient norm before clipping."""

    loss: float
    grad_norm: float
    layer_norms: tuple[float, ...] = ()

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)

    def first_non_finite(self) -> tuple[str, float]:
        if not math.isfinite(self.loss):
            return "loss", self.loss
        return "gradient norm", self.grad_norm

    def __str__(self) -> str:
        return f"loss {self.loss}, gradient norm {self.grad_norm}"


def _micro_batches(
    batch: Batch, num_sequences: int, num_parts: int
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Yield inputs, labels and positions of at most `num_sequences` rows, `num_parts` times.

    All ranks must take part in every forward pass: one whose share is smaller computes rows of
    which no label counts.
    """
    for start in range(0, num_parts * num_sequences, num_sequences):
        rows = slice(start, start + num_sequences)
        if start < len(batch.input_ids):
            positions = None if batch.position_ids is None else batch.position_ids[rows]
            yield batch.input_ids[rows], batch.labels[rows], positions
        else:
            shape = (1, batch.input_ids.shape[1])
            positions = None if batch.position_ids is None else torch.arange(shape[1])[None]
            yield torch.zeros(shape, dtype=torch.int64), torch.full(shape, IGNORED_LABEL), positions


def _count(world: World, batch: Batch, num_sources: int) -> tuple[int, tuple[int, ...]]:
    """Return the whole step's number of valid labels, and its sequences by source; collective."""
    samples = torch.from_numpy(np.bincount(batch.source, minlength=num_sources))
    counts = torch.cat((torch.tensor([batch.num_valid_tokens]), samples))
    num_valid, *by_source = world.sum_of_data(counts).tolist()
    return num_valid, tuple(by_source)
