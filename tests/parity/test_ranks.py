"""Many gloo ranks against one process, in float64: the same step, whatever the split."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rewarm.distributed.world import ALONE
from rewarm.records.run_folder import RunFolder
from rewarm.training.checkpoint import find_newest_verified
from rewarm.training.state import read_weights, weights_of
from tests.support.rank_jobs import (
    PLAN,
    VARIANTS,
    losses_of,
    new_llama_model,
    take_steps,
    train_llama,
    train_llama_in_half,
)
from tests.support.ranks import run_ranks
from tests.support.tiny_plans import tensors_of

JOBS = "tests.support.rank_jobs"
TOLERANCE = 1e-12


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Tensor]]:
    """What one process gets: one micro-batch, documents apart by the mask, activations kept."""
    return {
        name: take_steps(
            ALONE,
            num_steps=3,
            micro_batch=8,
            whole_gradients=False,
            tied=variant["tied"],
            roads=("mask",) if "roads" in variant else (),
            optimizer=variant.get("optimizer", PLAN.science.optimizer),
        )
        for name, variant in VARIANTS.items()
    }


@pytest.mark.parametrize(
    ("num_ranks", "ranks_per_node"),
    [
        pytest.param(2, 2, id="two"),
        pytest.param(4, 4, id="four", marks=pytest.mark.slow),
        pytest.param(3, 3, id="three share eight sequences unevenly", marks=pytest.mark.slow),
        pytest.param(4, 2, id="four on two nodes", marks=pytest.mark.slow),
    ],
)
def test_ranks_take_the_step_of_one_process(
    tmp_path: Path, alone: dict[str, dict[str, Tensor]], num_ranks: int, ranks_per_node: int
) -> None:
    """A mean of means would be off in the second digit: no two ranks have as many valid tokens."""
    run_ranks(f"{JOBS}:parity", str(tmp_path), num_ranks=num_ranks, ranks_per_node=ranks_per_node)
    for name, expected in alone.items():
        found = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            difference = (found[key] - tensor).abs().max()
            assert difference <= TOLERANCE, f"{name}: {key} differs by {difference}"


def test_accumulation_does_not_matter() -> None:
    whole, parts = (
        take_steps(ALONE, num_steps=3, micro_batch=size, whole_gradients=False, tied=True)
        for size in (8, 2)
    )
    for key, tensor in whole.items():
        assert (parts[key] - tensor).abs().max() <= TOLERANCE, key


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    train_llama(folder)
    return folder


def weights_at(folder: Path) -> dict[str, Tensor]:
    """Return the newest checkpoint's weights, read into one process as an export does."""
    model = new_llama_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    path = find_newest_verified(RunFolder(folder).checkpoints).path
    assert path is not None
    assert read_weights(path, model, PLAN.science) == int(path.name[5:])
    return {name: tensor.detach() for name, tensor in weights_of(model).items()}


@pytest.mark.slow
def test_in_half_precision_a_resumed_run_has_the_same_bits(tmp_path: Path) -> None:
    """Two ranks whose blocks FSDP casts to bf16, as on GPUs: whole, and stopped after 3 and 7."""
    run_ranks(f"{JOBS}:train_half", str(tmp_path / "whole"), "12", num_ranks=2)
    for until_step in ("3", "7", "12"):
        run_ranks(f"{JOBS}:train_half", str(tmp_path / "parts"), until_step, num_ranks=2)
    found, expected = (dict(tensors_of(tmp_path / name)) for name in ("parts", "whole"))
    del found[".metadata"], expected[".metadata"]  # it holds an id of each save
    assert found == expected
    assert losses_of(tmp_path / "parts") == losses_of(tmp_path / "whole")


@pytest.mark.slow
def test_in_half_precision_a_run_goes_on_with_fewer_ranks(tmp_path: Path) -> None:
    """4 → 2 → 1: the same samples; losses as far apart as bf16 rounds (8 bits), and no further."""
    for num_ranks, until_step in ((4, 4), (2, 8)):
        run_ranks(
            f"{JOBS}:train_half", str(tmp_path / "parts"), str(until_step), num_ranks=num_ranks
        )
    train_llama_in_half(tmp_path / "parts")
    train_llama_in_half(tmp_path / "alone")
    found, expected = (RunFolder(tmp_path / name).steps() for name in ("parts", "alone"))
    assert [(r.step, r.samples, r.lr) for r in found] == [
        (r.step, r.samples, r.lr) for r in expected
    ]
    losses = [losses_of(tmp_path / name) for name in ("parts", "alone")]
    assert losses[0] == pytest.approx(losses[1], rel=2**-8)
    assert losses[0] != losses[1], "FSDP's casts are autocast's: then ask for the same bits"


@pytest.mark.parametrize(
    "worlds",
    [
        pytest.param(((2, 5), (1, 9), (2, 12)), id="2 → 1 → 2"),
        pytest.param(((4, 3), (2, 6), (1, 9), (2, 12)), id="4 → 2 → 1 → 2", marks=pytest.mark.slow),
    ],
)
def test_a_run_goes_on_with_fewer_ranks_and_with_more(
    tmp_path: Path, uninterrupted: Path, worlds: tuple[tuple[int, int], ...]
) -> None:
    """The same samples and, to rounding, the same losses and weights."""
    for num_ranks, until_step in worlds:
        if num_ranks == 1:
            train_llama(tmp_path, until_step=until_step)
        else:
            run_ranks(f"{JOBS}:train", str(tmp_path), str(until_step), num_ranks=num_ranks)
    steps, expected = RunFolder(tmp_path).steps(), RunFolder(uninterrupted).steps()
    assert [(r.step, r.samples, r.lr) for r in steps] == [
        (r.step, r.samples, r.lr) for r in expected
    ]
    assert losses_of(tmp_path) == pytest.approx(losses_of(uninterrupted), rel=TOLERANCE)
    resumes = [event for event in RunFolder(tmp_path).events() if event.kind == "resume"]
    first, second = worlds[0][0], worlds[1][0]
    assert f"world_size: {first} → {second}" in resumes[0].message
    assert len(resumes) == len(worlds) - 1
    found, wanted = weights_at(tmp_path), weights_at(uninterrupted)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert (found[name] - tensor).abs().max() <= TOLERANCE, name
