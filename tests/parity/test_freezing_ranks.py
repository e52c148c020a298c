"""Layers that freeze and unfreeze on many ranks, in float64: as in one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rewarm.records.run_folder import RunFolder
from rewarm.training.checkpoint import find_newest_verified
from rewarm.training.state import read_weights, weights_of
from tests.support.rank_freezing import frozen_plan, new_deep_model, train_frozen
from tests.support.rank_jobs import losses_of
from tests.support.ranks import run_ranks

JOB = "tests.support.rank_freezing:train"
TOLERANCE = 1e-12


def weights_at(folder: Path, kind: str) -> dict[str, torch.Tensor]:
    model = new_deep_model()
    path = find_newest_verified(RunFolder(folder).checkpoints).path
    assert path is not None
    assert read_weights(path, model, frozen_plan(kind).science) == 12
    return {name: tensor.detach() for name, tensor in weights_of(model).items()}


@pytest.mark.parametrize(
    "kind",
    [
        "freezeout",
        pytest.param("auto", marks=pytest.mark.slow),
        pytest.param("unfreeze", marks=pytest.mark.slow),
    ],
)
def test_ranks_freeze_as_one_process_does(tmp_path: Path, kind: str) -> None:
    """Two ranks to step 8, with a milestone on the way, then one process to the end."""
    train_frozen(tmp_path / "alone", kind)
    run_ranks(JOB, str(tmp_path / "ranks"), kind, "8", num_ranks=2)
    train_frozen(tmp_path / "ranks", kind)
    assert losses_of(tmp_path / "ranks") == pytest.approx(
        losses_of(tmp_path / "alone"), rel=TOLERANCE
    )
    found, wanted = weights_at(tmp_path / "ranks", kind), weights_at(tmp_path / "alone", kind)
    for name, tensor in wanted.items():
        assert (found[name] - tensor).abs().max() <= TOLERANCE, name
    events = [
        [
            (event.step, event.message)
            for event in RunFolder(tmp_path / where).events()
            if event.kind == "freeze"
        ]
        for where in ("alone", "ranks")
    ]
    assert [step for step, _ in events[0]] == [step for step, _ in events[1]]
    assert bool(events[0]) == (kind == "auto")
