"""8-bit AdamW through torchao: its own steps, resumed to the bit, on ranks, against 32 bits."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rewarm.distributed.fsdp import Root
from rewarm.distributed.world import ALONE
from rewarm.records.run_folder import RunFolder
from rewarm.training.eight_bit import dequantised, parse_key
from rewarm.training.optimizer import (
    build_optimizer,
    masked_step,
    moments,
    set_learning_rate,
    step_counts,
    trainable_parameters,
)
from rewarm.training.state import TrainState, read_state
from rewarm.training.stored_moments import moments_in_checkpoint
from tests.support.optimizer_states import (
    RECIPE,
    give_gradients,
    moments_by_name,
    peer_over,
    peer_steps,
    save_moments,
    take_over,
)
from tests.support.rank_jobs import EIGHT_BIT, losses_of, new_wide_llama, train_eight_bit
from tests.support.ranks import run_ranks

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None,
    reason="torchao is not installed: it prints load failures on a CPU; `make test-peers` has it",
)

JOBS = "tests.support.rank_jobs"
KIND = {"kind": "adamw8bit"}
RECIPE_8 = RECIPE.model_copy(update=KIND)


def step(model: nn.Module, optimizer: Any, number: int, lr: float = 1e-2) -> None:
    give_gradients(model, number)
    set_learning_rate(optimizer, lr)
    masked_step(optimizer, skip=torch.tensor(False))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def newest(folder: Path) -> Path:
    return max(RunFolder(folder).checkpoints.glob("step-*"))


def test_its_steps_are_torchaos_own() -> None:
    """As its documentation has it used: state made at the first step, groups without names."""
    from torchao.optim import AdamW8bit

    model, reference = new_wide_llama(), new_wide_llama()
    optimizer = build_optimizer(trainable_parameters(model), RECIPE_8)
    matrices = [p for p in reference.parameters() if p.ndim >= 2]
    others = [p for p in reference.parameters() if p.ndim < 2]
    peer = AdamW8bit(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=1e-2,
        betas=RECIPE.betas,
        eps=RECIPE.eps,
    )
    for number in range(5):
        step(model, optimizer, number)
        give_gradients(reference, number)
        with torch.compiler.set_stance("force_eager"):
            peer.step()
    found, expected = weights(model), weights(reference)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert set(step_counts(optimizer).values()) == {5}


def test_codes_mean_what_torchao_says() -> None:
    from torchao.optim.subclass_8bit import OptimState8bit

    torch.manual_seed(0)
    for signed in (True, False):
        numbers = torch.randn(48, 256) * 10.0 ** torch.randint(-6, 2, (48, 1))
        state = OptimState8bit.zeros((48, 256), signed=signed)
        state.copy_(numbers if signed else numbers.square())
        fields = {"codes": state.codes, "scale": state.scale, "qmap": state.qmap}
        assert torch.equal(dequantised(fields), state.dequantize())


def test_a_masked_step_changes_no_bit() -> None:
    model = new_wide_llama()
    optimizer = build_optimizer(trainable_parameters(model), RECIPE_8)
    step(model, optimizer, 0)
    tensors = {**weights(model), **moments(optimizer)}
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    masked_step(optimizer, skip=torch.tensor(True))
    tensors = {**weights(model), **moments(optimizer)}
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors.items())
    assert set(step_counts(optimizer).values()) == {1}


def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(tmp_path: Path) -> None:
    train_eight_bit(tmp_path / "whole")
    for until_step in (5, 9, 12):
        train_eight_bit(tmp_path / "parts", until_step=until_step)
    for name in ("model.safetensors", "optimizer.safetensors"):
        one, other = (newest(tmp_path / run) / name for run in ("whole", "parts"))
        assert one.read_bytes() == other.read_bytes(), name
    stored = load_file(newest(tmp_path / "whole") / "optimizer.safetensors")
    fields = {key.field for text in stored if (key := parse_key(text)) is not None}
    assert fields == {"", "codes", "scale", "qmap"}
    assert sorted(path.suffix for path in newest(tmp_path / "whole").iterdir()) == [
        *(".json", ".json", ".safetensors", ".safetensors")
    ]


def numbers_of(folder: Path, *, step: int | None = None) -> dict[str, Tensor]:
    """Return the moments of a run's checkpoint (None: the newest), as the numbers they mean."""
    path = newest(folder) if step is None else RunFolder(folder).checkpoints / f"step-{step:08d}"
    stored = moments_in_checkpoint(path, ALONE)
    found = {name: torch.full(header.shape, torch.nan) for name, header in stored.headers.items()}
    stored.fill(found)
    return found


def numbers_in(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the numbers that tensors of one process mean, by `exp_avg.<parameter>`."""
    fields: dict[str, dict[str, Tensor]] = {}
    for text, tensor in stored.items():
        key = parse_key(text)
        assert key is not None
        fields.setdefault(f"{key.moment}.{key.name}", {})[key.field] = tensor
    return {name: dequantised(found) for name, found in fields.items()}


def alone_at(path: Path) -> TrainState:
    """Return one process's state of a checkpoint."""
    model = new_wide_llama()
    optimizer = build_optimizer(trainable_parameters(model), EIGHT_BIT.science.optimizer)
    state = TrainState(Root(model), optimizer)
    read_state(path, state, EIGHT_BIT.science)
    return state


@pytest.mark.timeout(600)
def test_a_run_goes_on_with_other_numbers_of_ranks(tmp_path: Path) -> None:
    """Two ranks to the bit after a resume; 2 → 1 → 3 with the same samples, near losses."""
    job = f"{JOBS}:train_eight_bit_on_ranks"
    run_ranks(job, str(tmp_path / "two"), "12", num_ranks=2)
    run_ranks(job, str(tmp_path / "resumed"), "5", num_ranks=2)
    shutil.copytree(tmp_path / "resumed", tmp_path / "other")
    run_ranks(job, str(tmp_path / "resumed"), "12", num_ranks=2)
    assert losses_of(tmp_path / "resumed") == losses_of(tmp_path / "two")
    expected = numbers_of(tmp_path / "two")
    assert all(torch.equal(t, expected[n]) for n, t in numbers_of(tmp_path / "resumed").items())

    # One process quantises anew what it reads: off by less than the width of a code.
    state = alone_at(RunFolder(tmp_path / "two").checkpoints / "step-00000004")
    cut, there = numbers_in(moments(state.optimizer)), numbers_of(tmp_path / "two", step=4)
    assert cut.keys() == there.keys()
    for name, tensor in there.items():
        assert (cut[name] - tensor).abs().max() <= tensor.abs().max() / 100, name
    assert set(step_counts(state.optimizer).values()) == {4}

    other = tmp_path / "other"
    train_eight_bit(other, until_step=8)
    run_ranks(job, str(other), "12", num_ranks=3)
    train_eight_bit(tmp_path / "one")
    steps, wanted = RunFolder(other).steps(), RunFolder(tmp_path / "one").steps()
    assert [(r.step, r.samples, r.lr) for r in steps] == [(r.step, r.samples, r.lr) for r in wanted]
    assert losses_of(other) == pytest.approx(losses_of(tmp_path / "one"), rel=2e-3)
    assert losses_of(tmp_path / "two") == pytest.approx(losses_of(tmp_path / "one"), rel=2e-3)


def test_the_loss_stays_near_that_of_32_bits(tmp_path: Path) -> None:
    """12 steps from one base on the same samples; measured: 0.035 % apart at most."""
    losses = {}
    for kind in ("adamw", "adamw8bit"):
        optimizer = EIGHT_BIT.science.optimizer.model_copy(update={"kind": kind})
        train_eight_bit(tmp_path / kind, optimizer=optimizer)
        losses[kind] = losses_of(tmp_path / kind)
    assert losses["adamw"][-1] < losses["adamw"][0] - 1
    assert losses["adamw8bit"] == pytest.approx(losses["adamw"], rel=2e-3)
    assert losses["adamw8bit"] != losses["adamw"]


def test_moments_by_name_become_codes(tmp_path: Path) -> None:
    """Each number is off by less than a hundredth of the largest of its tensor."""
    model = new_wide_llama()
    peer = peer_over([{"params": list(model.parameters()), "weight_decay": 0.0}])
    peer_steps(model, peer, range(4))
    full = moments_by_name(model, peer)
    path = save_moments(tmp_path / "m.safetensors", full, 4)
    optimizer, taken = take_over("safetensors", path, new_wide_llama(), RECIPE_8)
    assert taken.most_updates == 4
    kept = numbers_in(moments(optimizer))
    assert kept.keys() == full.keys()
    for name, tensor in full.items():
        assert (kept[name] - tensor).abs().max() <= tensor.abs().max() / 100, name


def test_codes_of_a_checkpoint_become_moments_again(tmp_path: Path) -> None:
    train_eight_bit(tmp_path, until_step=4)
    model = new_wide_llama()
    optimizer, taken = take_over("checkpoint", newest(tmp_path), model, RECIPE)
    assert taken.most_updates == 4
    for name, numbers in numbers_of(tmp_path).items():
        moment, _, parameter = name.partition(".")
        found = optimizer.state[dict(model.named_parameters())[parameter]][moment]
        assert torch.equal(found, numbers), name


def test_importing_it_says_nothing() -> None:
    code = "from rewarm.training.eight_bit import import_adamw8bit as f; f(); import transformers"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("", "")
