"""What every learner has: a network, a memory, and steps of plain SGD on labelled examples."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from rewarm.model.modes import evaluating
from rewarm.records.stream_steps import StreamPart
from rewarm.stream.inputs import Batch, Inputs
from rewarm.stream.memory import Memory, draw
from rewarm.stream.network import Network
from rewarm.stream.state import State, part, under
from rewarm.training.randomness import seed_step

__all__ = ["Indices", "Learner", "Learning", "LossNotFinite", "Update", "shuffled_batches"]

Indices = NDArray[np.int64]

_ROWS_AT_A_TIME = 256
_DRAWN_BY_STEPS = 5  # what a number is drawn for


class LossNotFinite(ArithmeticError):  # noqa: N818 - a state of a run, told as a user's mistake
    """A run has left what numbers can hold; says by which loss and rate."""


class Update(NamedTuple):
    """An update that was taken: the how manieth, from 0, on how many examples, in how long."""

    number: int
    part: StreamPart
    loss: float
    num_examples: int
    elapsed_s: float


class Learner(Protocol):
    """An algorithm."""

    def begin_task(self, classes: Sequence[int]) -> None:
        """Hear which classes come next, before the first of their steps."""

    def observe(self, indices: Indices) -> None:
        """Take one step on a batch of the stream."""

    def end_task(self) -> None:
        """Hear that the task is over, before anything is measured."""

    def predict(self, indices: Indices) -> NDArray[np.int64]:
        """Return the class of each example among those seen so far."""


@dataclass(slots=True, eq=False)
class Learning:
    """A network on its way through a stream. Examples are named by their numbers.

    Inputs and labels stay on the CPU; rows of them go to the network's device.
    """

    network: Network
    inputs: Inputs
    labels: Tensor
    memory: Memory
    memory_batch: int
    lr: float
    seed: int
    seen: list[int] = field(default_factory=list)
    offered: set[int] = field(default_factory=set)
    on_update: Callable[[Update], None] | None = None
    num_updates: int = field(init=False, default=0)
    generator: np.random.Generator = field(init=False)
    _loss: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.draw_anew(0)

    def draw_anew(self, moment: int) -> None:
        """Set all that draws to where a moment of the stream begins, whatever was before it.

        torch's generators too: dropout of a pre-trained backbone draws from them.
        """
        self.generator = np.random.default_rng((self.seed, _DRAWN_BY_STEPS, moment))
        seed_step(self.seed, moment, rank=0)

    def state(self) -> State:
        """Return weights, classes and memory."""
        facts = {
            "seen": list(self.seen),
            "offered": sorted(self.offered),
            "memory": self.memory.state(),
            "num_updates": self.num_updates,
        }
        return State(under("network", self.network.state_dict()), facts)

    def restore(self, state: State) -> None:
        """Go on from a state."""
        self.network.load_state_dict(part("network", state.tensors))
        self.seen[:] = [int(label) for label in state.facts["seen"]]
        self.offered = {int(index) for index in state.facts["offered"]}
        self.memory.restore(state.facts["memory"])
        self.num_updates = int(state.facts["num_updates"])

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.head.weight.device

    def of(self, indices: Indices) -> tuple[Batch, Tensor]:
        """Return inputs and labels of examples."""
        device = self.device
        on_device = {name: tensor.to(device) for name, tensor in self.inputs.rows(indices).items()}
        return on_device, self.labels[torch.from_numpy(indices)].to(device)

    def drawn(self) -> Indices:
        """Return a batch of the memory."""
        return draw(self.memory, self.memory_batch, self.generator)

    def keep(self, indices: Indices) -> None:
        """Offer a batch of the stream to the memory, of each example its first showing.

        A second pass would fill a memory with copies while the first tasks are learned.
        """
        for index in indices.tolist():
            if index not in self.offered:
                self.offered.add(index)
                self.memory.offer(index, int(self.labels[index]), self.generator)

    def loss(self, indices: Indices) -> Tensor:
        """Return the mean cross-entropy of examples, over all classes of the stream."""
        inputs, labels = self.of(indices)
        return F.cross_entropy(self.network(inputs), labels)

    def rehearsed_loss(self, indices: Indices, remembered: Indices) -> Tensor:
        """Return the cross-entropy of the stream's batch plus the memory's, means of each."""
        own = self.loss(indices)
        return own + self.loss(remembered) if len(remembered) else own

    def parameters(self) -> list[nn.Parameter]:
        """Return what is trained."""
        return list(self.network.parameters())

    def backward(self, loss: Tensor) -> None:
        """Set the gradients to those of a loss; raises LossNotFinite for one that is not."""
        found = float(loss.detach())
        if not math.isfinite(found):
            raise LossNotFinite(f"the loss is {found}, with lr = {self.lr:g}")
        self._loss = found
        self.network.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)

    @torch.no_grad()
    def descend(self) -> None:
        """Take a step of plain SGD."""
        for parameter in self.network.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=self.lr)

    def step(self, loss: Tensor) -> None:
        """Take a step of plain SGD on a loss."""
        self.backward(loss)
        self.descend()

    @contextlib.contextmanager
    def one_step(self, indices: Indices, part: StreamPart) -> Iterator[None]:
        """Count and tell the update that is taken within the block on a batch, if one is."""
        self._loss = None
        started = time.perf_counter()
        yield
        self._count(part, len(indices), time.perf_counter() - started)

    def _count(self, part: StreamPart, num_examples: int, elapsed_s: float) -> None:
        if self._loss is None:
            return  # no step was taken
        update = Update(self.num_updates, part, self._loss, num_examples, elapsed_s)
        self.num_updates += 1
        if self.on_update is not None:
            self.on_update(update)

    def train_on(self, indices: Indices, part: StreamPart) -> None:
        """Take a step on a batch alone, by cross-entropy."""
        with self.one_step(indices, part):
            self.step(self.loss(indices))

    def gradient_of(self, loss: Tensor) -> list[Tensor]:
        """Return a loss's gradients, zeros where it does not reach, aligned with `parameters`."""
        parameters = self.parameters()
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        return [
            torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)
        ]

    @torch.no_grad()
    def by_head(self, indices: Indices) -> Indices:
        """Return the likeliest seen class of each example by the linear head."""
        seen = torch.tensor(sorted(self.seen), device=self.device)
        with evaluating(self.network):
            parts = [
                seen[self.network(self.of(rows)[0])[:, seen].argmax(1)] for rows in _slices(indices)
            ]
        return torch.cat(parts).cpu().numpy()

    @torch.no_grad()
    def raw_features(self, indices: Indices) -> Tensor:
        """Return the backbone's features as they are, on the CPU, [examples, width]."""
        with evaluating(self.network):
            parts = [self.network.features(self.of(rows)[0]).cpu() for rows in _slices(indices)]
        return torch.cat(parts)

    def features(self, indices: Indices) -> Tensor:
        """Return features of unit length on the CPU, [examples, width]."""
        return F.normalize(self.raw_features(indices), dim=1)

    def by_nearest_mean(self, indices: Indices) -> Indices:
        """Return the class whose kept examples' mean feature is nearest; features have length 1.

        Classes of which nothing is kept are never answered.
        """
        kept = self.memory.kept()
        of_kept, labels = self.features(kept), self.labels[torch.from_numpy(kept)]
        classes = torch.tensor(sorted(set(labels.tolist())))
        means = torch.stack([of_kept[labels == label].mean(0) for label in classes])
        means = F.normalize(means, dim=1)
        nearest: Indices = classes[torch.cdist(self.features(indices), means).argmin(1)].numpy()
        return nearest


def shuffled_batches(
    indices: Indices, size: int, num_epochs: int, generator: np.random.Generator
) -> Iterator[Indices]:
    """Yield all examples in batches, in a new order each time around."""
    for _ in range(num_epochs):
        order = generator.permutation(indices)
        for start in range(0, len(order), size):
            yield order[start : start + size]


def _slices(indices: Indices) -> list[Indices]:
    return [indices[s : s + _ROWS_AT_A_TIME] for s in range(0, len(indices), _ROWS_AT_A_TIME)]
