"""Ranks that share each block's matrices against one process, in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rewarm.distributed.world import ALONE
from rewarm.model.load import load_base
from rewarm.model.loss import token_losses
from rewarm.records.run_folder import RunFolder
from rewarm.training.state import weights_of
from tests.parity.test_ranks import weights_at
from tests.support.rank_jobs import losses_of, take_steps, train_llama
from tests.support.rank_tensor import VARIANTS
from tests.support.ranks import run_ranks
from tests.support.tiny_models import make_family_folder
from tests.support.tiny_plans import SEQUENCE_LENGTH

# Lower versions of transformers cut in another way.
pytest.importorskip("transformers.distributed.tensor_parallel")

JOBS = "tests.support.rank_tensor"
TOLERANCE = 1e-12
# Its norms compute in float32 whatever they are given.
TOLERANCE_OF_GEMMA = 1e-7


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Tensor]]:
    """What one process gets, all sequences in one micro-batch, documents apart by the mask."""
    return {
        name: take_steps(
            ALONE,
            num_steps=3,
            micro_batch=8,
            whole_gradients=False,
            tied=variant["tied"],
            roads=("mask",) if variant["roads"] else (),
            new_model=variant["new_model"],
        )
        for name, variant in VARIANTS.items()
    }


@pytest.mark.parametrize(
    ("num_ranks", "ranks_per_node"),
    [
        pytest.param(2, 2, id="two share all matrices"),
        pytest.param(4, 4, id="two by two", marks=pytest.mark.slow),
        pytest.param(4, 2, id="two by two on two nodes", marks=pytest.mark.slow),
    ],
)
def test_ranks_that_share_matrices_take_the_step_of_one_process(
    tmp_path: Path, alone: dict[str, dict[str, Tensor]], num_ranks: int, ranks_per_node: int
) -> None:
    run_ranks(
        f"{JOBS}:parity", str(tmp_path), "2", num_ranks=num_ranks, ranks_per_node=ranks_per_node
    )
    for name, expected in alone.items():
        found = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        assert found.keys() == expected.keys()
        tolerance = TOLERANCE_OF_GEMMA if name.startswith("gemma") else TOLERANCE
        for key, tensor in expected.items():
            difference = (found[key] - tensor).abs().max()
            assert difference <= tolerance, f"{name}: {key} differs by {difference}"


@pytest.mark.slow
def test_a_run_goes_on_with_and_without_shared_matrices(tmp_path: Path) -> None:
    """2 × 2 → 2 without → 1 × 2 → alone: the same samples and, to rounding, losses and weights."""
    for num_ranks, shared, until_step in ((4, 2, 3), (2, 1, 6), (2, 2, 9), (1, 1, 12)):
        if num_ranks == 1:
            train_llama(tmp_path / "run", until_step=until_step)
        else:
            arguments = (str(tmp_path / "run"), str(until_step), str(shared))
            run_ranks(f"{JOBS}:train", *arguments, num_ranks=num_ranks)
    train_llama(tmp_path / "alone")
    steps, expected = (RunFolder(tmp_path / name).steps() for name in ("run", "alone"))
    assert [(r.step, r.samples, r.lr) for r in steps] == [
        (r.step, r.samples, r.lr) for r in expected
    ]
    losses = losses_of(tmp_path / "alone")
    assert losses_of(tmp_path / "run") == pytest.approx(losses, rel=TOLERANCE)
    found, wanted = weights_at(tmp_path / "run"), weights_at(tmp_path / "alone")
    for name, tensor in wanted.items():
        assert (found[name] - tensor).abs().max() <= TOLERANCE, name


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [2, 4])
def test_a_resumed_run_is_bit_identical(tmp_path: Path, num_ranks: int) -> None:
    for name, stops in (("once", (8,)), ("twice", (5, 8))):
        for until_step in stops:
            arguments = (str(tmp_path / name), str(until_step), "2")
            run_ranks(f"{JOBS}:train", *arguments, num_ranks=num_ranks)
    assert losses_of(tmp_path / "once") == losses_of(tmp_path / "twice")
    found, wanted = weights_at(tmp_path / "twice"), weights_at(tmp_path / "once")
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


@pytest.mark.slow
def test_each_rank_reads_the_part_of_a_base_that_is_its_own(tmp_path: Path) -> None:
    families: dict[str, dict[str, Any]] = {
        "llama": {"num_key_value_heads": 2},
        "qwen2": {"tie_word_embeddings": True},  # biases
        "gpt_neox": {},  # fused projections, and files of other names
    }
    for family, changes in families.items():
        make_family_folder(tmp_path / family, family, **changes)
    run_ranks(f"{JOBS}:loads", str(tmp_path), "2", num_ranks=4)
    ids = torch.arange(2 * SEQUENCE_LENGTH).view(2, -1)
    for family in families:
        model: Any = load_base(tmp_path / family).eval()
        said = torch.load(tmp_path / family / "loaded.pt", weights_only=True)
        for name, tensor in weights_of(model).items():
            assert torch.equal(said[name], tensor.detach()), name
        with torch.no_grad():
            expected = token_losses(model, ids, ids)
        torch.testing.assert_close(said["losses"], expected)
        numbers = sum(p.numel() for p in model.parameters())
        assert said["numbers"] < 0.45 * numbers, "blocks are in four parts, the rest in two"
