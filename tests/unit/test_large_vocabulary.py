"""A vocabulary so large that the logits of all tokens are never there at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rewarm.cli import main
from rewarm.errors import EnvironmentFault
from rewarm.model import head_loss
from rewarm.model.chunked_loss import LogitShape, chunked_nats
from rewarm.model.head_loss import HeadLoss
from rewarm.model.liger_loss import liger_nats
from rewarm.model.loss import IGNORED, sum_of_token_losses
from rewarm.recipe.steps import TrainingRecipe
from rewarm.records.facts import EvalRecord, StepRecord
from rewarm.records.run_folder import RunFolder
from rewarm.training import placement as room
from rewarm.training.placement import choose_placement
from tests.support.fake_facts import make_model_facts
from tests.support.largest import Largest
from tests.support.road import SENTENCE
from tests.support.tiny_models import family_model, make_tiny_base
from tests.support.tiny_plans import make_plan

VOCAB, TOKENS_A_CHUNK = 323, 32
RECIPE = """
name = "{name}"
budget = {{ tokens = "4k" }}
base = {{ path = "model", pretraining = {{ peak_lr = 1e-2, final_lr = 1e-3 }} }}
batch = {{ sequence_length = 64, tokens = 1024 }}
sources.new = {{ path = "text", role = "new", held_out = 0.2 }}
phases = [{{ name = "general", weights = {{ new = 1.0 }} }}]
training = {{ loss = "{loss}", device = "cpu", precision = "float32" }}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a prepared text, and a recipe for each way to take the loss."""
    folder = tmp_path_factory.mktemp("large")
    make_tiny_base(folder / "model", vocab_size=VOCAB, hidden_size=16, tied_embeddings=False)
    (folder / "text").mkdir()
    for number in range(60):
        (folder / "text" / f"{number}.txt").write_text(f"{number} {SENTENCE} " * 12)
    for loss in ("plain", "chunked", "liger"):
        (folder / f"{loss}.toml").write_text(RECIPE.format(name=loss, loss=loss))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["prepare", "plain.toml"]) == 0
        yield folder


def trained(folder: Path, loss: str) -> tuple[list[StepRecord], list[EvalRecord], int]:
    """Train and evaluate; return what is on record and the largest tensor's elements."""
    run = RunFolder(folder / "runs" / loss)
    with Largest() as seen:
        assert main(["train", f"{loss}.toml"]) == 0
        run.evals_log.unlink()
        assert main(["evaluate", f"{loss}.toml"]) == 0
    return run.steps(), run.evals(), seen.num_elements


def test_neither_training_nor_evaluation_holds_all_logits(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command line down: with chunks no tensor is as large as a chunk's logits, which the
    plain loss exceeds many times over; and both are the same run."""
    monkeypatch.setattr(head_loss, "CHUNK_BYTES", 4 * VOCAB * TOKENS_A_CHUNK)
    steps, evals, largest = trained(folder, "plain")
    assert largest >= 1024 * VOCAB
    found_steps, found_evals, found_largest = trained(folder, "chunked")
    assert found_largest < largest // 4
    # What is left is the MLP of an evaluation batch, 4,096 × 64, and knows no vocabulary.
    assert found_largest % VOCAB != 0
    assert [r.loss for r in found_steps] == pytest.approx([r.loss for r in steps], rel=1e-5)
    assert [r.value for r in found_evals] == pytest.approx([r.value for r in evals], rel=1e-5)
    assert len(found_evals) == 2, "the base and the newest checkpoint"


def test_liger_that_is_not_installed_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "liger.toml"]) == 1
    said = capsys.readouterr().err
    assert "needs the package liger-kernel, which is not installed" in said
    assert "pip install 'rewarm[liger]'" in said


def test_liger_without_a_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(EnvironmentFault, match="needs a GPU and the device is cpu"):
        choose_placement(
            TrainingRecipe(device="cpu", loss="liger"), make_plan().science, make_model_facts()
        )


class FakeLiger:
    """Stands for the package: the same surface, computed by torch's own functions."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.wrong = 1.0
        module: Any = ModuleType("liger_kernel.transformers.functional")
        module.liger_fused_linear_cross_entropy = self
        for name in ("liger_kernel", "liger_kernel.transformers"):
            patch.setitem(sys.modules, name, ModuleType(name))
        patch.setitem(sys.modules, "liger_kernel.transformers.functional", module)

    def __call__(
        self,
        hidden: Tensor,
        weight: Tensor,
        target: Tensor,
        *,
        bias: Tensor | None,
        ignore_index: int,
        reduction: str,
        softcap: float | None,
        accum_dtype: torch.dtype,
    ) -> Tensor:
        self.calls += 1
        logits = F.linear(hidden, weight, bias) * self.wrong
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        return F.cross_entropy(logits, target, ignore_index=ignore_index, reduction=reduction)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}),
        ("gemma2", {"final_logit_softcapping": 0.8}),
        ("granite", {"logits_scaling": 3.0}),
        ("cohere", {"logit_scale": 0.25}),
        ("phi", {}),
    ],
)
def test_what_liger_is_handed_gives_the_models_own_loss(
    family: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Caps, scales, biases and ignored labels, by the meaning of the kernel's arguments."""
    fake = FakeLiger(monkeypatch)
    model = family_model(family, vocab_size=97, **changes).double().eval()
    loss = HeadLoss(liger_nats)
    assert loss.settle(model) is None
    ids = torch.arange(22).view(2, 11) * 7 % 97
    labels = ids.roll(-1, 1)
    labels[0, 3:] = IGNORED
    before = fake.calls
    found, expected = loss(model, ids, labels), sum_of_token_losses(model, ids, labels)
    assert fake.calls == before + 1
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-12)
    assert int(found[1]) == int(expected[1])


def test_a_liger_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeLiger(monkeypatch)
    fake.wrong = 1.001
    loss = HeadLoss(liger_nats)
    model = family_model("llama", vocab_size=97)
    why = loss.settle(model)
    assert why is not None
    assert "its own logits give" in why
    ids = torch.arange(22).view(2, 11)
    before = fake.calls
    loss(model, ids, ids)
    assert fake.calls == before


def test_a_scale_and_a_bias_reach_liger_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """scale · (W h + b): no family has both, so the arithmetic is held against the chunks'."""
    FakeLiger(monkeypatch)
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((5, 4), (7, 4), (7,))
    )
    labels = torch.arange(5)
    shape = LogitShape(0.5, 2.0)
    found = liger_nats(hidden, weight, bias, labels, shape=shape)
    logits = 2 * torch.tanh(0.5 * (hidden @ weight.t() + bias) / 2)
    by_hand = -logits.log_softmax(-1)[torch.arange(5), labels].sum()
    assert float(found) == pytest.approx(float(by_hand), rel=1e-12)
    assert float(chunked_nats(hidden, weight, bias, labels, shape=shape)) == pytest.approx(
        float(by_hand), rel=1e-12
    )


def test_with_liger_the_micro_batch_counts_no_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "check_liger", lambda device: None)
    facts = make_model_facts().model_copy(update={"vocab_size": 256_000})
    science = make_plan().science.model_copy(
        update={"sequence_length": 2048, "sequences_per_step": 64}
    )
    plain, liger = (
        choose_placement(TrainingRecipe(device="cpu", loss=loss), science, facts)[0]
        for loss in ("plain", "liger")
    )
    assert liger.loss == "liger"
    assert liger.micro_batch_sequences > plain.micro_batch_sequences
