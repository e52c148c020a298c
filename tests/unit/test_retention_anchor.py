"""L2-SP and EWC: by hand, by finite differences, by torch.func; their Fisher is a verified file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from rewarm.artifacts import read_json
from rewarm.batches.loader import Batch, BatchLoader
from rewarm.distributed.fsdp import Root
from rewarm.errors import PlanError
from rewarm.model.loss import sum_of_token_losses
from rewarm.order.position import OrderSpec
from rewarm.planning.plan import Plan
from rewarm.planning.retention import fisher_order
from rewarm.records.run_folder import RunFolder
from rewarm.retention.anchor import Anchor
from rewarm.retention.fisher import fisher_diagonal
from rewarm.training import retained
from rewarm.training.optimizer import build_optimizer, trainable_parameters
from rewarm.training.state import TrainState
from rewarm.training.step import Stepper
from tests.support.retention_jobs import EWC, L2SP, retaining
from tests.support.tiny_plans import (
    SEQUENCE_LENGTH,
    VOCAB_SIZE,
    TinyModel,
    make_placement,
    make_views,
    new_tiny_model,
    tensors_of,
    train_tiny,
)

BOTH = L2SP.model_copy(update={"ewc": EWC.ewc})


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def sequences(order: OrderSpec, number: int) -> list[Batch]:
    loader = BatchLoader(
        order, make_views(), sequence_length=SEQUENCE_LENGTH, vocab_size=VOCAB_SIZE
    )
    return [loader.batch(index) for index in range(number)]


def test_pulls_by_hand() -> None:
    """θ* = (1, 2), θ = (4, 0), F = (0.5, 3): distances 3 and −2."""
    weight = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    anchor = Anchor.at(
        [("w", weight)],
        l2sp=0.1,
        ewc=10.0,
        fisher={"w": torch.tensor([0.5, 3.0], dtype=torch.float64)},
    )
    with torch.no_grad():
        weight.copy_(torch.tensor([4.0, 0.0]))
    weight.grad = torch.tensor([1.0, 1.0], dtype=torch.float64)
    l2sp, ewc = anchor.pull([("w", weight)], {"w": 1.0}).tolist()
    assert l2sp == pytest.approx(0.65)  # 0.05 · (9 + 4)
    assert ewc == pytest.approx(82.5)  # 5 · (4.5 + 12)
    assert weight.grad.tolist() == pytest.approx([1 + 0.3 + 15, 1 - 0.2 - 60])


def test_a_weight_that_does_not_train_is_not_pulled() -> None:
    weight = nn.Parameter(torch.ones(2))
    anchor = Anchor.at([("w", weight)], l2sp=1.0, ewc=0.0, fisher={})
    with torch.no_grad():
        weight.add_(1)
    assert anchor.pull([("w", weight)], {"w": 1.0}).tolist() == [0.0, 0.0]
    assert weight.grad is None


def moved_state(plan: Plan) -> TrainState:
    """Return a state away from its base, in float64, that is pulled both ways."""
    model = new_tiny_model(dropout=0.0).double().train()
    state = TrainState(
        Root(model), build_optimizer(trainable_parameters(model), plan.science.optimizer)
    )
    generator = torch.Generator().manual_seed(3)

    def noise(parameter: Tensor) -> Tensor:
        return torch.randn(parameter.shape, generator=generator, dtype=torch.float64)

    named = list(model.named_parameters())
    fisher = {name: noise(parameter).square() for name, parameter in named}
    state.anchor = Anchor.at(named, l2sp=0.3, ewc=2.0, fisher=fisher)
    with torch.no_grad():
        for _, parameter in named:
            parameter.add_(noise(parameter), alpha=0.1)
    return state


def test_the_gradient_of_a_step_is_that_of_loss_and_penalties(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Central differences of what a step records, along random directions through all weights."""
    plan = retaining(BOTH)
    batch = BatchLoader(
        plan.science.order(),
        make_views(),
        sequence_length=SEQUENCE_LENGTH,
        vocab_size=VOCAB_SIZE,
    ).batch(0)
    seen: dict[str, Tensor] = {}
    clip = nn.utils.clip_grad_norm_

    def noting(parameters: list[nn.Parameter], limit: float) -> Tensor:
        named = dict(state.model.named_parameters()).items()
        seen.update({name: p.grad.clone() for name, p in named if p.grad is not None})
        return clip(parameters, limit)

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", noting)

    def objective(state: TrainState) -> float:
        step = Stepper(
            plan.science,
            make_placement(micro_batch_sequences=2),
            sum_of_token_losses,
            tell=lambda kind, step, message: None,
        )
        record = step(state, batch)
        assert record.retention.keys() == {"l2sp", "ewc"}
        assert min(record.retention.values()) > 0.1, "the differences would be blind"
        return record.loss + sum(record.retention.values())

    state = moved_state(plan)
    objective(state)
    gradient = dict(seen)
    generator = torch.Generator().manual_seed(4)
    for _ in range(3):
        direction = {
            name: torch.randn(g.shape, generator=generator, dtype=torch.float64)
            for name, g in gradient.items()
        }
        values = []
        for sign in (1, -1):
            state = moved_state(plan)
            with torch.no_grad():
                for name, parameter in state.model.named_parameters():
                    parameter.add_(direction[name], alpha=sign * 1e-5)
            values.append(objective(state))
        along = sum(float((gradient[name] * direction[name]).sum()) for name in gradient)
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(along, rel=1e-7)


def test_fisher_is_the_mean_of_squared_gradients_of_sequences() -> None:
    """Each sequence's gradient by torch.func's vmap(grad), all at once."""
    model = new_tiny_model(dropout=0.5).double().train()
    batches = sequences(fisher_order(retaining(EWC).science), 5)
    root = Root(model)
    found = fisher_diagonal(
        root,
        list(model.named_parameters()),
        batches,
        sum_of_token_losses,
        autocast=contextlib.nullcontext,
    )
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())

    model.eval()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def nats(parameters: dict[str, Tensor], ids: Tensor, labels: Tensor) -> Tensor:
        logits = functional_call(model, (parameters, buffers), (ids[None],)).logits[0]
        return F.cross_entropy(logits, labels, reduction="sum")

    of_each = vmap(grad(nats), in_dims=(None, 0, 0))(
        parameters,
        torch.cat([batch.input_ids for batch in batches]),
        torch.cat([batch.labels for batch in batches]),
    )
    for name, gradients in of_each.items():
        expected = gradients.square().sum(0) / (5 * SEQUENCE_LENGTH)
        assert torch.allclose(found[name], expected, rtol=1e-10, atol=1e-14), name
        assert found[name].abs().max() > 0, name
    assert len(of_each) == len(found)


def test_sequences_of_fisher_are_its_sources_own_and_differ() -> None:
    order = fisher_order(retaining(EWC).science)
    assert order.source_names == ("old",)
    ids = torch.cat([batch.input_ids for batch in sequences(order, 5)])
    assert len(torch.unique(ids, dim=0)) == 5


@pytest.mark.parametrize("recipe", [L2SP, EWC, BOTH], ids=["l2sp", "ewc", "both"])
def test_a_resumed_run_has_the_same_bits(tmp_path: Path, recipe: object) -> None:
    plan = retaining(recipe)  # type: ignore[arg-type]
    train_tiny(tmp_path / "whole", plan)
    for step in (1, 3, 6, 8):
        train_tiny(tmp_path / "parts", plan, until_step=step)
    assert tensors_of(tmp_path / "parts") == tensors_of(tmp_path / "whole")
    train_tiny(tmp_path / "plain", retaining(L2SP.model_copy(update={"l2sp": None})))
    assert tensors_of(tmp_path / "plain") != tensors_of(tmp_path / "whole")


def test_the_pull_keeps_weights_near_the_base(tmp_path: Path) -> None:
    def distance(folder: Path) -> float:
        base, model = new_tiny_model(), train(folder)
        squares = [
            float((a - b).square().sum().detach())
            for a, b in zip(base.parameters(), model.parameters(), strict=True)
        ]
        return sum(squares)

    def train(folder: Path) -> TinyModel:
        model = new_tiny_model()
        train_tiny(folder, plans[folder.name], load_model=lambda: model)
        return model

    stronger = L2SP.model_copy(update={"l2sp": L2SP.l2sp.model_copy(update={"weight": 100.0})})  # type: ignore[union-attr]
    plans = {
        "plain": retaining(L2SP.model_copy(update={"l2sp": None}), num_steps=30),
        "pulled": retaining(stronger, num_steps=30),
    }
    assert distance(tmp_path / "pulled") < 0.5 * distance(tmp_path / "plain")


class Estimates:
    """Counts how often importance is estimated."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number = 0
        monkeypatch.setattr(retained, "fisher_diagonal", self)

    def __call__(self, *arguments: object, **named: object) -> dict[str, Tensor]:
        self.number += 1
        found: dict[str, Tensor] = fisher_diagonal(*arguments, **named)  # type: ignore[arg-type]
        return found


def test_importance_is_estimated_once_and_read_by_later_launches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimates = Estimates(monkeypatch)
    plan = retaining(EWC)
    train_tiny(tmp_path, plan, until_step=2)
    (folder,) = RunFolder(tmp_path).fisher.iterdir()
    facts = read_json(folder / "fisher.json", what="", error=PlanError)
    assert (facts["source"], facts["sequences"], facts["tokens"]) == ("old", 5, 60)
    assert (folder / "MANIFEST.json").exists()
    train_tiny(tmp_path, plan, until_step=4)
    assert estimates.number == 1


def test_importance_that_was_damaged_is_made_again_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimates = Estimates(monkeypatch)
    plan = retaining(EWC)
    train_tiny(tmp_path / "whole", plan)
    train_tiny(tmp_path / "hurt", plan, until_step=4)
    (folder,) = RunFolder(tmp_path / "hurt").fisher.iterdir()
    path = folder / "fisher.safetensors"
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    train_tiny(tmp_path / "hurt", plan)
    assert estimates.number == 3
    assert path.read_bytes() == sound
    told = [event.message for event in RunFolder(tmp_path / "hurt").events()]
    assert any("is damaged" in message and "made again" in message for message in told)
    assert tensors_of(tmp_path / "hurt") == tensors_of(tmp_path / "whole")


def test_importance_of_another_estimate_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimates = Estimates(monkeypatch)
    train_tiny(tmp_path / "five", retaining(EWC), until_step=2)
    more = EWC.model_copy(update={"ewc": EWC.ewc.model_copy(update={"sequences": 6})})  # type: ignore[union-attr]
    other = RunFolder(tmp_path / "six")
    other.path.mkdir()
    RunFolder(tmp_path / "five").fisher.rename(other.fisher)
    train_tiny(other.path, retaining(more), until_step=2)
    assert estimates.number == 2
    (folder,) = other.fisher.iterdir()
    assert read_json(folder / "fisher.json", what="", error=PlanError)["sequences"] == 6


@pytest.mark.parametrize(
    "change",
    [{"base_weights": "other"}, {"sequence_length": 6}, {"precision": "bfloat16"}, {"seed": 5}],
    ids=str,
)
def test_what_decides_importance_makes_it_another_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    estimates = Estimates(monkeypatch)
    plan = retaining(EWC)
    science = plan.science.model_copy(update=change)
    other = plan.model_copy(
        update={"science": science, "fingerprint": Plan.science_fingerprint(science)}
    )
    for name, planned in (("one", plan), ("other", other)):
        run = RunFolder(tmp_path / name)
        run.path.mkdir()
        if name == "other":
            RunFolder(tmp_path / "one").fisher.rename(run.fisher)
        train_tiny(run.path, planned, until_step=1)
    assert estimates.number == 2


def test_gradients_that_are_not_finite_are_told(tmp_path: Path) -> None:
    def poisoned() -> nn.Module:
        model = new_tiny_model()
        with torch.no_grad():
            model.mixer.weight[0, 0] = torch.nan
        return model

    with pytest.raises(PlanError, match="gradients on 'old' are not finite") as caught:
        train_tiny(tmp_path, retaining(EWC), load_model=poisoned)
    assert caught.value.exit_code == 2
