"""Muon against torch's own, against singular values worked out apart, and over ranks and stops."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import AdamW, Muon

from rewarm.recipe.steps import OptimizerRecipe
from rewarm.training.muon import MuonWithAdamW, orthogonalised
from rewarm.training.optimizer import (
    build_optimizer,
    is_eight_bit,
    masked_step,
    moments,
    named_parameters,
    set_learning_rate,
    set_step_counts,
    step_counts,
    trainable_parameters,
)
from tests.parity.test_optimizer import give_gradients, largest_difference, rates
from tests.support.rank_jobs import MUON, losses_of, train_llama
from tests.support.tiny_models import family_model
from tests.support.tiny_plans import tensors_of

RECIPE = OptimizerRecipe(kind="muon", weight_decay=0.1)
NO = torch.tensor(False)
Matrix = NDArray[np.float64]


def is_of_block(name: str, parameter: nn.Parameter) -> bool:
    """Tell by words of these families alone what is a matrix within a block."""
    return parameter.ndim == 2 and (".layers." in name or ".h." in name)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_it_is_torchs_muon_beside_its_adamw(family: str) -> None:
    """To the bit in bf16, the only type that torch's computes in; tall, wide, square matrices."""
    model, reference = family_model(family), family_model(family)
    optimizer = build_optimizer(trainable_parameters(model), RECIPE)
    named = list(reference.named_parameters())
    matrices = [p for name, p in named if is_of_block(name, p)]
    others = [p for name, p in named if not is_of_block(name, p)]
    assert len({tuple(p.shape) for p in matrices}) >= 3
    assert any(p.ndim == 2 for p in others), "embeddings are not hidden matrices"
    muon = Muon(matrices, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    adamw = AdamW(
        [
            {"params": [p for p in others if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
        ],
        betas=RECIPE.betas,
        eps=RECIPE.eps,
        fused=True,
    )
    for step, lr in zip(range(12), rates(40), strict=False):
        for one in (model, reference):
            give_gradients(one, step)
        for group in (*muon.param_groups, *adamw.param_groups):
            group["lr"] = lr
        muon.step()  # type: ignore[no-untyped-call]
        adamw.step()
        set_learning_rate(optimizer, lr)
        masked_step(optimizer, skip=NO, product_dtype=torch.bfloat16)
    assert largest_difference(model, reference) == 0


def quintic(value: float) -> float:
    """Return what five iterations make of a singular value, written out for one number."""
    for _ in range(5):
        value = 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5
    return value


def test_singular_values_come_near_one_and_vectors_stay() -> None:
    """diag(3, 4) has norm 5, so singular values 0.6 and 0.8 after it is divided by that; what five
    iterations make of these was computed in exact fractions.
    """
    assert [quintic(0.6), quintic(0.8)] == pytest.approx([0.722876, 1.119204], abs=1e-6)
    left, right = (
        np.linalg.qr(np.random.default_rng(seed).normal(size=(size, 2)))[0]
        for seed, size in ((1, 5), (2, 3))
    )
    matrix = left @ np.diag([3.0, 4.0]) @ right.T
    for given, expected in (
        (matrix, left @ np.diag([quintic(0.6), quintic(0.8)]) @ right.T),
        (matrix.T, right @ np.diag([quintic(0.6), quintic(0.8)]) @ left.T),
    ):
        found = orthogonalised(torch.from_numpy(given), torch.float64).numpy()
        assert np.abs(found - expected).max() < 1e-13


def test_it_points_where_the_nearest_orthogonal_matrix_does() -> None:
    """U Vᵀ of the singular value decomposition; of what a Gaussian matrix has, all directions."""
    matrix = np.random.default_rng(3).normal(size=(40, 24))
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    found = orthogonalised(torch.from_numpy(matrix), torch.float64).numpy()
    values = np.linalg.svd(found, compute_uv=False)
    assert 0.6 < values.min() < values.max() < 1.2
    nearest = left @ right
    cosine = float((found * nearest).sum() / np.linalg.norm(found) / np.linalg.norm(nearest))
    raw = float((matrix * nearest).sum() / np.linalg.norm(matrix) / np.linalg.norm(nearest))
    assert cosine > 0.97 > raw


class OneMatrix(nn.Module):
    """A matrix by a name that stands for a block's."""

    def __init__(self, start: Matrix) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Module()])
        self.layers[0].weight = nn.Parameter(torch.from_numpy(start.copy()))


def by_singular_values(matrix: Matrix) -> Matrix:
    """Return the iterated matrix by its decomposition instead of by products."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    norm = math.sqrt(float((values**2).sum()))
    return np.asarray(left @ np.diag([quintic(value / norm) for value in values]) @ right)


def test_it_is_the_formulas_with_a_decomposition_in_place_of_products() -> None:
    """Liu et al. 2025, equations 1 and 4, momentum as a moving average with Nesterov's step."""
    random = np.random.default_rng(5)
    theta = random.normal(size=(6, 10))
    model = OneMatrix(theta)
    optimizer = build_optimizer(trainable_parameters(model), RECIPE)
    momentum = np.zeros_like(theta)
    (weight,) = model.parameters()
    for step, lr in zip(range(15), rates(15), strict=True):
        gradient = random.normal(size=theta.shape) * 10.0 ** -(step % 4)
        momentum = 0.95 * momentum + 0.05 * gradient
        direction = by_singular_values(0.05 * gradient + 0.95 * momentum)
        theta = (1 - lr * 0.1) * theta - lr * 0.2 * math.sqrt(10) * direction
        weight.grad = torch.from_numpy(gradient)
        set_learning_rate(optimizer, lr)
        masked_step(optimizer, skip=NO)
        assert np.abs(weight.detach().numpy() - theta).max() < 1e-9
    assert step_counts(optimizer) == {"layers.0.weight": 15}


def test_updates_are_as_large_as_adamws() -> None:
    """Root mean squares of a first update, without decay: 0.2 to 20 %, whatever the shape."""
    for shape in ((64, 64), (256, 32), (32, 128)):
        model = OneMatrix(np.zeros(shape))
        optimizer = build_optimizer(trainable_parameters(model), RECIPE)
        (weight,) = model.parameters()
        weight.grad = torch.from_numpy(np.random.default_rng(7).normal(size=shape))
        set_learning_rate(optimizer, 1.0)
        masked_step(optimizer, skip=NO)
        assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.2, rel=0.2)


def test_blocks_matrices_have_one_moment_and_the_rest_adamws_two() -> None:
    model = family_model("gpt_neox")
    optimizer = build_optimizer(trainable_parameters(model), RECIPE)
    assert isinstance(optimizer, MuonWithAdamW)
    assert not is_eight_bit(optimizer)
    found = moments(optimizer)
    kinds: dict[str, set[str]] = {}
    for key in found:
        kind, _, name = key.partition(".")
        kinds.setdefault(name, set()).add(kind)
    for name, parameter in model.named_parameters():
        wanted = {"momentum_buffer"} if is_of_block(name, parameter) else {"exp_avg", "exp_avg_sq"}
        assert kinds.pop(name) == wanted, name
    assert not kinds
    assert {name for name, _ in named_parameters(optimizer)} == {
        name for name, _ in model.named_parameters()
    }


def test_where_no_matrix_of_a_block_trains_it_is_adamw() -> None:
    model = family_model("llama")
    chosen = [(n, p) for n, p in trainable_parameters(model) if not is_of_block(n, p)]
    assert isinstance(build_optimizer(chosen, RECIPE), AdamW)
    only = [(n, p) for n, p in trainable_parameters(model) if is_of_block(n, p)]
    optimizer = build_optimizer(only, RECIPE)
    give_gradients(model, 0)
    set_learning_rate(optimizer, 1e-2)
    masked_step(optimizer, skip=NO)
    assert set(step_counts(optimizer).values()) == {1}


def test_rates_by_layer_reach_both_kinds_of_groups() -> None:
    model = family_model("llama")
    optimizer = build_optimizer(
        trainable_parameters(model),
        RECIPE,
        layer_of=lambda name: int(name.split(".")[2]) if ".layers." in name else None,
    )
    set_learning_rate(optimizer, 1e-2, scale=lambda layer: 0.0 if layer == 0 else 1.0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    give_gradients(model, 0)
    masked_step(optimizer, skip=NO)
    for name, parameter in model.named_parameters():
        assert torch.equal(before[name], parameter) == (".layers.0." in name), name


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {**dict(model.named_parameters()), **moments(optimizer)}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def test_a_masked_step_changes_no_bit() -> None:
    model = family_model("llama")
    optimizer = build_optimizer(trainable_parameters(model), RECIPE)
    for step in range(3):
        give_gradients(model, step)
        set_learning_rate(optimizer, 1e-2)
        masked_step(optimizer, skip=NO)
    before = snapshot(model, optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, math.nan)
    masked_step(optimizer, skip=torch.tensor(True))
    after = snapshot(model, optimizer)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert set(step_counts(optimizer).values()) == {3}


def test_state_taken_out_and_put_back_goes_on_to_the_same_bits() -> None:
    models = [family_model("llama"), family_model("llama", seed=9)]
    first, second = (build_optimizer(trainable_parameters(m), RECIPE) for m in models)

    def run(which: int, steps: range) -> None:
        for step in steps:
            give_gradients(models[which], step)
            set_learning_rate((first, second)[which], 1e-2)
            masked_step((first, second)[which], skip=NO)

    run(0, range(5))
    saved, counts = snapshot(models[0], first), step_counts(first)
    run(0, range(5, 9))
    with torch.no_grad():
        for name, tensor in {**dict(models[1].named_parameters()), **moments(second)}.items():
            tensor.copy_(saved[name])
    set_step_counts(second, counts)
    run(1, range(5, 9))
    expected = snapshot(models[0], first)
    assert all(torch.equal(expected[n], t) for n, t in snapshot(models[1], second).items())
    assert step_counts(second) == step_counts(first)


def test_a_run_that_is_stopped_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    train_llama(tmp_path / "whole", plan=MUON)
    for until_step in (3, 7, None):
        train_llama(tmp_path / "parts", plan=MUON, until_step=until_step)
    found, expected = (dict(tensors_of(tmp_path / name)) for name in ("parts", "whole"))
    assert found == expected
    assert losses_of(tmp_path / "parts") == losses_of(tmp_path / "whole")
