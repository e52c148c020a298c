"""Learners that train on the stream and, most of them, on what a memory kept of it.

fine-tune   cross-entropy of the stream's batch
joint       all examples so far, from the first weights anew after each task (an upper bound)
er          + that of a random batch of the memory
mir         + that of the candidates whose loss a virtual step on the stream raises most
gss         as er; the memory keeps examples whose gradients differ
a-gem       the stream's gradient, turned aside where it points against the memory's
gdumb       nothing; after each task from the first weights anew, over the memory alone
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rewarm.model.modes import evaluating
from rewarm.retention.projection import turn_aside
from rewarm.stream.learning import Indices, Learning, shuffled_batches
from rewarm.stream.memory import draw
from rewarm.stream.network import Network
from rewarm.stream.state import State

__all__ = [
    "AGem",
    "DiverseGradients",
    "FineTune",
    "GDumb",
    "Joint",
    "MaximallyInterfered",
    "Replay",
]


@dataclass(slots=True, eq=False)
class FineTune:
    """The stream alone. The memory is filled all the same: a second stage may want it."""

    learning: Learning

    def begin_task(self, classes: Sequence[int]) -> None:
        """Take note of the classes."""
        self.learning.seen.extend(classes)

    def observe(self, indices: Indices) -> None:
        """Take one step."""
        self.learning.step(self.learning.loss(indices))
        self.learning.keep(indices)

    def end_task(self) -> None:
        """Do nothing."""

    def predict(self, indices: Indices) -> Indices:
        """Answer by the head."""
        return self.learning.by_head(indices)


@dataclass(slots=True, eq=False)
class Replay:
    """Experience replay (Chaudhry et al. 2019)."""

    learning: Learning

    def begin_task(self, classes: Sequence[int]) -> None:
        """Take note of the classes."""
        self.learning.seen.extend(classes)

    def observe(self, indices: Indices) -> None:
        """Take one step."""
        learning = self.learning
        learning.step(learning.rehearsed_loss(indices, learning.drawn()))
        learning.keep(indices)

    def end_task(self) -> None:
        """Do nothing."""

    def predict(self, indices: Indices) -> Indices:
        """Answer by the head."""
        return self.learning.by_head(indices)


@dataclass(slots=True, eq=False)
class MaximallyInterfered:
    """MIR (Aljundi et al. 2019): rehearses what the coming step would hurt most."""

    learning: Learning
    num_candidates: int

    def begin_task(self, classes: Sequence[int]) -> None:
        """Take note of the classes."""
        self.learning.seen.extend(classes)

    def observe(self, indices: Indices) -> None:
        """Take one step."""
        learning = self.learning
        candidates = draw(learning.memory, self.num_candidates, learning.generator)
        worst = self.interfered(indices, candidates) if len(candidates) else candidates
        learning.step(learning.rehearsed_loss(indices, worst))
        learning.keep(indices)

    def interfered(self, indices: Indices, candidates: Indices) -> Indices:
        """Return the candidates whose loss a virtual step on `indices` raises most.

        In evaluation mode: another draw of dropout is no rise, and a look changes no statistics.
        """
        learning = self.learning
        with evaluating(learning.network):
            gradient = learning.gradient_of(learning.loss(indices))
            ahead = copy.deepcopy(learning.network)
            with torch.no_grad():
                for parameter, g in zip(ahead.parameters(), gradient, strict=True):
                    parameter.sub_(g, alpha=learning.lr)
                rise = self._losses(ahead, candidates) - self._losses(learning.network, candidates)
        most = rise.argsort(descending=True, stable=True)[: learning.memory_batch]
        worst: Indices = candidates[most.numpy()]
        return worst

    def _losses(self, network: Network, indices: Indices) -> Tensor:
        inputs, labels = self.learning.of(indices)
        return F.cross_entropy(network(inputs), labels, reduction="none")

    def end_task(self) -> None:
        """Do nothing."""

    def predict(self, indices: Indices) -> Indices:
        """Answer by the head."""
        return self.learning.by_head(indices)


@dataclass(slots=True, eq=False)
class DiverseGradients:
    """GSS-Greedy (Aljundi et al. 2019): a memory of `size` examples whose gradients differ.

    The score of an example is 1 + the largest cosine of its gradient with those of `num_compared`
    random kept ones, in [0, 2], the same ones for a whole step, as Avalanche's plugin has it. A
    full memory takes an example whose score is below 1: a kept one i is drawn with probability
    C_i / ΣC and replaced with probability C_i / (C_i + c).
    """

    learning: Learning
    size: int
    num_compared: int
    kept: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def begin_task(self, classes: Sequence[int]) -> None:
        """Take note of the classes."""
        self.learning.seen.extend(classes)

    def observe(self, indices: Indices) -> None:
        """Take one step, and choose what is kept of the batch."""
        learning = self.learning
        kept = np.asarray(self.kept, dtype=np.int64)
        count = min(learning.memory_batch, len(kept))
        drawn = learning.generator.choice(kept, size=count, replace=False)
        learning.step(learning.rehearsed_loss(indices, drawn))
        self._choose([index for index in indices.tolist() if index not in self.kept])
        learning.keep(indices)

    def _choose(self, indices: Sequence[int]) -> None:
        """Offer new examples to the memory. While fewer are kept than are compared, all are."""
        compared = self.compared() if indices else []
        for index in indices:
            own = self.direction(index)
            self._consider(index, self.score(own, compared))
            if len(compared) < min(self.num_compared, len(self.kept)):
                compared.append(own)

    def compared(self) -> list[Tensor]:
        """Return the directions of some kept ones, drawn at random."""
        count = min(self.num_compared, len(self.kept))
        drawn = self.learning.generator.choice(self.kept, size=count, replace=False)
        return [self.direction(int(index)) for index in drawn]

    def direction(self, index: int) -> Tensor:
        """Return the gradient of an example's loss, of length 1, [parameters]."""
        with evaluating(self.learning.network):  # without dropout: it would differ by the draw
            loss = self.learning.loss(np.asarray([index], dtype=np.int64))
            gradient = torch.cat([g.flatten() for g in self.learning.gradient_of(loss)])
        return F.normalize(gradient, dim=0)

    def score(self, own: Tensor, compared: Sequence[Tensor]) -> float:
        """Return 1 + the largest cosine of a direction with others; 0 where there are none."""
        if not compared:
            return 0.0
        return 1.0 + float(torch.stack([own @ other for other in compared]).max())

    def _consider(self, index: int, score: float) -> None:
        if len(self.kept) < self.size:
            self.kept.append(index)
            self.scores.append(score)
            return
        if score >= 1.0:
            return
        generator, scores = self.learning.generator, np.asarray(self.scores)
        total = scores.sum()
        weights = scores / total if total > 0 else np.full(len(scores), 1 / len(scores))
        place = int(generator.choice(len(scores), p=weights))
        if generator.random() < scores[place] / max(scores[place] + score, 1e-12):
            self.kept[place], self.scores[place] = index, score

    def state(self) -> State:
        """Return what is kept, and its scores."""
        return State({}, {"kept": list(self.kept), "scores": list(self.scores)})

    def restore(self, state: State) -> None:
        """Keep what another one kept."""
        self.kept[:] = [int(index) for index in state.facts["kept"]]
        self.scores[:] = [float(score) for score in state.facts["scores"]]

    def end_task(self) -> None:
        """Do nothing."""

    def predict(self, indices: Indices) -> Indices:
        """Answer by the head."""
        return self.learning.by_head(indices)


@dataclass(slots=True, eq=False)
class AGem:
    """A-GEM (Chaudhry et al. 2019), by the projection of `retention`."""

    learning: Learning

    def begin_task(self, classes: Sequence[int]) -> None:
        """Take note of the classes."""
        self.learning.seen.extend(classes)

    def observe(self, indices: Indices) -> None:
        """Take one step."""
        learning = self.learning
        remembered = learning.drawn()
        memory = learning.gradient_of(learning.loss(remembered)) if len(remembered) else None
        learning.backward(learning.loss(indices))
        if memory is not None:
            gradients = [p.grad for p in learning.parameters() if p.grad is not None]
            reached = [
                m for p, m in zip(learning.parameters(), memory, strict=True) if p.grad is not None
            ]
            turn_aside(gradients, reached, shares=[1.0] * len(gradients))
        learning.descend()
        learning.keep(indices)

    def end_task(self) -> None:
        """Do nothing."""

    def predict(self, indices: Indices) -> Indices:
        """Answer by the head."""
        return self.learning.by_head(indices)


class _Anew:
    """Trains from the network's first weights, as often as asked."""

    def __init__(self, learning: Learning) -> None:
        self._learning = learning
        self._first = copy.deepcopy(learning.network.state_dict())

    def train(self, indices: Indices, batch: int, num_epochs: int) -> None:
        """Put the first weights back and train on these examples."""
        self._learning.network.load_state_dict(self._first)
        for rows in shuffled_batches(indices, batch, num_epochs, self._learning.generator):
            self._learning.train_on(rows, "end")


class Joint:
    """All examples so far, from the first weights after each task: what could be had at most."""

    def __init__(self, learning: Learning, batch: int, num_epochs: int) -> None:
        self._learning = learning
        self._anew = _Anew(learning)
        self._batch, self._num_epochs = batch, num_epochs
        self._seen_examples: dict[int, None] = {}

    def begin_task(self, classes: Sequence[int]) -> None:
        """Take note of the classes."""
        self._learning.seen.extend(classes)

    def observe(self, indices: Indices) -> None:
        """Take note of the examples."""
        self._seen_examples.update(dict.fromkeys(indices.tolist()))
        self._learning.keep(indices)

    def end_task(self) -> None:
        """Train."""
        examples = np.asarray(list(self._seen_examples), dtype=np.int64)
        self._anew.train(examples, self._batch, self._num_epochs)

    def state(self) -> State:
        """Return the examples so far; the first weights are those that it was built with."""
        return State({}, {"examples": list(self._seen_examples)})

    def restore(self, state: State) -> None:
        """Have seen what another one saw."""
        self._seen_examples = dict.fromkeys(int(index) for index in state.facts["examples"])

    def predict(self, indices: Indices) -> Indices:
        """Answer by the head."""
        return self._learning.by_head(indices)


class GDumb:
    """GDumb (Prabhu et al. 2020): the memory alone, from the first weights after each task."""

    def __init__(self, learning: Learning, num_epochs: int) -> None:
        self._learning = learning
        self._anew = _Anew(learning)
        self._num_epochs = num_epochs

    def begin_task(self, classes: Sequence[int]) -> None:
        """Take note of the classes."""
        self._learning.seen.extend(classes)

    def observe(self, indices: Indices) -> None:
        """Offer the batch to the memory."""
        self._learning.keep(indices)

    def end_task(self) -> None:
        """Train."""
        learning = self._learning
        self._anew.train(learning.memory.kept(), learning.memory_batch, self._num_epochs)

    def predict(self, indices: Indices) -> Indices:
        """Answer by the head."""
        return self._learning.by_head(indices)
