"""One optimizer step: micro-batches, gradient, clipping, rate, AdamW; or nothing at all.

The loss of a step is Σ nats / number of valid tokens, both over the *whole* step: all micro-batches
of all ranks. That number is known from the labels before the first micro-batch, so each contributes
its sum divided by it, gradients are added up, and how the step is split over micro-batches and
ranks does not matter. (A mean of the parts' means would weigh a token by how few others share its
part.)

What retention adds: a divergence within the loss, then pulls to the base's weights on each rank's
part of the gradient, and last a memory's gradient that turns it aside; all before clipping.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from rewarm.batches.loader import IGNORED_LABEL, Batch
from rewarm.distributed.fsdp import clip_gradients, local, reduce_gradients, share_of_copies
from rewarm.distributed.world import World
from rewarm.errors import RewarmError
from rewarm.planning.amended import amended
from rewarm.planning.amendments import Amendments
from rewarm.planning.plan import Placement, Science
from rewarm.planning.trainable import layer_of
from rewarm.records.facts import StepRecord
from rewarm.retention.projection import turn_aside
from rewarm.retention.terms import Retention
from rewarm.training.optimizer import masked_step, named_parameters
from rewarm.training.placement import autocast_of, blocks_dtype
from rewarm.training.randomness import seed_step
from rewarm.training.spans import Spans
from rewarm.training.stages import set_rates
from rewarm.training.state import TrainState, buffers_of

__all__ = ["NonFiniteStep", "Stepper", "Tell", "TokenLoss"]


class TokenLoss(Protocol):
    """The training objective."""

    def __call__(
        self,
        model: nn.Module,
        input_ids: Tensor,
        labels: Tensor,
        position_ids: Tensor | None,
        bounds: Tensor | None,
        /,
    ) -> tuple[Tensor, object]:
        """Return the sum over valid labels of their nats (shape [], with its graph), and a count.

        `input_ids` and `labels` are int64 [sequences, time]; labels are not shifted any more.
        `position_ids` start again at 0 with every document; None leaves documents unmasked.
        `bounds` say the same of the flattened batch (`Batch.bounds`).
        """
        ...


class Tell(Protocol):
    """Where something worth telling goes."""

    def __call__(self, kind: str, step: int, message: str, /) -> None:
        """Note an event of a kind that `EventRecord` knows."""
        ...


_Objective = Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]
"""What is trained on: the sum over a batch's tokens, with its graph, and what it is of, [3]."""


class _Count(NamedTuple):
    """Of a whole step: labels that count, those with a next-token loss, sequences by source."""

    valid: int
    with_loss: int
    samples: tuple[int, ...]


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
    retention: Retention = field(default_factory=Retention)
    spans: Spans = field(default_factory=Spans)

    def __call__(self, state: TrainState, batch: Batch, /) -> StepRecord:
        """Update the state with one batch (a rank: with its share) and return the step's record.

        Raises NonFiniteStep. A step without any valid label has loss 0 and gradient 0, which
        AdamW answers with momentum and decay alone; a warning tells of it. Collective.
        """
        assert batch.step == state.step, f"batch of step {batch.step} at step {state.step}"
        started = time.perf_counter()
        count = self._count(state.world, batch)
        if count.valid == 0:
            self.tell("warning", batch.step, "no label of this step counts: loss and gradient 0")
        before = _Buffers.capture(state)
        measured = self._update(state, batch, count)
        if not measured.is_finite:
            self.tell("non_finite", batch.step, f"{measured}; the step is replayed once")
            before.restore(state)
            measured = self._update(state, batch, count)
        if not measured.is_finite:
            before.restore(state)
            raise NonFiniteStep(batch.step, *measured.first_non_finite(), self.trace_with)
        elapsed = time.perf_counter() - started
        return self._record(batch, measured, count, elapsed, state.amendments)

    def _update(self, state: TrainState, batch: Batch, count: _Count) -> _Measured:
        """Update weights and moments, unless loss or gradient is not finite; return both.

        Finiteness is reduced on the device and masks the update there; the host reads it
        afterwards, in one transfer.
        """
        optimizer = state.optimizer
        set_rates(optimizer, self.science, batch.step)
        memory = self._memory_gradients(state, batch.step)
        seed_step(self.science.seed, batch.step, state.world.data_rank)
        nats, divergence, held = state.world.sum_of_data(
            self._accumulate_gradients(
                state,
                batch,
                self.retention.distillation or self._plain,
                num_sequences=self.science.sequences_per_step,
                num_valid=count.valid,
            )
        )
        loss = nats
        if count.with_loss != count.valid:
            loss = nats * count.valid / max(count.with_loss, 1)
        with self.spans("optimizer"):
            figures = self._adjust(state, memory)
            if self.retention.distillation is not None:
                figures["distill"] = divergence / held  # not a number where no token was held
            parameters = [parameter for _, parameter in named_parameters(optimizer)]
            by_layer = self._layer_norms(state)
            grad_norm = clip_gradients(
                parameters, self.science.optimizer.clip_grad_norm, state.world
            )
            measured = torch.stack((loss, grad_norm.to(loss)))
            masked_step(
                optimizer,
                skip=~measured.isfinite().all(),
                product_dtype=blocks_dtype(self.placement),
            )
            optimizer.zero_grad(set_to_none=True)
        numbers = (measured, by_layer.to(loss), *(f.to(loss)[None] for f in figures.values()))
        loss_value, norm, *others = torch.cat(numbers).tolist()
        norms = tuple(others[: len(by_layer)])
        of_terms = zip(figures, others[len(by_layer) :], strict=True)
        named = {name: value for name, value in of_terms if not math.isnan(value)}
        return _Measured(loss_value, norm, norms, named)

    def _plain(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss's sum over a batch's tokens, and that with no divergence beside it."""
        nats, _ = self.loss(
            model, batch.input_ids, batch.labels, batch.position_ids, batch.bounds()
        )
        parts = torch.zeros(3, dtype=torch.float64, device=nats.device)
        parts[0] = nats.detach()
        return nats, parts

    def _memory_gradients(self, state: TrainState, step: int) -> dict[str, Tensor] | None:
        """Return this rank's parts of the gradient of the memory's mean loss, if there is one."""
        recipe = self.science.retention.agem
        if self.retention.memory is None or recipe is None:
            return None
        assert recipe.sequences_per_step is not None
        seed_step(self.science.seed, step, state.world.data_rank)
        batch = self.retention.memory.batch(step)
        self._accumulate_gradients(
            state,
            batch,
            self._plain,
            num_sequences=recipe.sequences_per_step,
            num_valid=int(state.world.sum_of_data(torch.tensor(batch.num_valid_tokens))),
        )
        found = {
            name: local(parameter.grad)
            for name, parameter in named_parameters(state.optimizer)
            if parameter.grad is not None
        }
        state.optimizer.zero_grad(set_to_none=True)
        return found

    def _adjust(self, state: TrainState, memory: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """Change the gradient as retention wants it, and return its figures, each of shape [].

        The pulls come first: what the memory's gradient turns aside is the whole of the rest.
        """
        named = list(named_parameters(state.optimizer))
        shares = {name: share_of_copies(found, state.world) for name, found in named}
        figures: dict[str, Tensor] = {}
        if state.anchor is not None:
            l2sp, ewc = state.world.sum(state.anchor.pull(named, shares))
            figures |= {"l2sp": l2sp} if state.anchor.l2sp else {}
            figures |= {"ewc": ewc} if state.anchor.ewc else {}
        if memory is not None:
            gradients: list[Tensor] = []
            for name, parameter in named:
                if name in memory:
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    gradients.append(local(parameter.grad))
            figures["agem"] = turn_aside(
                gradients,
                list(memory.values()),
                shares=[shares[name] for name in memory],
                total=state.world.sum,
            )
        return figures

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

    def _accumulate_gradients(
        self,
        state: TrainState,
        batch: Batch,
        objective: _Objective,
        *,
        num_sequences: int,
        num_valid: int,
    ) -> Tensor:
        """Add each micro-batch's share of a gradient; return this rank's share of what it is of:
        nats, divergence and its tokens, all divided by `num_valid`; float64 [3].

        All ranks have `num_sequences` together, of which `num_valid` labels count.
        """
        divisor = max(num_valid, 1)
        total = torch.zeros(3, dtype=torch.float64, device=state.device)
        size = self.placement.micro_batch_sequences
        most_rows = -(-num_sequences // state.world.data_size)
        num_parts = -(-most_rows // size)
        for index, part in enumerate(_micro_batches(batch, size, num_parts)):
            reduce_gradients(
                state.root, now=index == num_parts - 1, keep_whole=self.placement.whole_gradients
            )
            with self.spans("forward"), autocast_of(self.placement):
                summed, parts = state.root(objective, part.to(state.device))
            with self.spans("backward"):
                (summed / divisor).backward()
            total += parts
        return total / divisor

    def _record(
        self,
        batch: Batch,
        measured: _Measured,
        count: _Count,
        step_s: float,
        amendments: Amendments,
    ) -> StepRecord:
        science = self.science
        return StepRecord(
            step=batch.step,
            loss=measured.loss,
            lr=science.lr(batch.step),
            grad_norm=measured.grad_norm,
            num_valid_tokens=count.valid,
            num_tokens=(batch.step + 1) * science.tokens_per_step,
            phase=amended(science, amendments).phase_at(batch.step).name,
            samples=count.samples,
            step_s=step_s,
            data_wait_s=batch.waited_s,
            layer_grad_norms=measured.layer_norms,
            retention=measured.retention,
        )

    def _count(self, world: World, batch: Batch) -> _Count:
        """Return what the whole step has; collective."""
        samples = torch.from_numpy(np.bincount(batch.source, minlength=len(self.science.sources)))
        valid = batch.num_valid_tokens
        distillation = self.retention.distillation
        with_loss = valid if distillation is None else distillation.num_with_loss(batch)
        counts = torch.cat((torch.tensor([valid, with_loss]), samples))
        num_valid, num_with_loss, *by_source = world.sum_of_data(counts).tolist()
        return _Count(num_valid, num_with_loss, tuple(by_source))


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
    retention: dict[str, float] = field(default_factory=dict)

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)

    def first_non_finite(self) -> tuple[str, float]:
        if not math.isfinite(self.loss):
            return "loss", self.loss
        return "gradient norm", self.grad_norm

    def __str__(self) -> str:
        return f"loss {self.loss}, gradient norm {self.grad_norm}"


def _micro_batches(batch: Batch, num_sequences: int, num_parts: int) -> Iterator[Batch]:
    """Yield batches of at most `num_sequences` rows, `num_parts` times.

    All ranks must take part in every forward pass: one whose share is smaller computes a row of
    which no label counts, and which is of no source.
    """
    for start in range(0, num_parts * num_sequences, num_sequences):
        if start < len(batch.input_ids):
            yield batch.of_rows(slice(start, start + num_sequences))
        else:
            shape = (1, batch.input_ids.shape[1])
            yield Batch(
                step=batch.step,
                input_ids=torch.zeros(shape, dtype=torch.int64),
                labels=torch.full(shape, IGNORED_LABEL),
                source=np.array([-1]),
                position_ids=None if batch.position_ids is None else torch.arange(shape[1])[None],
                starts=None if batch.starts is None else (np.zeros(1, dtype=np.int64),),
            )
