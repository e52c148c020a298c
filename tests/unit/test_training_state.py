"""A state goes to disk and back to the bit, or not at all."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rewarm.artifacts import read_json, write_json
from rewarm.distributed.fsdp import Root
from rewarm.errors import CheckpointError, RunFolderError
from rewarm.planning.plan import Plan, Science
from rewarm.training.optimizer import build_optimizer, moments, step_counts, trainable_parameters
from rewarm.training.saved import STATE_FILE, read_saved_state
from rewarm.training.state import (
    TrainState,
    read_state,
    read_weights,
    weights_of,
)
from tests.support.tiny_plans import make_plan, new_tiny_model, write_state

PLAN = make_plan()


def make_state(*, seed: int = 0, freeze: str = "") -> TrainState:
    model = new_tiny_model(seed=seed)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name != freeze)
    return TrainState(
        Root(model), build_optimizer(trainable_parameters(model), PLAN.science.optimizer)
    )


def trained(*, seed: int = 0, freeze: str = "") -> TrainState:
    state = make_state(seed=seed, freeze=freeze)
    for _ in range(3):
        state.model(torch.randint(61, (2, 12))).logits.square().mean().backward()
        state.optimizer.step()
        state.step += 1
    return state


def snapshot(state: TrainState) -> dict[str, Tensor]:
    tensors = {**weights_of(state.model), **moments(state.optimizer)}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(tensor, second[name]) for name, tensor in first.items()
    )


def test_everything_comes_back_to_the_bit(tmp_path: Path) -> None:
    saved = trained()
    write_state(tmp_path, saved, PLAN.science)

    found = make_state(seed=7)
    read_state(tmp_path, found, PLAN.science)
    assert found.step == 3
    assert same(snapshot(found), snapshot(saved))
    assert step_counts(found.optimizer) == step_counts(saved.optimizer)
    tied = [found.model.get_parameter(f"{name}.weight") for name in ("head", "embedding")]
    assert tied[0] is tied[1]

    record = read_saved_state(tmp_path)
    assert (record.num_samples, record.num_tokens) == (3 * 8, 3 * 8 * 12)
    assert record.plan == PLAN.fingerprint
    assert record.amendments_head == ""
    assert "torch" in record.versions


def test_weights_hold_each_tensor_once_under_its_first_name(tmp_path: Path) -> None:
    write_state(tmp_path, trained(), PLAN.science)
    assert load_file(tmp_path / "model.safetensors").keys() == {
        "embedding.weight",
        "norm.weight",
        "norm.bias",
        "mixer.weight",
        "mixer.bias",
        "running",
    }


def test_a_frozen_parameter_is_saved_and_has_no_moments(tmp_path: Path) -> None:
    saved = trained(freeze="mixer.weight")
    write_state(tmp_path, saved, PLAN.science)
    assert "mixer.weight" in load_file(tmp_path / "model.safetensors")
    assert "exp_avg.mixer.weight" not in load_file(tmp_path / "optimizer.safetensors")
    found = make_state(seed=7, freeze="mixer.weight")
    read_state(tmp_path, found, PLAN.science)
    assert same(snapshot(found), snapshot(saved))
    with pytest.raises(CheckpointError, match=r"exp_avg\.mixer\.weight is missing"):
        read_state(tmp_path, make_state(), PLAN.science)


def test_tensors_that_are_not_contiguous_come_back(tmp_path: Path) -> None:
    model = nn.Linear(3, 5)
    model.weight = nn.Parameter(torch.arange(15.0).view(3, 5).t())
    state = TrainState(
        Root(model), build_optimizer(trainable_parameters(model), PLAN.science.optimizer)
    )
    write_state(tmp_path, state, PLAN.science)
    other = nn.Linear(3, 5)
    assert read_weights(tmp_path, other, PLAN.science) == 0
    assert torch.equal(other.weight, model.weight)


def change_tensors(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_every_difference_is_listed_and_the_state_untouched(tmp_path: Path) -> None:
    write_state(tmp_path, trained(), PLAN.science)
    change_tensors(tmp_path / "model.safetensors", lambda t: [t.pop("norm.bias"), t.pop("running")])
    change_tensors(tmp_path / "model.safetensors", lambda t: t.update(extra=torch.zeros(1)))
    change_tensors(
        tmp_path / "model.safetensors", lambda t: t.update({"norm.weight": torch.zeros(3)})
    )
    change_tensors(
        tmp_path / "optimizer.safetensors",
        lambda t: t.update({"exp_avg.mixer.bias": torch.zeros(16, dtype=torch.float64)}),
    )
    value = read_json(tmp_path / STATE_FILE, what="", error=CheckpointError)
    value["optimizer_steps"]["ghost"] = value["optimizer_steps"].pop("mixer.bias")
    write_json(tmp_path / STATE_FILE, value)

    state = make_state(seed=7)
    before = snapshot(state)
    with pytest.raises(CheckpointError) as caught:
        read_state(tmp_path, state, PLAN.science)
    assert [problem.what for problem in caught.value.problems] == [
        "norm.bias is missing",
        "running is missing",
        "extra is unexpected",
        "norm.weight is torch.float32 [3] instead of torch.float32 [16]",
        "exp_avg.mixer.bias is torch.float64 [16] instead of torch.float32 [16]",
        "mixer.bias is missing",
        "ghost is unexpected",
    ]
    assert same(snapshot(state), before)
    assert state.step == 0


def changed_science(**changes: object) -> Science:
    return PLAN.science.model_copy(update=changes)


def test_another_plan_is_refused_with_what_differs(tmp_path: Path) -> None:
    write_state(tmp_path, trained(), PLAN.science)
    other = changed_science(
        seed=2,
        sequences_per_step=16,
        optimizer=PLAN.science.optimizer.model_copy(update={"weight_decay": 0.0}),
    )
    state = make_state(seed=7)
    before = snapshot(state)
    with pytest.raises(RunFolderError) as caught:
        read_state(tmp_path, state, other)
    assert "another plan" in str(caught.value)
    for line in ("seed: 1 → 2", "sequences_per_step: 8 → 16", "optimizer.weight_decay: 0.1 → 0.0"):
        assert line in str(caught.value)
    assert same(snapshot(state), before)


def test_a_plan_of_another_format_is_refused_too(tmp_path: Path) -> None:
    write_state(tmp_path, trained(), PLAN.science)
    value = read_json(tmp_path / STATE_FILE, what="", error=CheckpointError)
    value["science"] = {"format": 99}
    value["plan"] = "f" * 64
    write_json(tmp_path / STATE_FILE, value)
    with pytest.raises(RunFolderError, match="another format"):
        read_state(tmp_path, make_state(), PLAN.science)


def test_the_plans_fingerprint_is_what_binds(tmp_path: Path) -> None:
    write_state(tmp_path, trained(), PLAN.science)
    assert read_saved_state(tmp_path).plan == Plan.science_fingerprint(PLAN.science)
    assert read_saved_state(tmp_path).plan != Plan.science_fingerprint(changed_science(seed=2))


class Payload:
    """What unpickling would run."""

    ran = False

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return setattr, (Payload, "ran", True)


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    """Even one that a manifest vouches for: nothing here knows how to unpickle."""
    write_state(tmp_path, trained(), PLAN.science)
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read_state(tmp_path, make_state(), PLAN.science)
    torch.save({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read_weights(tmp_path, new_tiny_model(), PLAN.science)
    assert not Payload.ran


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [("format", 1, "format"), ("step", -1, "step"), ("unknown", 1, "unknown")],
)
def test_a_state_of_another_form_is_refused(
    tmp_path: Path, key: str, value: object, told: str
) -> None:
    write_state(tmp_path, trained(), PLAN.science)
    saved = read_json(tmp_path / STATE_FILE, what="", error=CheckpointError)
    write_json(tmp_path / STATE_FILE, {**saved, key: value})
    with pytest.raises(CheckpointError, match=f"{told}: "):
        read_saved_state(tmp_path)
