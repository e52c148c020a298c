"""What holds on to the base, on two gloo ranks against one process, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.ranks import run_ranks
from tests.support.retention_jobs import ALL, TERMS, outcome, train_retaining

JOBS = "tests.support.retention_jobs"
TOLERANCE = 1e-12
# One gradient of it is near 0, and Adam divides by its size: 1.1e-12 on a Xeon with AVX-512.
OF_STORED = 2e-12


def differences(
    found: dict[str, Tensor], expected: dict[str, Tensor], *, tolerance: float = TOLERANCE
) -> list[str]:
    assert found.keys() == expected.keys()
    return [
        f"{name} by {float((found[name] - tensor).abs().max()):.2g}"
        for name, tensor in expected.items()
        if not bool(((found[name] - tensor).abs() <= tolerance * tensor.abs().clamp(min=1)).all())
    ]


def check_ranks(
    folder: Path, names: Sequence[str], tensor_parallel: int = 1, **launch: int
) -> None:
    """Uneven labels and shards, one sequence a micro-batch against all in one."""
    job = f"{JOBS}:train_all"
    run_ranks(job, str(folder / "ranks"), ",".join(names), str(tensor_parallel), **launch)
    for name in names:
        alone = folder / "alone" / name
        train_retaining(alone, TERMS[name], until_step=3, micro_batch=8, uneven=True)
        found = outcome(folder / "ranks" / name, TERMS[name])
        tolerance = OF_STORED if name == "stored" else TOLERANCE
        assert differences(found, outcome(alone, TERMS[name]), tolerance=tolerance) == [], name


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_ranks_hold_on_to_the_base_as_one_process_does(tmp_path: Path) -> None:
    check_ranks(tmp_path, tuple(TERMS), num_ranks=2)


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_copies_over_nodes_hold_on_as_one_process_does(tmp_path: Path) -> None:
    """Two nodes of two ranks: each part of a weight is there twice."""
    check_ranks(tmp_path, ("all", "kl-alone"), num_ranks=4, ranks_per_node=2)


@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.parametrize("num_ranks", [2, 4])
def test_matrices_cut_over_ranks_hold_on_as_one_process_does(
    tmp_path: Path, num_ranks: int
) -> None:
    pytest.importorskip("transformers.distributed.tensor_parallel")
    check_ranks(tmp_path, ("all", "kl-alone"), 2, num_ranks=num_ranks)


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_run_with_every_term_changes_its_number_of_ranks(tmp_path: Path) -> None:
    """1 → 2 → 1: importance, average and memory go on, whoever wrote them."""
    train_retaining(tmp_path / "moved", ALL, until_step=2)
    run_ranks(f"{JOBS}:train_on_ranks", str(tmp_path / "moved"), "all", "4", num_ranks=2)
    train_retaining(tmp_path / "moved", ALL, until_step=6)
    train_retaining(tmp_path / "alone", ALL, until_step=6)
    assert differences(outcome(tmp_path / "moved", ALL), outcome(tmp_path / "alone", ALL)) == []


@pytest.mark.parametrize("name", TERMS)
def test_the_split_into_micro_batches_does_not_matter(tmp_path: Path, name: str) -> None:
    recipe = TERMS[name]
    outcomes = []
    for size in (8, 2):
        folder = tmp_path / str(size)
        train_retaining(folder, recipe, until_step=2, micro_batch=size, uneven=True)
        outcomes.append(outcome(folder, recipe))
    assert differences(*outcomes) == []


def test_the_divergence_in_chunks_is_that_of_whole_logits(tmp_path: Path) -> None:
    recipe = TERMS["lwf"]
    outcomes = []
    for plain in (True, False):
        folder = tmp_path / str(plain)
        train_retaining(folder, recipe, until_step=2, plain=plain)
        outcomes.append(outcome(folder, recipe))
    assert differences(*outcomes) == []
    assert float(outcomes[0]["record.1"][2]) > 0, "nothing diverged: the test would be blind"
    assert torch.equal(outcomes[0]["record.0"][2], torch.tensor(0.0, dtype=torch.float64)) or (
        abs(float(outcomes[0]["record.0"][2])) < 1e-12
    )
