"""Whole steps of the algorithms of a stream, and what they keep of it.

A step is held against one down central differences of the loss, written in numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import expit, log_softmax
from torch import Tensor, nn

from rewarm.stages.stream_learners import build_learner, memory_of
from rewarm.stream.course import second_stage
from rewarm.stream.experiment import StreamExperiment
from rewarm.stream.holding import (
    Contrastive,
    ElasticWeights,
    IncrementalClassifier,
    WithoutForgetting,
)
from rewarm.stream.inputs import TensorRows
from rewarm.stream.learning import Learning
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
from rewarm.stream.scenario import Scenario
from rewarm.stream.sections import Algorithm, LearnerRecipe

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

_WIDTH, _CLASSES, _LR = 5, 4, 0.3
_DRAWN = np.random.default_rng(4)
_X = _DRAWN.normal(size=(40, _WIDTH))
_Y = _DRAWN.integers(0, _CLASSES, 40)
_FIRST = _DRAWN.normal(size=(_CLASSES, _WIDTH + 1))
_BATCH, _KEPT = np.arange(6), np.arange(20, 30)
_BY_NAME: dict[str, type] = {
    "fine-tune": FineTune,
    "joint": Joint,
    "er": Replay,
    "mir": MaximallyInterfered,
    "gss": DiverseGradients,
    "a-gem": AGem,
    "lwf": WithoutForgetting,
    "ewc++": ElasticWeights,
    "icarl": IncrementalClassifier,
    "gdumb": GDumb,
    "scr": Contrastive,
}


class _Turned(nn.Module):
    """A linear backbone that reads what it is given by any name."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Linear(_WIDTH, _WIDTH, bias=False)
        nn.init.eye_(self.turn.weight)

    def forward(self, **inputs: Tensor) -> Tensor:
        (given,) = inputs.values()
        found: Tensor = self.turn(given)
        return found


def _experiment(memory_size: int) -> StreamExperiment:
    return StreamExperiment.model_validate(
        {
            "name": "steps",
            "source": {"path": "x", "kind": "image"},
            "memory": {"size": memory_size},
            "backbones": {"one": {"small": "cnn"}},
        }
    )


def _learning(
    kept: Indices = _KEPT[:0],
    *,
    memory_batch: int = 10,
    memory_size: int = 30,
    name: str = "given",
    dtype: torch.dtype = torch.float64,
) -> Learning:
    network = Network(_Turned(), _WIDTH, _CLASSES).to(dtype)
    _set(network.head, _FIRST)
    learning = Learning(
        network=network,
        inputs=TensorRows({name: torch.from_numpy(_X).to(dtype)}),
        labels=torch.from_numpy(_Y),
        memory=memory_of(_experiment(memory_size).memory),
        memory_batch=memory_batch,
        lr=_LR,
        seed=0,
    )
    learning.keep(kept)
    return learning


def _set(head: nn.Linear, weights: Floats) -> None:
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weights[:, :-1].copy()))
        head.bias.copy_(torch.from_numpy(weights[:, -1].copy()))


def _head(learning: Learning) -> Floats:
    head = learning.network.head
    return np.column_stack([head.weight.detach().numpy(), head.bias.detach().numpy()])


def _array(parameter: Tensor) -> Floats:
    return parameter.detach().numpy().copy()


def _gradient(loss: Callable[[Floats], float], at: Floats) -> Floats:
    """Return central differences of a loss."""
    found = np.zeros_like(at)
    for place in np.ndindex(*at.shape):
        moved = np.zeros_like(at)
        moved[place] = 1e-5
        found[place] = (loss(at + moved) - loss(at - moved)) / 2e-5
    return found


def _same(found: Floats, wanted: Floats) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-8)


def _logits(head: Floats, rows: Indices) -> Floats:
    found: Floats = _X[rows] @ head[:, :-1].T + head[:, -1]
    return found


def _losses(head: Floats, rows: Indices) -> Floats:
    """Return the cross-entropy of each example."""
    found: Floats = -log_softmax(_logits(head, rows), axis=1)[np.arange(len(rows)), _Y[rows]]
    return found


def _mean(rows: Indices) -> Callable[[Floats], float]:
    return lambda head: float(_losses(head, rows).mean())


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
def test_what_was_shown_is_offered_to_the_memory(algorithm: Algorithm) -> None:
    learning = _learning(dtype=torch.float32)
    recipe = LearnerRecipe(algorithm=algorithm, memory_epochs=1)
    built = build_learner(recipe, _experiment(30), learning, seed=0)
    assert type(built.learner) is _BY_NAME[algorithm]
    built.learner.begin_task(range(_CLASSES))
    assert learning.seen == list(range(_CLASSES))
    built.learner.observe(_BATCH)
    assert sorted(built.kept().tolist()) == _BATCH.tolist()
    assert sorted(learning.memory.kept().tolist()) == _BATCH.tolist()


def test_gdumb_balances_classes_whatever_memory_the_experiment_has() -> None:
    learning = _learning(memory_size=6)
    built = build_learner(LearnerRecipe(algorithm="gdumb"), _experiment(6), learning, seed=0)
    built.learner.observe(np.flatnonzero(_Y == 0)[:6])
    built.learner.observe(np.flatnonzero(_Y == 1)[:3])
    assert np.bincount(_Y[built.kept()]).tolist() == [3, 3]


def _streamed(recipe: LearnerRecipe) -> list[float]:
    """Return all weights after two tasks of six steps; the memory is full after the first four."""
    learning = _learning(memory_batch=3, memory_size=12, dtype=torch.float32)
    built = build_learner(recipe, _experiment(12), learning, seed=0)
    for task in (0, 1):
        built.learner.begin_task([2 * task, 2 * task + 1])
        own = np.flatnonzero(task == _Y // 2)
        for step in range(6):
            built.learner.observe(own[3 * step : 3 * step + 3])
        built.learner.end_task()
    return [float(value) for p in learning.parameters() for value in p.detach().flatten()]


@pytest.mark.parametrize(
    ("algorithm", "setting", "default", "other"),
    [
        ("mir", "candidates", 50, 3),
        ("gss", "compared", 10, 1),
        ("lwf", "temperature", 2.0, 1.0),
        ("scr", "temperature", 0.07, 0.7),
        ("ewc++", "ewc", 1.0, 5.0),
        ("ewc++", "fisher_decay", 0.9, 0.5),
        ("ewc++", "fisher_every", 5, 1),
        ("gdumb", "memory_epochs", 30, 2),
    ],
)
def test_settings_reach_their_learner(
    algorithm: Algorithm, setting: str, default: float, other: float
) -> None:
    plain, stated, changed = (
        _streamed(LearnerRecipe.model_validate({"algorithm": algorithm, **given}))
        for given in ({}, {setting: default}, {setting: other})
    )
    assert plain == stated
    assert plain != changed


def test_joint_training_takes_the_passes_of_the_scenario() -> None:
    experiment = _experiment(30)
    scenario = experiment.scenario.model_copy(update={"mode": "offline", "epochs": 2, "batch": 40})
    experiment = experiment.model_copy(update={"scenario": scenario})
    learning = _learning()
    built = build_learner(LearnerRecipe(algorithm="joint"), experiment, learning, seed=0)
    built.learner.observe(_BATCH)
    learning.network.backbone.requires_grad_(requires_grad=False)
    built.learner.end_task()
    head = _FIRST
    for _ in range(2):
        head = head - _LR * _gradient(_mean(_BATCH), head)
    _same(_head(learning), head)


def test_a_second_stage_takes_its_passes_over_the_memory() -> None:
    learning = _learning(_KEPT)
    learning.seen = list(range(_CLASSES))
    learning.network.backbone.requires_grad_(requires_grad=False)
    is_test = np.zeros(40, dtype=np.bool_)
    is_test[30:] = True
    scenario = Scenario(_Y, is_test, ((0, 1), (2, 3)), 0, 1, batch=10)
    found = second_stage(learning, scenario, _KEPT, 3, moment=7)
    head = _FIRST
    for _ in range(3):
        head = head - _LR * _gradient(_mean(_KEPT), head)
    _same(_head(learning), head)
    right = _logits(head, np.arange(40)).argmax(1) == _Y
    assert found == [right[scenario.test_of(task)].mean() for task in (0, 1)]


def test_a_second_stage_of_gss_is_over_what_gss_keeps() -> None:
    learning = _learning(memory_size=3)
    built = build_learner(LearnerRecipe(algorithm="gss"), _experiment(3), learning, seed=0)
    for start in range(0, 30, 6):
        built.learner.observe(np.arange(start, start + 6))
    learner: Any = built.learner
    assert built.kept().tolist() == learner.kept
    assert sorted(learner.kept) != sorted(learning.memory.kept().tolist())


def test_interference_is_of_the_step_that_comes_and_not_of_its_slope() -> None:
    def losses(head: Floats, turn: Floats, rows: Indices) -> Floats:
        z = _X[rows] @ turn.T @ head[:, :-1].T + head[:, -1]
        found: Floats = -log_softmax(z, axis=1)[np.arange(len(rows)), _Y[rows]]
        return found

    same = np.eye(_WIDTH)
    of_head = _gradient(lambda head: float(losses(head, same, _BATCH).mean()), _FIRST)
    of_turn = _gradient(lambda turn: float(losses(_FIRST, turn, _BATCH).mean()), same)

    def worst(lr: float) -> set[int]:
        rise = losses(_FIRST - lr * of_head, same - lr * of_turn, _KEPT) - _losses(_FIRST, _KEPT)
        return set(_KEPT[np.argsort(-rise)[:2]].tolist())

    assert worst(_LR) != worst(1e-6)
    learner = MaximallyInterfered(_learning(_KEPT, memory_batch=2), 50)
    assert set(learner.interfered(_BATCH, _KEPT).tolist()) == worst(_LR)


def test_a_step_of_gss_rehearses_what_it_keeps() -> None:
    learning = _learning()
    learner = DiverseGradients(learning, size=30, num_compared=10, kept=_KEPT.tolist())
    learner.scores[:] = [1.0] * len(_KEPT)
    learner.observe(_BATCH)
    both = _gradient(lambda head: _mean(_BATCH)(head) + _mean(_KEPT)(head), _FIRST)
    _same(_head(learning), _FIRST - _LR * both)
    assert learner.kept == [*_KEPT.tolist(), *_BATCH.tolist()]


def test_a_step_of_icarl() -> None:
    learning = _learning(_KEPT)
    learner = IncrementalClassifier(learning)
    learner.begin_task([2])
    learner.end_task()
    learner.begin_task([0])
    second = _FIRST * 0.5
    _set(learning.network.head, second)
    learner.end_task()  # the teacher has these weights, and no longer the first
    learner.begin_task([1])
    now = _FIRST * 0.7
    _set(learning.network.head, now)

    def loss(rows: Indices, head: Floats) -> float:
        targets = np.eye(_CLASSES)[_Y[rows]]
        targets[:, [2, 0]] = expit(_logits(second, rows)[:, [2, 0]])
        z = _logits(head, rows)
        bce = np.logaddexp(0, z) - targets * z
        return float(bce[:, [0, 1, 2]].sum(1).mean())

    learner.observe(_BATCH)
    both = _gradient(lambda head: loss(_BATCH, head) + loss(_KEPT, head), now)
    _same(_head(learning), now - _LR * both)


def _contrast(x: Floats, labels: Indices, temperature: float) -> float:
    """Return Khosla's loss of features, anchor by anchor."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    scores = unit @ unit.T / temperature
    of_anchors = []
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
        shares = dict(zip(others, log_softmax(scores[i, others]), strict=True))
        own = [shares[j] for j in others if labels[j] == labels[i]]
        if own:
            of_anchors.append(-np.mean(own))
    return float(np.mean(of_anchors))


@pytest.mark.parametrize("name", ["pixel_values", "input_ids"])
def test_a_step_of_scr(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of images there are two views, the second of which is moved; here it is turned round."""
    monkeypatch.setattr(
        Contrastive, "_moved", lambda self, given: {k: v.flip(1) for k, v in given.items()}
    )
    learning = _learning(_KEPT, name=name)
    learner = Contrastive(learning, 0.5, seed=0)
    projection: Any = learner._projection.double()
    backbone: Any = learning.network.backbone
    first, second = projection[0], projection[2]
    parameters = [backbone.turn.weight, first.weight, first.bias, second.bias]
    before = [_array(p) for p in parameters]
    out = _array(second.weight)
    rows = np.concatenate([_BATCH, _KEPT])
    views = [_X[rows], _X[rows][:, ::-1]] if name == "pixel_values" else [_X[rows]]
    x, y = np.concatenate(views), np.tile(_Y[rows], len(views))

    def loss(values: Sequence[Floats]) -> float:
        turn, weight, bias, last = values
        hidden = np.maximum(x @ turn.T @ weight.T + bias, 0)
        return _contrast(hidden @ out.T + last, y, 0.5)

    learner.observe(_BATCH)
    for number, parameter in enumerate(parameters):

        def of_one(value: Floats, number: int = number) -> float:
            return loss([*before[:number], value, *before[number + 1 :]])

        wanted = before[number] - _LR * _gradient(of_one, before[number])
        _same(_array(parameter), wanted)
    _same(_head(learning), _FIRST)  # its head answers nothing


def test_images_are_moved_by_up_to_two_pixels_each_way() -> None:
    images = np.random.default_rng(1).normal(size=(400, 3, 6, 6))
    learner = Contrastive(_learning(), 0.07, seed=0)
    moved = learner._moved({"pixel_values": torch.from_numpy(images)})["pixel_values"].numpy()
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
    places = [
        [
            (y, x)
            for y in range(5)
            for x in range(5)
            if np.array_equal(own[:, y : y + 6, x : x + 6], found)
        ]
        for own, found in zip(padded, moved, strict=True)
    ]
    assert all(len(found) == 1 for found in places)
    # 400 of 25 places, each 16 times in the mean: that one never comes has a chance of 2e-6.
    assert len({found[0] for found in places}) == 25


@pytest.mark.parametrize("algorithm", ["icarl", "scr"])
def test_icarl_and_scr_answer_by_the_nearest_mean(algorithm: Algorithm) -> None:
    learning = _learning(_KEPT, dtype=torch.float32)
    built = build_learner(LearnerRecipe(algorithm=algorithm), _experiment(30), learning, seed=0)
    built.learner.begin_task(range(_CLASSES))
    rows = np.arange(40)
    unit = _X / np.linalg.norm(_X, axis=1, keepdims=True)
    classes = sorted(set(_Y[_KEPT].tolist()))
    means = np.stack([unit[_KEPT][_Y[_KEPT] == label].mean(0) for label in classes])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    wanted = np.array(classes)[(unit @ means.T).argmax(1)]
    assert built.learner.predict(rows).tolist() == wanted.tolist()
    assert learning.by_head(rows).tolist() != wanted.tolist()
