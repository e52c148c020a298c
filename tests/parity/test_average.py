"""Averages of models against torch's own, against mergekit's, and against numbers worked by hand.

mergekit's figures were made once, in float64, with mergekit 0.1.5 in an environment of its own:
`mergekit.merge_methods.api.merge_tensors([A, B, C], method, parameters=…, base_index=0)`, where
slerp took A and B alone, and linear no base. It keeps its licence (LGPL-3.0) and its dependencies
out of this project.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from rewarm.model.average import Linear, Merge, Spherical, write_merged
from rewarm.model.load import load_base
from rewarm.model.weight_folder import WeightFolder
from tests.support.memory_weights import MemoryWeights, merged
from tests.support.tiny_models import make_tiny_base

A = torch.tensor([[0.5, -1.25, 2.0], [0.125, 3.0, -0.75]], dtype=torch.float64)
B = torch.tensor([[1.5, 0.25, -1.0], [2.125, 1.0, 0.5]], dtype=torch.float64)
C = torch.tensor([[-0.5, 0.75, 1.0], [0.375, -2.0, 4.0]], dtype=torch.float64)


def models(*tensors: Tensor) -> tuple[MemoryWeights, ...]:
    return tuple(MemoryWeights({"w": tensor}) for tensor in tensors)


@pytest.mark.parametrize(
    ("merge", "expected"),
    [
        (
            Merge(models(A, B), Spherical(0.3)),
            [
                [1.0684726309129662, -0.9658242245317469, 1.2895151563381946],
                [1.0132119995566589, 3.0001210799764597, -0.43027576635336456],
            ],
        ),
        (
            Merge(models(A, B), Spherical(0.8)),
            [
                [1.5325702010201343, -0.13037878611166884, -0.34655094968712985],
                [2.0023504886969503, 1.793327773243472, 0.24561431602138203],
            ],
        ),
        (  # weights 1, 2, 0.5, normalised
            Merge(models(A, B, C), Linear((1.0, 2.0, 0.5), 3.5)),
            [
                [0.9285714285714286, -0.10714285714285714, 0.14285714285714285],
                [1.3035714285714286, 1.1428571428571428, 0.6428571428571429],
            ],
        ),
        (  # task vectors of B and C from A, 0.4 and 0.7
            Merge(models(A, B, C), Linear((1.0 - 0.4 - 0.7, 0.4, 0.7))),
            [
                [0.20000000000000007, 0.75, 0.09999999999999987],
                [1.1, -1.2999999999999998, 3.0749999999999997],
            ],
        ),
    ],
    ids=["slerp 0.3", "slerp 0.8", "linear", "task arithmetic"],
)
def test_mergekit_gives_the_same(merge: Merge, expected: list[list[float]]) -> None:
    found = merged(merge)["w"]
    assert torch.allclose(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=1e-15
    )


def test_numbers_worked_by_hand() -> None:
    """A quarter of the circle from (3, 0) to (0, 4) has 3 cos 22.5° and 4 sin 22.5°."""
    one, other = torch.tensor([3.0, 0.0]).double(), torch.tensor([0.0, 4.0]).double()
    found = merged(Merge(models(one, other), Spherical(0.25)))["w"].tolist()
    half_angle = math.sqrt((1 - math.sqrt(0.5)) / 2)  # sin 22.5°
    assert found == pytest.approx([3 * math.sqrt(1 - half_angle**2), 4 * half_angle], rel=1e-15)
    # The chat vector: 10 + 2 (7 − 4) = 16, and of the second number −1 + 2 (0.5 − 0.25) = −0.5.
    base, continued, instruct = (
        torch.tensor(values).double() for values in ([4.0, 0.25], [10.0, -1.0], [7.0, 0.5])
    )
    rule = Linear((-2.0, 1.0, 2.0))
    assert merged(Merge(models(base, continued, instruct), rule))["w"].tolist() == [16.0, -0.5]


def test_an_average_of_folders_is_torchs(tmp_path: Path) -> None:
    """torch averages loaded modules, one update at a time; here files are averaged, unloaded."""
    folders = [make_tiny_base(tmp_path / str(seed), seed=seed) for seed in range(5)]
    running: nn.Module = AveragedModel(load_base(folders[0], dtype=torch.float64))
    for folder in folders:
        running.update_parameters(load_base(folder, dtype=torch.float64))  # type: ignore[operator]
    forms = [WeightFolder.read(folder) for folder in folders]
    opened = tuple(form.open(str(form.folder)) for form in forms)
    out = tmp_path / "out"
    out.mkdir()
    write_merged(Merge(opened, Linear((1.0,) * 5, 5.0)), out, forms[0].layout(torch.float64))
    for weights in opened:
        weights.close()
    saved = load_file(out / "model.safetensors")
    assert saved.keys() == forms[0].places.keys()
    expected = running.module.state_dict()  # type: ignore[union-attr]
    for name, tensor in saved.items():
        assert torch.allclose(tensor, expected[name], rtol=1e-14, atol=1e-17), name


def test_the_average_along_a_run_is_a_run_that_decayed_its_rate() -> None:
    """Of n checkpoints, update i counts (n + 1 − i)/n: a linear decay."""
    generator = torch.Generator().manual_seed(0)
    updates = torch.randn(6, 10, generator=generator, dtype=torch.float64)
    checkpoints = torch.randn(10, generator=generator, dtype=torch.float64) + updates.cumsum(0)
    before = checkpoints[0] - updates[0]
    found = merged(Merge(models(*checkpoints), Linear((1.0,) * 6, 6.0)))["w"]
    decayed = before + sum((7 - i) / 6 * update for i, update in enumerate(updates, start=1))
    assert torch.allclose(found, decayed, rtol=1e-13, atol=1e-14)
