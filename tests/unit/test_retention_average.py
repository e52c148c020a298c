"""The running average of the weights: by hand, to the bit over resumes, measured and exported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rewarm.cli import main
from rewarm.distributed.fsdp import Root
from rewarm.model.load import load_base
from rewarm.records.run_folder import RunFolder
from rewarm.reporting.report import render_run_report
from rewarm.retention.average import Average
from rewarm.training.hooks import AverageWeights
from rewarm.training.optimizer import build_optimizer, trainable_parameters
from rewarm.training.state import TrainState
from tests.support.retention_jobs import EMA, retaining
from tests.support.road import make_reader_folder
from tests.support.tiny_plans import new_tiny_model, tensors_of, train_tiny


def test_an_average_by_hand() -> None:
    """Decay ¾ from 1 over 2 and 3: 1 → 1.25 → 1.6875."""
    module = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(1.0)
    average = Average.at(module.named_parameters(), decay=0.75)
    for value, expected in ((2.0, 1.25), (3.0, 1.6875)):
        with torch.no_grad():
            module.weight.fill_(value)
        average.update(module)
        assert average.weights["weight"].item() == expected
    with average.in_place_of_weights(module):
        assert module.weight.item() == 1.6875
    assert module.weight.item() == 3.0
    assert average.weights["weight"].item() == 1.6875


def test_weights_are_back_to_the_bit_also_after_a_fault() -> None:
    module = nn.Linear(3, 2)
    average = Average.at(module.named_parameters(), decay=0.9)
    with torch.no_grad():
        module.weight.add_(torch.randn(2, 3))
    before = module.weight.clone()
    with pytest.raises(RuntimeError, match="in between"), average.in_place_of_weights(module):
        raise RuntimeError("in between")
    assert torch.equal(module.weight, before)


def test_a_step_that_is_left_out_is_not_taken_in() -> None:
    plan, model = retaining(EMA), new_tiny_model()
    optimizer = build_optimizer(trainable_parameters(model), plan.science.optimizer)
    state = TrainState(Root(model), optimizer)
    state.average = Average.at(model.named_parameters(), decay=0.5)
    before = {name: tensor.clone() for name, tensor in state.average.weights.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    AverageWeights().after_step(state, None)
    assert all(torch.equal(state.average.weights[name], before[name]) for name in before)


def test_a_run_keeps_the_average_that_its_weights_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Summed up by hand in float64 from the weights after every step; the training is not touched
    by it."""
    seen: list[dict[str, Tensor]] = []
    update = Average.update

    def noting(self: Average, model: nn.Module) -> None:
        seen.append({n: p.detach().double().clone() for n, p in model.named_parameters()})
        update(self, model)

    monkeypatch.setattr(Average, "update", noting)
    plan = retaining(EMA)
    train_tiny(tmp_path / "kept", plan)
    from safetensors.torch import load_file

    newest = tmp_path / "kept" / "checkpoints" / "step-00000008"
    found = load_file(newest / "average.safetensors")
    base = {n: p.detach().double() for n, p in new_tiny_model().named_parameters()}
    assert len(seen) == 8
    for name, tensor in found.items():
        expected = base[name] * 0.75**8
        for index, weights in enumerate(seen):
            expected = expected + weights[name] * 0.25 * 0.75 ** (7 - index)
        assert torch.allclose(tensor.double(), expected, rtol=1e-5, atol=1e-7), name
    assert len(found) == len(base)
    train_tiny(tmp_path / "plain", retaining(EMA.model_copy(update={"ema": None})))
    file = "model.safetensors"
    assert tensors_of(tmp_path / "kept")[file] == tensors_of(tmp_path / "plain")[file]


def test_a_resumed_run_has_the_same_average(tmp_path: Path) -> None:
    plan = retaining(EMA)
    train_tiny(tmp_path / "whole", plan)
    for step in (1, 3, 6, 8):
        train_tiny(tmp_path / "parts", plan, until_step=step)
    assert tensors_of(tmp_path / "parts") == tensors_of(tmp_path / "whole")
    assert "average.safetensors" in tensors_of(tmp_path / "whole")


RECIPE = """
name = "averaged"
base = { path = "my-model", pretraining = { peak_lr = 1e-2, final_lr = 1e-3 } }
budget = { tokens = 1024 }
batch = { tokens = 128, sequence_length = 32 }
sources.new = { path = "my-text", role = "new", held_out = 0.1 }
evaluation = { every_steps = 4, max_bytes_per_domain = 1000 }
checkpoints = { every_steps = 4 }
training = { num_threads = 1, precision = "float32" }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_reader_folder(tmp_path_factory.mktemp("average") / "reader")
    (folder / "r.toml").write_text(RECIPE)
    assert main(["prepare", str(folder / "r.toml")]) == 0
    return folder


def test_the_average_is_measured_reported_and_exported(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(folder / "r.toml")
    assert main(["train", recipe, "-o", "retention.ema.decay=0.5"]) == 0
    run = RunFolder(folder / "runs" / "averaged")
    steps = sorted({record.step for record in run.average_evals()})
    assert steps == [0, 1, 2, 4, 8]
    last, average = (
        {(r.domain, r.metric): r.value for r in records if r.step == 8}
        for records in (run.evals(), run.average_evals())
    )
    assert last.keys() == average.keys()
    assert last != average

    page = render_run_report(run)
    assert "The running average of the weights" in page

    assert main(["export", str(run.path)]) == 0
    assert main(["export", str(run.path), "--average"]) == 0
    assert main(["export", str(run.path), "--average"]) == 0
    assert f"exported already: {run.average_export}" in capsys.readouterr().out
    from safetensors.torch import load_file

    kept = load_file(run.checkpoints / "step-00000008" / "average.safetensors")
    exported = dict(load_base(run.average_export).named_parameters())
    others = dict(load_base(run.export).named_parameters())
    for name, tensor in kept.items():
        assert torch.equal(exported[name].detach(), tensor), name
    assert any(not torch.equal(exported[n].detach(), others[n].detach()) for n in kept)
    card = (run.average_export / "README.md").read_text()
    assert "running average (EMA)" in card
    assert f"{average['new', 'bits_per_byte']:.3f}" in card
    assert "running average" not in (run.export / "README.md").read_text()


def test_a_run_without_an_average_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(folder / "r.toml"), "-o", "name=plain"]) == 0
    assert main(["export", str(folder / "runs" / "plain"), "--average"]) == 2
    assert "keeps no average of its weights" in capsys.readouterr().err
