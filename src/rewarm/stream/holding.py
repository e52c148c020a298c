"""Learners that hold on to what the network was or said, and those that answer by nearest mean.

    lwf     CE / (t + 1) + (1 − 1/(t + 1)) T² KL(previous ‖ now), over the classes of before
    ewc++   CE + λ/2 ΣF(θ − θ*)²; F runs along, θ* and F are taken at the end of each task
    icarl   new classes: BCE with the labels; classes of before: BCE with the previous model's
            sigmoids; answers by the nearest class mean of the memory
    scr     supervised contrastive loss (Khosla et al. 2020) over stream and memory; nearest mean

t counts tasks from 0. Penalty and divergence are `retention.anchor`'s and the trunk's own.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rewarm.model.chunked_divergence import Scored, chunked_divergence
from rewarm.model.modes import evaluating
from rewarm.retention.anchor import Anchor
from rewarm.stream.inputs import Batch
from rewarm.stream.learning import Indices, Learning
from rewarm.stream.network import Network
from rewarm.stream.state import State, part, under

__all__ = [
    "Contrastive",
    "ElasticWeights",
    "IncrementalClassifier",
    "WithoutForgetting",
    "contrastive_loss",
]

_MOST_SHIFT = 2
_PROJECTED = 128


class WithoutForgetting:
    """LwF (Li and Hoiem 2016), weighed as Lee et al. 2023 do."""

    def __init__(self, learning: Learning, temperature: float) -> None:
        self._learning = learning
        self._temperature = temperature
        self._teacher: Network | None = None
        self._before: list[int] = []
        self._num_done = 0

    def begin_task(self, classes: Sequence[int]) -> None:
        """Take note of the classes, and of those before them."""
        self._before = list(self._learning.seen)
        self._learning.seen.extend(classes)

    def observe(self, indices: Indices) -> None:
        """Take one step."""
        self._learning.step(self.loss(indices))
        self._learning.keep(indices)

    def loss(self, indices: Indices) -> Tensor:
        """Return the loss of a batch."""
        inputs, labels = self._learning.of(indices)
        logits = self._learning.network(inputs)
        own = F.cross_entropy(logits, labels)
        if self._teacher is None:
            return own
        with torch.no_grad():
            said = self._teacher(inputs)[:, self._before]
        counts = torch.ones_like(labels, dtype=torch.bool)
        divergence = chunked_divergence(
            Scored(logits[:, self._before]), Scored(said), counts, temperature=self._temperature
        )
        share = 1 / (self._num_done + 1)
        return share * own + (1 - share) * divergence / len(labels)

    def end_task(self) -> None:
        """Take the network as the teacher of the next task."""
        self._teacher = _frozen(self._learning.network)
        self._num_done += 1

    def state(self) -> State:
        """Return the teacher, and how far the stream is."""
        facts = {"before": list(self._before), "num_done": self._num_done}
        return State(_tensors_of(self._teacher), facts)

    def restore(self, state: State) -> None:
        """Go on from a state."""
        self._before = [int(label) for label in state.facts["before"]]
        self._num_done = int(state.facts["num_done"])
        self._teacher = _teacher_of(self._learning, state)

    def predict(self, indices: Indices) -> Indices:
        """Answer by the head."""
        return self._learning.by_head(indices)


class ElasticWeights:
    """EWC++ (Chaudhry et al. 2018): F ← decay F + (1 − decay) mean of squared gradients of each.

    The Fisher information is looked at every `every` steps; of squared gradients of single
    examples, never of the square of a batch's mean.
    """

    def __init__(self, learning: Learning, *, ewc: float, decay: float, every: int) -> None:
        self._learning = learning
        self._ewc, self._decay, self._every = ewc, decay, every
        self._running: Mapping[str, Tensor] | None = None
        self._anchor: Anchor | None = None
        self._num_steps = 0

    def begin_task(self, classes: Sequence[int]) -> None:
        """Take note of the classes."""
        self._learning.seen.extend(classes)

    def observe(self, indices: Indices) -> None:
        """Take one step."""
        learning = self._learning
        if self._num_steps % self._every == 0:
            self._look(indices)
        self._num_steps += 1
        learning.backward(learning.loss(indices))
        if self._anchor is not None:
            self._anchor.pull(self._named(), dict.fromkeys(self._anchor.base, 1.0))
        learning.descend()
        learning.keep(indices)

    def _look(self, indices: Indices) -> None:
        now = self.fisher_of(indices)
        before = self._running
        self._running = (
            now
            if before is None
            else {name: before[name].lerp(found, 1 - self._decay) for name, found in now.items()}
        )

    def fisher_of(self, indices: Indices) -> dict[str, Tensor]:
        """Return the mean of the squared gradients of single examples, by weight, without dropout
        (as `retention.fisher`)."""
        learning = self._learning
        found = {name: torch.zeros_like(p) for name, p in self._named()}
        with evaluating(learning.network):
            for row in range(len(indices)):
                gradient = learning.gradient_of(learning.loss(indices[row : row + 1]))
                for name, g in zip(found, gradient, strict=True):
                    found[name].addcmul_(g, g, value=1 / len(indices))
        return found

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        return list(self._learning.network.named_parameters())

    def end_task(self) -> None:
        """Anchor the weights where they are."""
        assert self._running is not None
        self._anchor = Anchor.at(self._named(), l2sp=0.0, ewc=self._ewc, fisher=self._running)

    def state(self) -> State:
        """Return the Fisher information so far, and the anchor."""
        tensors = under("running", self._running) if self._running is not None else {}
        if self._anchor is not None:
            tensors |= under("base", self._anchor.base) | under("fisher", self._anchor.fisher)
        return State(tensors, {"num_steps": self._num_steps})

    def restore(self, state: State) -> None:
        """Go on from a state."""
        device = self._learning.device
        tensors = {name: tensor.to(device) for name, tensor in state.tensors.items()}
        self._num_steps = int(state.facts["num_steps"])
        self._running = part("running", tensors) or None
        base = part("base", tensors)
        self._anchor = Anchor(base, part("fisher", tensors), ewc=self._ewc) if base else None

    def predict(self, indices: Indices) -> Indices:
        """Answer by the head."""
        return self._learning.by_head(indices)


class IncrementalClassifier:
    """iCaRL (Rebuffi et al. 2017) with the memory of the experiment in place of its herding."""

    def __init__(self, learning: Learning) -> None:
        self._learning = learning
        self._teacher: Network | None = None
        self._before: list[int] = []

    def begin_task(self, classes: Sequence[int]) -> None:
        """Take note of the classes, and of those before them."""
        self._before = list(self._learning.seen)
        self._learning.seen.extend(classes)

    def observe(self, indices: Indices) -> None:
        """Take one step."""
        learning = self._learning
        remembered = learning.drawn()
        loss = self.loss(indices)
        if len(remembered):
            loss = loss + self.loss(remembered)
        learning.step(loss)
        learning.keep(indices)

    def loss(self, indices: Indices) -> Tensor:
        """Return the BCE of a batch: summed over seen classes, the mean over examples."""
        learning = self._learning
        inputs, labels = learning.of(indices)
        logits = learning.network(inputs)
        targets = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
        if self._teacher is not None:
            with torch.no_grad():
                targets[:, self._before] = self._teacher(inputs)[:, self._before].sigmoid()
        of_each = F.binary_cross_entropy_with_logits(
            logits[:, learning.seen], targets[:, learning.seen], reduction="none"
        )
        return of_each.sum(1).mean()

    def end_task(self) -> None:
        """Take the network as the teacher of the next task."""
        self._teacher = _frozen(self._learning.network)

    def state(self) -> State:
        """Return the teacher, and the classes that it knows."""
        return State(_tensors_of(self._teacher), {"before": list(self._before)})

    def restore(self, state: State) -> None:
        """Go on from a state."""
        self._before = [int(label) for label in state.facts["before"]]
        self._teacher = _teacher_of(self._learning, state)

    def predict(self, indices: Indices) -> Indices:
        """Answer by the nearest mean."""
        return self._learning.by_nearest_mean(indices)


class Contrastive:
    """SCR (Mai et al. 2021): features of one class drawn together, by a head of its own.

    Of images each example is seen twice, once moved by up to two pixels; of text once.
    """

    def __init__(self, learning: Learning, temperature: float, seed: int) -> None:
        self._learning = learning
        self._temperature = temperature
        width = learning.network.head.in_features
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._projection = nn.Sequential(
                nn.Linear(width, width), nn.ReLU(), nn.Linear(width, _PROJECTED)
            )
        self._projection.to(learning.device)

    def state(self) -> State:
        """Return the weights of the head that is thrown away in the end."""
        return State(self._projection.state_dict(), {})

    def restore(self, state: State) -> None:
        """Go on from a state."""
        self._projection.load_state_dict(dict(state.tensors))

    def begin_task(self, classes: Sequence[int]) -> None:
        """Take note of the classes."""
        self._learning.seen.extend(classes)

    def observe(self, indices: Indices) -> None:
        """Take one step, with the memory's batch once there is one."""
        learning = self._learning
        both = torch.cat([torch.from_numpy(indices), torch.from_numpy(learning.drawn())]).numpy()
        inputs, labels = learning.of(both)
        views = [inputs]
        if "pixel_values" in inputs:
            views.append(self._moved(inputs))
        features = torch.cat([self._projection(learning.network.features(v)) for v in views])
        loss = contrastive_loss(features, labels.repeat(len(views)), self._temperature)
        if loss is not None:
            self._projection.zero_grad(set_to_none=True)
            learning.step(loss)
            with torch.no_grad():
                for parameter in self._projection.parameters():
                    assert parameter.grad is not None
                    parameter.sub_(parameter.grad, alpha=learning.lr)
        learning.keep(indices)

    def _moved(self, inputs: Batch) -> Batch:
        pixels = inputs["pixel_values"]
        padded = F.pad(pixels, [_MOST_SHIFT] * 4, mode="replicate")
        height, width = pixels.shape[-2:]
        places = self._learning.generator.integers(0, 2 * _MOST_SHIFT + 1, (len(pixels), 2))
        rows = [
            image[:, y : y + height, x : x + width]
            for image, (y, x) in zip(padded, places.tolist(), strict=True)
        ]
        return {"pixel_values": torch.stack(rows)}

    def end_task(self) -> None:
        """Do nothing."""

    def predict(self, indices: Indices) -> Indices:
        """Answer by the nearest mean."""
        return self._learning.by_nearest_mean(indices)


def contrastive_loss(features: Tensor, labels: Tensor, temperature: float) -> Tensor | None:
    """Return the mean over anchors of −1/|P| Σ_{p in P} log softmax of cosines / temperature.

    P are the others of the anchor's class, the softmax is over all others. Anchors without any are
    left out; None where there are none at all.
    """
    unit = F.normalize(features, dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    scores = (unit @ unit.T / temperature).masked_fill(itself, float("-inf"))
    log_shares = scores.log_softmax(1).masked_fill(itself, 0.0)
    positives = (labels[:, None] == labels[None]) & ~itself
    counts = positives.sum(1)
    anchors = counts > 0
    if not bool(anchors.any()):
        return None
    return -((log_shares * positives).sum(1)[anchors] / counts[anchors]).mean()


def _frozen(network: Network) -> Network:
    teacher = copy.deepcopy(network).eval()
    teacher.requires_grad_(False)
    return teacher


def _tensors_of(teacher: Network | None) -> dict[str, Tensor]:
    return under("teacher", teacher.state_dict()) if teacher is not None else {}


def _teacher_of(learning: Learning, state: State) -> Network | None:
    """Return the network of a state; before the second task there is none."""
    tensors = part("teacher", state.tensors)
    if not tensors:
        return None
    teacher = _frozen(learning.network)
    teacher.load_state_dict(tensors)
    return teacher
