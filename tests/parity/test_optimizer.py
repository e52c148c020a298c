"""AdamW against torch's own loop and against the formulas, and its state to disk and back."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from rewarm.recipe.steps import OptimizerRecipe
from rewarm.training.optimizer import (
    build_optimizer,
    masked_step,
    moments,
    named_parameters,
    set_learning_rate,
    set_step_counts,
    step_counts,
    trainable_parameters,
)
from tests.support.tiny_plans import TinyModel, new_tiny_model

RECIPE = OptimizerRecipe(betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
NO = torch.tensor(False)


def rates(num_steps: int) -> Iterator[float]:
    for step in range(num_steps):
        yield 1e-2 * (1 + math.cos(math.pi * step / num_steps)) / 2


def give_gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.grad = (10.0 ** -(step % 4) * drawn).to(parameter.dtype)


def run(model: nn.Module, optimizer: Optimizer, steps: range) -> None:
    for step, lr in zip(steps, list(rates(40))[steps.start : steps.stop], strict=True):
        give_gradients(model, step)
        set_learning_rate(optimizer, lr)
        masked_step(optimizer, skip=NO)


def largest_difference(first: nn.Module, second: nn.Module) -> float:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return max(float((one - other).detach().abs().max()) for one, other in pairs)


def test_it_is_torchs_default_adamw() -> None:
    model, reference = new_tiny_model().double(), new_tiny_model().double()
    optimizer = build_optimizer(trainable_parameters(model), RECIPE)
    decayed = [p for p in reference.parameters() if p.ndim >= 2]
    plain = [p for p in reference.parameters() if p.ndim < 2]
    default = AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
        betas=RECIPE.betas,
        eps=RECIPE.eps,
        foreach=False,
        fused=False,
    )
    for step, lr in enumerate(rates(40)):
        give_gradients(reference, step)
        for group in default.param_groups:
            group["lr"] = lr
        default.step()
    run(model, optimizer, range(40))
    assert largest_difference(model, reference) < 1e-14


def test_it_is_the_formulas() -> None:
    """Loshchilov and Hutter 2019, algorithm 2, with the decay multiplied by the rate."""
    model = new_tiny_model().double()
    optimizer = build_optimizer(trainable_parameters(model), RECIPE)
    theta = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    first = {name: np.zeros_like(value) for name, value in theta.items()}
    second = {name: np.zeros_like(value) for name, value in theta.items()}
    for t, lr in enumerate(rates(40), start=1):
        give_gradients(model, t)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            g = parameter.grad.numpy()
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.95 * second[name] + 0.05 * g**2
            m, v = first[name] / (1 - 0.9**t), second[name] / (1 - 0.95**t)
            decay = 0.1 if parameter.ndim >= 2 else 0.0
            theta[name] = (1 - lr * decay) * theta[name] - lr * m / (np.sqrt(v) + 1e-8)
        set_learning_rate(optimizer, lr)
        masked_step(optimizer, skip=NO)
    for name, parameter in model.named_parameters():
        assert np.abs(parameter.detach().numpy() - theta[name]).max() < 1e-14


def test_matrices_decay_ties_count_once_and_frozen_ones_have_no_state() -> None:
    model = new_tiny_model()
    model.mixer.weight.requires_grad_(False)
    optimizer = build_optimizer(trainable_parameters(model), RECIPE)
    decay_of = {
        name: group["weight_decay"]
        for group in optimizer.param_groups
        for name in group["param_names"]
    }
    assert decay_of == {
        "embedding.weight": 0.1,
        "norm.weight": 0.0,
        "norm.bias": 0.0,
        "mixer.bias": 0.0,
    }
    assert moments(optimizer).keys() == {
        f"{moment}.{name}" for moment in ("exp_avg", "exp_avg_sq") for name in decay_of
    }
    assert step_counts(optimizer) == dict.fromkeys(decay_of, 0)


def test_a_model_without_norms_has_one_group() -> None:
    model = nn.Linear(3, 3, bias=False)
    assert [
        g["param_names"] for g in build_optimizer(trainable_parameters(model), RECIPE).param_groups
    ] == [["weight"]]


def test_a_masked_step_changes_no_bit() -> None:
    model = new_tiny_model()
    optimizer = build_optimizer(trainable_parameters(model), RECIPE)
    run(model, optimizer, range(3))
    before = snapshot(model, optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, math.nan)
    masked_step(optimizer, skip=torch.tensor(True))
    after = snapshot(model, optimizer)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert set(step_counts(optimizer).values()) == {3}
    run(model, optimizer, range(3, 4))
    assert set(step_counts(optimizer).values()) == {4}


def snapshot(model: TinyModel, optimizer: Optimizer) -> dict[str, Tensor]:
    tensors = {**dict(model.named_parameters()), **moments(optimizer)}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def test_state_taken_out_and_put_back_goes_on_to_the_same_bits() -> None:
    """In float32, where any other order of operations would show."""
    model = new_tiny_model()
    optimizer = build_optimizer(trainable_parameters(model), RECIPE)
    run(model, optimizer, range(11))
    saved, counts = snapshot(model, optimizer), step_counts(optimizer)
    run(model, optimizer, range(11, 40))

    resumed = new_tiny_model(seed=99)
    again = build_optimizer(trainable_parameters(resumed), RECIPE)
    with torch.no_grad():
        for name, tensor in {**dict(resumed.named_parameters()), **moments(again)}.items():
            tensor.copy_(saved[name])
    set_step_counts(again, counts)
    run(resumed, again, range(11, 40))

    expected = snapshot(model, optimizer)
    assert all(torch.equal(expected[n], t) for n, t in snapshot(resumed, again).items())
    assert [name for name, _ in named_parameters(again)] == list(counts)
