"""The algorithms of streams against those of Avalanche, on one linear model and the same examples.

What is random in either is taken away: batches are whole, candidates and memories are given. Where
both weigh parts of a loss differently by definition, the factor stands in the test.
"""

from __future__ import annotations

import copy
import importlib.util
import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from rewarm.stream.holding import (
    ElasticWeights,
    IncrementalClassifier,
    WithoutForgetting,
    contrastive_loss,
)
from rewarm.stream.inputs import TensorRows
from rewarm.stream.learning import Indices, Learner, Learning
from rewarm.stream.memory import ClassBalanced, Reservoir
from rewarm.stream.metrics import metrics_of
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
from tests.support.avalanche_peer import leave_out_wandb

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("avalanche") is None,
        reason="Avalanche is in a folder of its own: `make test-peers` has it",
    ),
    pytest.mark.filterwarnings("ignore"),
]

_WIDTH, _CLASSES, _LR = 6, 4, 0.2
_DRAWN = np.random.default_rng(5)
_X = torch.from_numpy(_DRAWN.normal(size=(40, _WIDTH))).float()
_Y = torch.from_numpy(np.arange(40) % _CLASSES)
_BATCH, _KEPT = np.arange(8), np.arange(20, 30)
_TASKS = ((0, 1), (2, 3))


@pytest.fixture(autouse=True, scope="module")
def _wandb() -> None:
    leave_out_wandb()


class _Same(nn.Module):
    def forward(self, pixel_values: Tensor) -> Tensor:
        return pixel_values


def _learning(*, kept: Indices = _KEPT, memory_batch: int = 10) -> Learning:
    torch.manual_seed(3)
    learning = Learning(
        network=Network(_Same(), _WIDTH, _CLASSES),
        inputs=TensorRows({"pixel_values": _X}),
        labels=_Y,
        memory=Reservoir(40),
        memory_batch=memory_batch,
        lr=_LR,
        seed=0,
    )
    learning.keep(kept)
    return learning


def _theirs(learning: Learning) -> nn.Linear:
    """Return a model of its own with the weights of now."""
    return copy.deepcopy(learning.network.head)


def _strategy(model: nn.Linear, loss: Tensor | None = None) -> Any:
    """Return as much of a strategy as a plugin asks for."""
    return SimpleNamespace(
        model=model,
        loss=loss,
        device=torch.device("cpu"),
        optimizer=torch.optim.SGD(model.parameters(), lr=_LR),
        _criterion=nn.CrossEntropyLoss(),
        clock=SimpleNamespace(train_exp_counter=1),
        mb_x=_X[_BATCH],
    )


def _loss(model: nn.Module, rows: Indices) -> Tensor:
    return F.cross_entropy(model(_X[rows]), _Y[rows])


def _descend(model: nn.Module, loss: Tensor) -> None:
    model.zero_grad()
    torch.autograd.backward(loss)
    torch.optim.SGD(model.parameters(), lr=_LR).step()


def _same(learning: Learning, model: nn.Linear) -> None:
    torch.testing.assert_close(learning.network.head.weight, model.weight, rtol=0, atol=1e-6)
    torch.testing.assert_close(learning.network.head.bias, model.bias, rtol=0, atol=1e-6)


def _begin_second_task(learner: Learner, learning: Learning) -> nn.Linear:
    """Tell of two tasks, move the weights, and return the model as it was in between."""
    learner.begin_task([0, 1])
    learner.end_task()
    before = _theirs(learning)
    learner.begin_task([2, 3])
    with torch.no_grad():
        learning.network.head.weight.mul_(0.5).add_(0.1)
    return before


def test_lwf() -> None:
    from avalanche.training.regularization import LearningWithoutForgetting

    learning = _learning()
    learner = WithoutForgetting(learning, temperature=2.0)
    before = _begin_second_task(learner, learning)
    theirs = LearningWithoutForgetting(temperature=2)
    out = learning.network.head(_X[_BATCH])
    distilled = theirs._distillation_loss(out, before(_X[_BATCH]), {0, 1})
    # Lee et al.: half each after one task, and T² before the divergence
    wanted = _loss(learning.network.head, _BATCH) / 2 + 4 * distilled / 2
    torch.testing.assert_close(learner.loss(_BATCH), wanted)


@pytest.mark.parametrize("against", [True, False])
def test_a_gem(against: bool) -> None:
    from avalanche.training.plugins import AGEMPlugin

    learning = _learning(kept=_BATCH[:0])
    g = torch.cat([p.flatten() for p in learning.gradient_of(learning.loss(_BATCH))])

    def points_against(row: int) -> bool:
        m = learning.gradient_of(learning.loss(np.array([row])))
        return bool(torch.cat([p.flatten() for p in m]) @ g < 0)

    kept = np.array([r for r in range(8, 40) if points_against(r) == against][:5])
    learning.keep(kept)
    strategy = _strategy(_theirs(learning))
    plugin = AGEMPlugin(10, 10)
    plugin.buffers = [None]
    plugin.sample_from_memory = lambda: (_X[kept], _Y[kept], torch.zeros(len(kept)))
    plugin.before_training_iteration(strategy)
    torch.autograd.backward(_loss(strategy.model, _BATCH))
    plugin.after_backward(strategy)
    strategy.optimizer.step()
    AGem(learning).observe(_BATCH)
    _same(learning, strategy.model)


def test_mir() -> None:
    from avalanche.training.plugins import MIRPlugin

    learning = _learning(memory_batch=3)
    model = _theirs(learning)
    strategy = _strategy(model, _loss(model, _BATCH))
    plugin = MIRPlugin(batch_size_mem=3)
    plugin.replay_loader = iter([(_X[_KEPT], _Y[_KEPT], torch.zeros(len(_KEPT)))])
    plugin.before_backward(strategy)
    _descend(model, strategy.loss)
    MaximallyInterfered(learning, 50).observe(_BATCH)
    _same(learning, model)


def test_gss_scores() -> None:
    from avalanche.training.plugins import GSS_greedyPlugin

    learning = _learning()
    plugin = GSS_greedyPlugin(mem_size=10, mem_strength=10, input_size=[_WIDTH])
    plugin.ext_mem_list_x[:] = _X[_KEPT]
    plugin.ext_mem_list_y[:] = _Y[_KEPT]
    plugin.ext_mem_list_current_index = len(_KEPT)
    strategy = _strategy(_theirs(learning))
    sizes = [p.numel() for p in strategy.model.parameters()]
    gradients = plugin.get_rand_mem_grads(strategy, sizes, 1)  # of all ten, one by one
    theirs = plugin.get_each_batch_sample_sim(strategy, sizes, gradients, _X[_BATCH], _Y[_BATCH])
    learner = DiverseGradients(learning, size=10, num_compared=10, kept=_KEPT.tolist())
    compared = learner.compared()
    ours = [learner.score(learner.direction(int(row)), compared) - 1 for row in _BATCH]
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


def test_icarl_loss() -> None:
    from avalanche.training.losses import ICaRLLossPlugin

    learning = _learning()
    learner = IncrementalClassifier(learning)
    before = _begin_second_task(learner, learning)
    plugin = ICaRLLossPlugin()
    plugin.old_model, plugin.old_classes = before, [0, 1]
    plugin.before_forward(_strategy(before))
    theirs = plugin(learning.network.head(_X[_BATCH]), _Y[_BATCH])
    # theirs is the mean over classes, ours the sum
    torch.testing.assert_close(learner.loss(_BATCH), theirs * _CLASSES)


def test_ewc() -> None:
    from avalanche.training.plugins import EWCPlugin

    learning = _learning()
    learner = ElasticWeights(learning, ewc=3.0, decay=0.9, every=1)
    learner.begin_task([0, 1])
    # theirs is λ ΣF(θ − θ*)², ours with λ/2
    plugin = EWCPlugin(ewc_lambda=1.5, mode="online", decay_factor=0.9)
    model = _theirs(learning)
    examples = TensorDataset(_X[_BATCH], _Y[_BATCH], torch.zeros(8))
    strategy = _strategy(model)
    importances = plugin.compute_importances(
        model, strategy._criterion, strategy.optimizer, examples, torch.device("cpu"), 1
    )
    fisher = learner.fisher_of(_BATCH)
    torch.testing.assert_close(fisher["head.weight"], importances["weight"].data)
    torch.testing.assert_close(fisher["head.bias"], importances["bias"].data)
    learner.observe(_BATCH)
    learner.end_task()
    _descend(model, _loss(model, _BATCH))
    plugin.importances[0] = importances
    plugin.saved_params[0] = {
        name: SimpleNamespace(expand=parameter.detach().clone().expand)
        for name, parameter in model.named_parameters()
    }
    for rows in (_BATCH + 8, _BATCH + 16):
        strategy.loss = _loss(model, rows)
        plugin.before_backward(strategy)
        _descend(model, strategy.loss)
        learner.observe(rows)
    _same(learning, model)


def test_supervised_contrastive_loss() -> None:
    from avalanche.training.losses import SCRLoss

    labels = torch.tensor([0, 0, 1, 2])
    views = F.normalize(torch.from_numpy(_DRAWN.normal(size=(4, 2, 5))).float(), dim=2)
    theirs = SCRLoss(temperature=0.07)(views, labels)
    both = torch.cat([views[:, 0], views[:, 1]])
    ours = contrastive_loss(both, labels.repeat(2), 0.07)
    assert ours is not None
    torch.testing.assert_close(ours, theirs)


def test_nearest_class_mean() -> None:
    from avalanche.models import NCMClassifier

    learning = _learning()
    unit = F.normalize(_X, dim=1)
    means = {
        int(label): F.normalize(unit[_KEPT][_Y[_KEPT] == label].mean(0), dim=0)
        for label in sorted(set(_Y[_KEPT].tolist()))
    }
    classifier = NCMClassifier(normalize=True)
    classifier.update_class_means_dict(means)
    theirs = classifier(_X).argmax(1)
    assert len(set(theirs.tolist())) > 1
    assert learning.by_nearest_mean(np.arange(40)).tolist() == theirs.tolist()


def _experiences() -> list[Indices]:
    return [np.flatnonzero(np.isin(_Y.numpy(), classes)) for classes in _TASKS]


def _benchmark() -> Any:
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import _make_taskaware_classification_dataset

    datasets = [
        _make_taskaware_classification_dataset(
            TensorDataset(_X[rows], _Y[rows]), targets=_Y[rows].tolist(), task_labels=0
        )
        for rows in _experiences()
    ]
    return benchmark_from_datasets(train=datasets)


def _trained(strategy: Any) -> nn.Linear:
    for experience in _benchmark().train_stream:
        strategy.train(experience, num_workers=0)
    model: nn.Linear = strategy.model
    return model


def _arguments(learning: Learning, num_epochs: int) -> dict[str, Any]:
    model = _theirs(learning)
    return {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=_LR),
        "criterion": nn.CrossEntropyLoss(),
        "train_mb_size": 40,
        "train_epochs": num_epochs,
        "evaluator": None,
    }


def _stream(learner: Learner, num_epochs: int) -> None:
    for classes, rows in zip(_TASKS, _experiences(), strict=True):
        learner.begin_task(classes)
        for _ in range(num_epochs):
            learner.observe(rows)
        learner.end_task()


def test_fine_tune_over_two_tasks() -> None:
    from avalanche.training.supervised import Naive

    learning = _learning()
    model = _trained(Naive(**_arguments(learning, 3)))
    _stream(FineTune(learning), 3)
    _same(learning, model)


def test_joint() -> None:
    from avalanche.training.supervised import FromScratchTraining

    # theirs is reset before each task, ours trains on all so far: alike after the first
    learning = _learning(kept=_BATCH[:0])
    strategy = FromScratchTraining(**_arguments(learning, 3), reset_optimizer=False)
    strategy.train(_benchmark().train_stream[0], num_workers=0)
    joint = Joint(learning, batch=40, num_epochs=3)
    joint.begin_task(_TASKS[0])
    joint.observe(_experiences()[0])
    joint.end_task()
    _same(learning, strategy.model)


def test_gdumb() -> None:
    from avalanche.training.supervised import GDumb as TheirGDumb

    learning = _learning(kept=_BATCH[:0], memory_batch=40)
    learning.memory = ClassBalanced(40)
    strategy = TheirGDumb(mem_size=40, **_arguments(learning, 3))
    strategy.optimizer = torch.optim.SGD(strategy.model.parameters(), lr=_LR)
    model = _trained(strategy)
    _stream(GDumb(learning, 3), 1)
    _same(learning, model)


def test_replay() -> None:
    from avalanche.training.plugins import ReplayPlugin

    # Theirs draws stream and memory into one batch, whose mean is half the sum of both means.
    learning = _learning(kept=_experiences()[0], memory_batch=20)
    model = _theirs(learning)
    storage = SimpleNamespace(max_size=40, buffer=list(range(20)))
    plugin = ReplayPlugin(mem_size=40, storage_policy=storage)
    loaded = _joined(plugin)
    model.zero_grad()
    batch_x, batch_y = loaded
    torch.autograd.backward(2 * F.cross_entropy(model(batch_x), batch_y))
    torch.optim.SGD(model.parameters(), lr=_LR).step()
    Replay(learning).observe(_experiences()[1])
    _same(learning, model)


def _joined(plugin: Any) -> tuple[Tensor, Tensor]:
    """Return the one batch that their loader makes of the second task and a memory of the first."""
    from avalanche.benchmarks.utils.data_loader import ReplayDataLoader

    first, second = (experience.dataset for experience in _benchmark().train_stream)
    loader = ReplayDataLoader(second, first, batch_size=20, batch_size_mem=20)
    batches = list(itertools.islice(loader, 2))
    assert len(batches) == 1
    assert plugin.storage_policy.max_size == 40
    return batches[0][0], batches[0][1]


@pytest.mark.parametrize("size", [6, 10, 11])
def test_a_balanced_memory_has_as_many_of_each_class(size: int) -> None:
    from avalanche.training.storage_policy import ClassBalancedBuffer

    theirs = ClassBalancedBuffer(max_size=size, adaptive_size=True)
    for experience in _benchmark().train_stream:
        theirs.post_adapt(None, experience)
    counts = sorted(len(group.buffer) for group in theirs.buffer_groups.values())
    ours, generator = ClassBalanced(size), np.random.default_rng(0)
    for rows in _experiences():
        for row in rows.tolist():
            ours.offer(row, int(_Y[row]), generator)
    assert sorted(np.bincount(_Y[ours.kept()]).tolist()) == counts


def test_a_reservoir_keeps_as_their_one_does() -> None:
    from avalanche.training.storage_policy import ReservoirSamplingBuffer

    def of_second_task(kept: Sequence[int]) -> int:
        return sum(int(label) in _TASKS[1] for label in kept)

    shares: list[tuple[int, int]] = []
    torch.manual_seed(0)
    for seed in range(300):
        theirs = ReservoirSamplingBuffer(10)
        for experience in _benchmark().train_stream:
            theirs.post_adapt(None, experience)
        ours, generator = Reservoir(10), np.random.default_rng(seed)
        for row in np.concatenate(_experiences()).tolist():
            ours.offer(row, 0, generator)
        own = _Y[ours.kept()].tolist()
        shares.append((of_second_task(own), of_second_task(list(theirs.buffer.targets))))
    ours_mean, theirs_mean = np.mean(shares, axis=0)
    # 10 of 40, of which 20 are of the second: variance 10 · ¼ · 30/39, its mean's deviation 0.08
    assert abs(ours_mean - theirs_mean) < 5 * 0.08 * 2**0.5


def test_backward_transfer() -> None:
    from avalanche.evaluation.metrics.forgetting_bwt import BWT

    matrix = [[0.9], [0.6, 0.8], [0.7, 0.4, 1.0]]
    theirs = BWT()
    for task in range(3):
        theirs.update(task, matrix[task][task], initial=True)
        theirs.update(task, matrix[2][task])
    found = theirs.result()
    assert metrics_of(matrix, []).bwt == pytest.approx((found[0] + found[1]) / 2)
