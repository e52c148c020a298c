"""Each algorithm of a stream against numpy on a linear softmax model, whose gradients are known.

With p = softmax(Wx + b) and y one-hot, the cross-entropy's gradient is (p − y) ⊗ [x, 1].
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import expit, rel_entr
from torch import Tensor, nn

from rewarm.stream.holding import (
    ElasticWeights,
    IncrementalClassifier,
    WithoutForgetting,
    contrastive_loss,
)
from rewarm.stream.inputs import TensorRows
from rewarm.stream.learning import Learning, Update
from rewarm.stream.memory import Reservoir
from rewarm.stream.network import Network
from rewarm.stream.rehearsing import (
    AGem,
    DiverseGradients,
    FineTune,
    GDumb,
    Joint,
    MaximallyInterfered,
    Replay,
)

Floats = NDArray[np.float64]

_WIDTH, _CLASSES, _LR = 5, 4, 0.3
_DRAWN = np.random.default_rng(11)
_X = _DRAWN.normal(size=(40, _WIDTH))
_Y = _DRAWN.integers(0, _CLASSES, 40)
_FIRST = _DRAWN.normal(size=(_CLASSES, _WIDTH + 1))
_BATCH, _KEPT = np.arange(6), np.arange(20, 30)


class _Same(nn.Module):
    def forward(self, pixel_values: Tensor) -> Tensor:
        return pixel_values


def _learning(kept: NDArray[np.int64] = _KEPT[:0], *, memory_batch: int = 10) -> Learning:
    network = Network(_Same(), _WIDTH, _CLASSES).double()
    _set(network, _FIRST)
    learning = Learning(
        network=network,
        inputs=TensorRows({"pixel_values": torch.from_numpy(_X)}),
        labels=torch.from_numpy(_Y),
        memory=Reservoir(30),
        memory_batch=memory_batch,
        lr=_LR,
        seed=0,
    )
    learning.keep(kept)
    return learning


def test_a_second_pass_puts_no_copies_into_the_memory() -> None:
    learning = _learning(np.arange(10))
    learning.keep(np.arange(10))
    assert learning.memory.kept().tolist() == list(range(10))
    # Nor does it after a checkpoint: what was shown, and not taken, is known to have been shown.
    again = _learning()
    again.restore(learning.state())
    again.keep(np.arange(12))
    assert again.memory.kept().tolist() == list(range(12))
    assert again.memory.state()["num_offered"] == 12


def _set(network: Network, weights: Floats) -> None:
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(weights[:, :-1].copy()))
        network.head.bias.copy_(torch.from_numpy(weights[:, -1].copy()))


def _now(learning: Learning) -> Floats:
    head = learning.network.head
    return np.column_stack([head.weight.detach().numpy(), head.bias.detach().numpy()])


def _logits(w: Floats, rows: NDArray[np.int64]) -> Floats:
    found: Floats = _X[rows] @ w[:, :-1].T + w[:, -1]
    return found


def _softmax(z: Floats) -> Floats:
    e = np.exp(z)
    found: Floats = e / e.sum(1, keepdims=True)
    return found


def _each(w: Floats, rows: NDArray[np.int64]) -> Floats:
    """Gradients of single examples, [rows, classes, width + 1]."""
    off = _softmax(_logits(w, rows)) - np.eye(_CLASSES)[_Y[rows]]
    found: Floats = np.einsum("nc,nd->ncd", off, np.column_stack([_X[rows], np.ones(len(rows))]))
    return found


def _gradient(w: Floats, rows: NDArray[np.int64]) -> Floats:
    found: Floats = _each(w, rows).mean(0)
    return found


def _same(found: Floats, wanted: Floats) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def test_fine_tune() -> None:
    learning = _learning(_KEPT)
    FineTune(learning).observe(_BATCH)
    _same(_now(learning), _FIRST - _LR * _gradient(_FIRST, _BATCH))


def test_an_update_is_told_with_the_loss_before_it() -> None:
    learning = _learning(_KEPT, memory_batch=30)  # all that is kept
    told: list[Update] = []
    learning.on_update = told.append
    for learner in (FineTune(learning), Replay(learning)):
        with learning.one_step(_BATCH, "task"):
            learner.observe(_BATCH)
        with learning.one_step(_BATCH, "task"):
            learning.gradient_of(learning.loss(_BATCH))  # it is looked at, and no step is taken

    def loss(w: Floats, rows: NDArray[np.int64]) -> float:
        return float(-np.log(_softmax(_logits(w, rows))[np.arange(len(rows)), _Y[rows]]).mean())

    second = _FIRST - _LR * _gradient(_FIRST, _BATCH)
    kept = np.concatenate([_KEPT, _BATCH])
    wanted = [loss(_FIRST, _BATCH), loss(second, _BATCH) + loss(second, kept)]
    assert [update.number for update in told] == [0, 1]
    assert {update.num_examples for update in told} == {len(_BATCH)}
    np.testing.assert_allclose([update.loss for update in told], wanted, rtol=1e-12)


def test_replay() -> None:
    learning = _learning(_KEPT)
    Replay(learning).observe(_BATCH)
    both = _gradient(_FIRST, _BATCH) + _gradient(_FIRST, _KEPT)
    _same(_now(learning), _FIRST - _LR * both)


def test_maximally_interfered_retrieval() -> None:
    learning = _learning(_KEPT, memory_batch=3)

    def losses(w: Floats) -> Floats:
        found: Floats = -np.log(_softmax(_logits(w, _KEPT))[np.arange(len(_KEPT)), _Y[_KEPT]])
        return found

    rise = losses(_FIRST - _LR * _gradient(_FIRST, _BATCH)) - losses(_FIRST)
    worst = _KEPT[np.argsort(-rise)[:3]]
    assert set(worst) != set(_KEPT[np.argsort(-losses(_FIRST))[:3]])  # the rise, not the loss
    MaximallyInterfered(learning, 50).observe(_BATCH)
    both = _gradient(_FIRST, _BATCH) + _gradient(_FIRST, worst)
    _same(_now(learning), _FIRST - _LR * both)


class _Noisy(nn.Module):
    """Drops half of what it is given, and counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(_WIDTH, dtype=torch.float64)

    def forward(self, pixel_values: Tensor) -> Tensor:
        found: Tensor = self.norm(self.dropout(pixel_values))
        return found


def _noisy() -> tuple[Learning, _Noisy]:
    learning, backbone = _learning(_KEPT, memory_batch=3), _Noisy()
    learning.network.backbone = backbone
    learning.network.train()
    return learning, backbone


def test_looks_at_examples_hang_on_no_dropout_and_leave_the_statistics_alone() -> None:
    learning, backbone = _noisy()
    diverse = DiverseGradients(learning, size=30, num_compared=10, kept=_KEPT.tolist())
    elastic = ElasticWeights(learning, ewc=1.0, decay=0.9, every=1)

    def fisher() -> object:
        return elastic.fisher_of(_BATCH)["head.weight"].tolist()

    looks = {
        "mir": lambda: MaximallyInterfered(learning, 50).interfered(_BATCH, _KEPT).tolist(),
        "gss": lambda: diverse.direction(3).tolist(),
        "ewc++": fisher,
    }
    before = {name: tensor.clone() for name, tensor in learning.network.state_dict().items()}
    for name, look in looks.items():
        assert all(look() == look() for _ in range(5)), name
        assert backbone.training, name
    after = learning.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_batch_of_one_takes_the_running_statistics() -> None:
    learning, backbone = _noisy()
    assert backbone.norm.running_mean is not None
    running = backbone.norm.running_mean.clone()
    for learner in (FineTune(learning), ElasticWeights(learning, ewc=1.0, decay=0.9, every=1)):
        learner.observe(_BATCH[:1])  # of one example there is no deviation
    assert torch.equal(backbone.norm.running_mean, running)
    assert backbone.norm.training
    FineTune(learning).observe(_BATCH)
    assert not torch.equal(backbone.norm.running_mean, running)


def test_gradient_diversity_scores() -> None:
    learner = DiverseGradients(_learning(), size=30, num_compared=10, kept=_KEPT.tolist())
    own = _each(_FIRST, np.array([3]))[0].ravel()
    others = _each(_FIRST, _KEPT).reshape(len(_KEPT), -1)
    cosines = others @ own / np.linalg.norm(others, axis=1) / np.linalg.norm(own)
    found = learner.score(learner.direction(3), learner.compared())
    assert found == pytest.approx(1 + cosines.max(), abs=1e-12)


def _cosines(w: Floats) -> Floats:
    """Cosines of all examples' gradients with one another, [examples, examples]."""
    each = _each(w, np.arange(len(_X))).reshape(len(_X), -1)
    each /= np.linalg.norm(each, axis=1, keepdims=True)
    found: Floats = each @ each.T
    return found


def test_the_new_examples_of_a_step_are_compared_with_the_same_kept_ones() -> None:
    learning = _learning()
    learner = DiverseGradients(learning, size=30, num_compared=3, kept=_KEPT.tolist())
    learner.scores[:] = [1.0] * len(_KEPT)
    learner.observe(_BATCH)
    cosines = _cosines(_now(learning))  # after the step
    found = np.array(learner.scores[len(_KEPT) :])
    assert len(found) == len(_BATCH)
    explained = [
        few
        for few in itertools.combinations(_KEPT, 3)
        if np.allclose(1 + cosines[np.ix_(_BATCH, few)].max(1), found, rtol=0, atol=1e-12)
    ]
    assert len(explained) == 1


def test_while_few_are_kept_each_is_compared_with_all() -> None:
    learning = _learning()
    learner = DiverseGradients(learning, size=30, num_compared=3)
    learner.observe(_BATCH)
    cosines = _cosines(_now(learning))
    wanted = [0.0, *(1 + cosines[row, : min(row, 3)].max() for row in _BATCH[1:])]
    assert learner.kept == _BATCH.tolist()
    np.testing.assert_allclose(learner.scores, wanted, rtol=0, atol=1e-12)


def test_a_full_memory_of_diverse_gradients_gives_up_what_is_like_others() -> None:
    def replaced(score: float) -> list[int]:
        """Which of two kept examples made room for the third, by the seed; -1: neither."""
        found = []
        for seed in range(600):
            learning = _learning()
            learning.generator = np.random.default_rng(seed)
            learner = DiverseGradients(
                learning, size=2, num_compared=1, kept=[20, 21], scores=[0.5, 1.5]
            )
            learner._consider(3, score)
            found.append(learner.kept.index(3) if 3 in learner.kept else -1)
        return found

    assert set(replaced(1.0)) == {-1}  # a cosine of 0 or more: nothing new
    found = replaced(0.5)
    # Drawn with 1/4 and 3/4, replaced with 0.5 / 1 and 1.5 / 2; five standard deviations.
    for place, share in ((0, 1 / 4 * 0.5), (1, 3 / 4 * 0.75)):
        reach = 5 * (share * (1 - share) / len(found)) ** 0.5
        assert found.count(place) / len(found) == pytest.approx(share, abs=reach)


@pytest.mark.parametrize("against", [True, False])
def test_a_gem(against: bool) -> None:
    # Which kept examples make the memory's gradient point against the stream's is looked for here.
    g = _gradient(_FIRST, _BATCH)
    kept = np.array(
        [i for i in range(6, 40) if (np.sum(_gradient(_FIRST, np.array([i])) * g) < 0) == against]
    )[:5]
    m = _gradient(_FIRST, kept)
    assert (np.sum(g * m) < 0) == against
    learning = _learning(kept)
    AGem(learning).observe(_BATCH)
    turned = g - np.sum(g * m) / np.sum(m * m) * m if against else g
    _same(_now(learning), _FIRST - _LR * turned)


def test_learning_without_forgetting() -> None:
    learning = _learning()
    learner = WithoutForgetting(learning, temperature=2.0)
    learner.begin_task([2, 0])
    learner.end_task()  # the teacher has the first weights
    learner.begin_task([1, 3])
    now = _FIRST + 0.1 * np.arange(_FIRST.size).reshape(_FIRST.shape) / _FIRST.size
    _set(learning.network, now)
    teacher = _softmax(_logits(_FIRST, _BATCH)[:, [2, 0]] / 2)
    student = _softmax(_logits(now, _BATCH)[:, [2, 0]] / 2)
    divergence = 4 * rel_entr(teacher, student).sum(1).mean()
    own = -np.log(_softmax(_logits(now, _BATCH))[np.arange(6), _Y[_BATCH]]).mean()
    loss = learner.loss(_BATCH)
    assert float(loss.detach()) == pytest.approx(own / 2 + divergence / 2, abs=1e-12)
    off = np.zeros((6, _CLASSES))
    off[:, [2, 0]] = 2 * (student - teacher) / 6
    taught = off.T @ np.column_stack([_X[_BATCH], np.ones(6)])
    learner.observe(_BATCH)
    _same(_now(learning), now - _LR * (_gradient(now, _BATCH) + taught) / 2)


def test_learning_without_forgetting_is_taught_by_the_network_of_the_last_task() -> None:
    learning = _learning()
    learner = WithoutForgetting(learning, temperature=2.0)
    learner.begin_task([2])
    learner.end_task()
    learner.begin_task([0])
    second = _FIRST * 0.5
    _set(learning.network, second)
    learner.end_task()
    learner.begin_task([1, 3])
    now = _FIRST * 0.8
    _set(learning.network, now)  # and not the teacher with it
    teacher = _softmax(_logits(second, _BATCH)[:, [2, 0]] / 2)
    student = _softmax(_logits(now, _BATCH)[:, [2, 0]] / 2)
    divergence = 4 * rel_entr(teacher, student).sum(1).mean()
    own = -np.log(_softmax(_logits(now, _BATCH))[np.arange(6), _Y[_BATCH]]).mean()
    wanted = own / 3 + divergence * 2 / 3
    assert float(learner.loss(_BATCH).detach()) == pytest.approx(wanted, abs=1e-12)


def test_elastic_weights() -> None:
    learning = _learning()
    learner = ElasticWeights(learning, ewc=3.0, decay=0.9, every=1)
    learner.begin_task([0, 1])
    w, fisher = _FIRST, None
    for rows in (_BATCH, _BATCH + 6):
        now = (_each(w, rows) ** 2).mean(0)
        fisher = now if fisher is None else 0.9 * fisher + 0.1 * now
        w = w - _LR * _gradient(w, rows)
        learner.observe(rows)
    learner.end_task()
    assert fisher is not None
    star = w
    for rows in (_BATCH + 12, _BATCH + 18):  # the first has no pull yet: θ = θ*
        w = w - _LR * (_gradient(w, rows) + 3.0 * fisher * (w - star))
        learner.observe(rows)
    _same(_now(learning), w)


def test_elastic_weights_are_looked_at_now_and_then_and_held_where_the_last_task_ended() -> None:
    learning = _learning()
    learner = ElasticWeights(learning, ewc=3.0, decay=0.9, every=2)
    w, running, star, fisher = _FIRST, np.zeros_like(_FIRST), _FIRST, np.zeros_like(_FIRST)
    for task in range(3):
        learner.begin_task([task])
        for step in range(2):
            rows = _BATCH + 6 * (2 * task + step)
            if step == 0:  # every second one
                now = (_each(w, rows) ** 2).mean(0)
                running = now if task == 0 else 0.9 * running + 0.1 * now
            w = w - _LR * (_gradient(w, rows) + 3.0 * fisher * (w - star))
            learner.observe(rows)
        learner.end_task()
        star, fisher = w, running
        _same(_now(learning), w)


def test_incremental_classifier() -> None:
    learning = _learning(_KEPT)
    learner = IncrementalClassifier(learning)
    learner.begin_task([2, 0])
    learner.end_task()
    learner.begin_task([1])
    now = _FIRST * 0.7
    _set(learning.network, now)
    targets = np.eye(_CLASSES)[_Y[_BATCH]]
    targets[:, [2, 0]] = expit(_logits(_FIRST, _BATCH)[:, [2, 0]])
    p = expit(_logits(now, _BATCH))
    bce = -(targets * np.log(p) + (1 - targets) * np.log(1 - p))[:, [0, 1, 2]]
    assert float(learner.loss(_BATCH).detach()) == pytest.approx(bce.sum(1).mean(), abs=1e-12)


def test_nearest_class_mean() -> None:
    learning = _learning(_KEPT)
    unit = _X / np.linalg.norm(_X, axis=1, keepdims=True)
    classes = sorted(set(_Y[_KEPT].tolist()))
    means = [unit[_KEPT][_Y[_KEPT] == c].mean(0) for c in classes]
    means = [mean / np.linalg.norm(mean) for mean in means]
    wanted = [classes[int(np.argmin([np.sum((x - m) ** 2) for m in means]))] for x in unit[:20]]
    assert len(set(wanted)) > 1
    assert learning.by_nearest_mean(np.arange(20)).tolist() == wanted


def test_the_head_answers_seen_classes_alone() -> None:
    learning = _learning()
    learning.seen = [3, 1]
    wanted = np.array([1, 3])[_logits(_FIRST, np.arange(40))[:, [1, 3]].argmax(1)]
    assert learning.by_head(np.arange(40)).tolist() == wanted.tolist()


@pytest.mark.parametrize("which", ["gdumb", "joint"])
def test_training_anew_begins_at_the_first_weights(which: str) -> None:
    learning = _learning(memory_batch=40)
    learner = GDumb(learning, 2) if which == "gdumb" else Joint(learning, 40, 2)
    for rows in (_BATCH, _BATCH + 6):
        learner.observe(rows)
    _set(learning.network, _FIRST * 5)
    learner.end_task()
    w = _FIRST
    for _ in range(2):  # all twelve at once
        w = w - _LR * _gradient(w, np.arange(12))
    _same(_now(learning), w)


def test_supervised_contrastive_loss() -> None:
    x, y = _X[:7], [0, 0, 1, 1, 1, 2, 0]  # the sixth has no other of its class
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    of_anchors = []
    for i in range(7):
        others = [j for j in range(7) if j != i]
        total = sum(np.exp(unit[i] @ unit[j] / 0.5) for j in others)
        own = [np.log(np.exp(unit[i] @ unit[j] / 0.5) / total) for j in others if y[j] == y[i]]
        if own:
            of_anchors.append(-np.mean(own))
    assert len(of_anchors) == 6
    found = contrastive_loss(torch.from_numpy(x), torch.tensor(y), 0.5)
    assert found is not None
    assert float(found) == pytest.approx(np.mean(of_anchors), abs=1e-12)
    assert contrastive_loss(torch.from_numpy(x[:2]), torch.tensor([0, 1]), 0.5) is None
