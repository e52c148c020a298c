"""A-GEM's projection: by hand, by what it promises, and in whole steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rewarm.batches.loader import BatchLoader
from rewarm.model.loss import sum_of_token_losses
from rewarm.planning.retention import memory_order
from rewarm.recipe.retention import L2SpRecipe, RetentionRecipe
from rewarm.records.run_folder import RunFolder
from rewarm.retention.projection import turn_aside
from rewarm.training import step
from tests.support.retention_jobs import AGEM, retaining
from tests.support.tiny_plans import (
    SEQUENCE_LENGTH,
    VOCAB_SIZE,
    TinyModel,
    make_views,
    new_tiny_model,
    tensors_of,
    train_tiny,
)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_gradient_against_the_memory_by_hand() -> None:
    """g = (2 | 0), m = (−1 | 1) over two weights: g·m / m·m = −1, so g becomes (1 | 1)."""
    g, m = [tensor(2), tensor(0)], [tensor(-1), tensor(1)]
    cosine = turn_aside(g, m, shares=[1.0, 1.0])
    assert [part.item() for part in g] == pytest.approx([1, 1])
    assert cosine.item() == pytest.approx(-1 / math.sqrt(2))
    assert sum(float((a * b).sum()) for a, b in zip(g, m, strict=True)) == pytest.approx(0)


def test_a_gradient_along_the_memory_is_left_as_it_is() -> None:
    g, m = [tensor(2, 1)], [tensor(1, -1)]
    cosine = turn_aside(g, m, shares=[1.0])
    assert g[0].tolist() == [2, 1]
    assert cosine.item() == pytest.approx(1 / math.sqrt(10))


@pytest.mark.parametrize("m", [tensor(0, 0), tensor(1, 0)])
def test_nothing_to_turn_aside(m: Tensor) -> None:
    g = [tensor(0, 3)]
    assert turn_aside(g, [m], shares=[1.0]).item() == 0
    assert g[0].tolist() == [0, 3]


def test_copies_count_once() -> None:
    """Two ranks that both hold the first weight, and a half of the second each: the by-hand case
    again, as both see it when what either sums is added up."""
    sums: list[Tensor] = []

    def noting(of_rank: Tensor) -> Tensor:
        sums.append(of_rank)
        return of_rank

    parts = [
        ([tensor(2), tensor(0)], [tensor(-1), tensor(0)]),
        ([tensor(2), tensor(0)], [tensor(-1), tensor(1)]),
    ]
    for g, m in parts:
        turn_aside([t.clone() for t in g], m, shares=[0.5, 1.0], total=noting)
    whole = torch.stack(sums).sum(0)
    for g, m in parts:
        turn_aside(g, m, shares=[0.5, 1.0], total=lambda s: whole)
    assert [t.item() for t in parts[0][0]] == pytest.approx([1, 0])
    assert [t.item() for t in parts[1][0]] == pytest.approx([1, 1])


def test_what_is_not_finite_stays_so() -> None:
    """The step's own check must see it."""
    g = [tensor(math.nan, 1)]
    turn_aside(g, [tensor(1, 1)], shares=[1.0])
    assert not bool(g[0].isfinite().any())


@pytest.fixture(scope="module")
def base() -> dict[str, Tensor]:
    """Weights that know the old text: before that, both texts want the same of them."""
    model = new_tiny_model(dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    view = make_views()["old"]
    for round_ in range(300):
        rows = view.sequences(np.arange(37)[round_ % 3 :: 3], SEQUENCE_LENGTH)
        nats, count = sum_of_token_losses(model, *(torch.from_numpy(ids) for ids in rows))
        torch.autograd.backward(nats / count)
        optimizer.step()
        optimizer.zero_grad()
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def at(base: dict[str, Tensor]) -> TinyModel:
    model = new_tiny_model(dropout=0.0)
    model.load_state_dict(base)
    return model


def memory_loss(model: TinyModel, index: int) -> float:
    loader = BatchLoader(
        memory_order(retaining(AGEM).science),
        make_views(),
        sequence_length=SEQUENCE_LENGTH,
        vocab_size=VOCAB_SIZE,
    )
    batch = loader.batch(index)
    with torch.no_grad():
        nats, count = sum_of_token_losses(model.eval(), batch.input_ids, batch.labels)
    return float(nats / count)


def test_a_step_takes_the_projected_gradient_of_torchs_own_two(
    tmp_path: Path, base: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both gradients by autograd, outside of the step."""
    plan = retaining(AGEM, num_steps=20, checkpoint_every=20)
    model = at(base)
    clip = torch.nn.utils.clip_grad_norm_
    taken: list[dict[str, Tensor]] = []
    weights: list[dict[str, Tensor]] = []

    def noting(parameters: list[torch.nn.Parameter], limit: float) -> Tensor:
        named = dict(model.named_parameters()).items()
        taken.append({name: p.grad.clone() for name, p in named if p.grad is not None})
        weights.append({name: p.detach().clone() for name, p in named})
        return clip(parameters, limit)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", noting)
    train_tiny(tmp_path, plan, load_model=lambda: model)
    records = RunFolder(tmp_path).steps()
    against = [record.step for record in records if record.retention["agem"] < 0]
    along = [record.step for record in records if record.retention["agem"] > 0]
    assert against, "nothing was turned aside: the test would be blind"
    assert along, "all was turned aside: the test would be blind"

    other = at(base)
    loaders = [
        BatchLoader(order, make_views(), sequence_length=SEQUENCE_LENGTH, vocab_size=VOCAB_SIZE)
        for order in (plan.science.order(), memory_order(plan.science))
    ]
    for number in (along[0], against[0]):
        other.load_state_dict(weights[number], strict=False)
        flat = []
        for loader in loaders:
            batch = loader.batch(number)
            nats, count = sum_of_token_losses(other.train(), batch.input_ids, batch.labels)
            gradients = torch.autograd.grad(nats / count, list(other.parameters()))
            flat.append(torch.cat([g.flatten() for g in gradients]).double())
        g, m = flat
        cosine = torch.nn.functional.cosine_similarity(g, m, dim=0).item()
        assert records[number].retention["agem"] == pytest.approx(cosine, abs=1e-4)
        found = torch.cat([taken[number][name].flatten() for name, _ in other.named_parameters()])
        if number == against[0]:
            g = g - m * (g @ m) / (m @ m)
        assert torch.allclose(found.double(), g, rtol=1e-3, atol=1e-6)


def test_the_loss_on_old_text_rises_less(tmp_path: Path, base: dict[str, Tensor]) -> None:
    """The same run with and without: what the projection is for."""

    def loss_after(name: str, recipe: RetentionRecipe) -> float:
        model = at(base)
        plan = retaining(recipe, num_steps=60, checkpoint_every=60, peak_lr=3e-3)
        only_new = tuple(
            phase.model_copy(update={"weights": (0, sum(phase.weights))})
            for phase in plan.science.phases
        )
        science = plan.science.model_copy(update={"phases": only_new})
        plan = plan.model_copy(update={"science": science})
        train_tiny(tmp_path / name, plan, load_model=lambda: model)
        return sum(memory_loss(model, index) for index in range(5)) / 5

    assert loss_after("turned", AGEM) < loss_after("plain", RetentionRecipe()) - 0.05


def test_the_pull_to_the_base_is_turned_aside_too(
    tmp_path: Path, base: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a strong pull beside it, no step's gradient points against the memory's."""
    recipe = AGEM.model_copy(update={"l2sp": L2SpRecipe(weight=3.0)})
    model = at(base)
    products: list[float] = []
    memories: list[Tensor] = []
    turn = turn_aside
    clip = torch.nn.utils.clip_grad_norm_

    def flat(tensors: Iterable[Tensor]) -> Tensor:
        return torch.cat([tensor.double().flatten() for tensor in tensors])

    def turning(gradients: Sequence[Tensor], memory: Sequence[Tensor], **named: Any) -> Tensor:
        memories.append(flat(memory))
        return turn(gradients, memory, **named)

    def noting(parameters: list[torch.nn.Parameter], limit: float) -> Tensor:
        gradient = flat(p.grad for p in parameters if p.grad is not None)
        product = gradient @ memories[-1] / gradient.norm() / memories[-1].norm()
        products.append(product.item())
        return clip(parameters, limit)

    monkeypatch.setattr(step, "turn_aside", turning)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", noting)
    plan = retaining(recipe, num_steps=20, checkpoint_every=20)
    train_tiny(tmp_path, plan, load_model=lambda: model)
    turned = [r.step for r in RunFolder(tmp_path).steps() if r.retention["agem"] < 0]
    assert turned, "the test would be blind"
    assert len(products) == 20
    assert min(products) > -1e-5


def test_a_resumed_run_has_the_same_bits(tmp_path: Path) -> None:
    plan = retaining(AGEM)
    train_tiny(tmp_path / "whole", plan)
    for number in (1, 3, 6, 8):
        train_tiny(tmp_path / "parts", plan, until_step=number)
    assert tensors_of(tmp_path / "parts") == tensors_of(tmp_path / "whole")
