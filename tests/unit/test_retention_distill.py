"""What the base says as a target: whole steps by finite differences, figures, stored text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rewarm.batches.loader import Batch, BatchLoader
from rewarm.cli import main
from rewarm.distributed.fsdp import Root
from rewarm.recipe.retention import RetentionRecipe
from rewarm.records.run_folder import RunFolder
from rewarm.retention.distill import Distillation
from rewarm.retention.terms import Retention
from rewarm.training import retained
from rewarm.training.optimizer import build_optimizer, trainable_parameters
from rewarm.training.state import TrainState
from rewarm.training.step import Stepper
from tests.support.rank_tensor import maker
from tests.support.retention_jobs import (
    KL_ALONE,
    LWF,
    STORED,
    MadeUpDistributions,
    head_loss,
    outcome,
    retaining,
    train_retaining,
)
from tests.support.road import make_reader_folder
from tests.support.tiny_plans import (
    SEQUENCE_LENGTH,
    VOCAB_SIZE,
    make_placement,
    make_views,
    tensors_of,
)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def batch_of(recipe: RetentionRecipe) -> Batch:
    """Return step 0's batch, some labels of which do not count."""
    stored = {"old": MadeUpDistributions()} if recipe == STORED else {}
    batch = BatchLoader(
        retaining(recipe).science.order(),
        make_views(),
        sequence_length=SEQUENCE_LENGTH,
        vocab_size=VOCAB_SIZE,
        stored=stored,
    ).batch(0)
    return replace(batch, labels=batch.labels.masked_fill(batch.labels % 5 == 0, -100))


def base() -> nn.Module:
    return maker("gpt_neox")()


def moved(noise: float) -> nn.Module:
    """Return GPT-NeoX away from its base: unlike Llama, it has norms in float64."""
    model = base()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(drawn, alpha=noise)
    return model


class Steps:
    """One step of a model away from its base, and the gradient that it took before clipping."""

    def __init__(self, recipe: RetentionRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
        self.recipe = recipe
        self.batch = batch_of(recipe)
        self.gradient: dict[str, Tensor] = {}
        clip = nn.utils.clip_grad_norm_

        def noting(parameters: list[nn.Parameter], limit: float) -> Tensor:
            named = dict(self.model.named_parameters()).items()
            self.gradient = {n: p.grad.clone() for n, p in named if p.grad is not None}
            return clip(parameters, limit)

        monkeypatch.setattr(nn.utils, "clip_grad_norm_", noting)

    def objective(self, along: dict[str, Tensor] | None = None, by: float = 0.0) -> float:
        """Return what the step's figures make of the objective: nats and w · T² · KL a token."""
        model = self.model = moved(0.05)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if along is not None:
                    parameter.add_(along[name], alpha=by)
        plan, distill = retaining(self.recipe), self.recipe.distill
        assert distill is not None
        assert distill.temperature is not None
        loss = head_loss()
        assert loss.settle(model) is None
        chosen = {"new": 1, "old": 0}[distill.on[0]]
        teacher = None if distill.teacher == "stored" else Root(base().eval())
        terms = Retention(Distillation(distill, frozenset({chosen}), loss, teacher))
        step = Stepper(
            plan.science,
            make_placement(micro_batch_sequences=2),
            loss,
            tell=lambda kind, step, message: None,
            retention=terms,
        )
        optimizer = build_optimizer(trainable_parameters(model), plan.science.optimizer)
        record = step(TrainState(Root(model.train()), optimizer), self.batch)
        self.kl = record.retention["distill"]
        rows = torch.from_numpy(self.batch.source == chosen)
        counts = self.batch.labels != -100
        held = counts[rows]
        if self.batch.top_log_probs is not None:
            held = held & self.batch.top_log_probs[rows][..., 0].isfinite()
        valid, num_held = int(counts.sum()), int(held.sum())
        with_loss = int(counts[~rows].sum()) if distill.replaces_loss else valid
        divergence = self.kl * num_held * distill.weight * distill.temperature**2
        return (record.loss * with_loss + divergence) / valid


@pytest.mark.parametrize("recipe", [LWF, KL_ALONE, STORED], ids=["lwf", "alone", "stored"])
def test_the_gradient_of_a_step_is_that_of_loss_and_divergence(
    recipe: RetentionRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Central differences of what a step records, along random directions through all weights."""
    steps = Steps(recipe, monkeypatch)
    steps.objective()
    gradient = dict(steps.gradient)
    assert steps.kl > 1e-3, "the differences would be blind"
    generator = torch.Generator().manual_seed(4)
    for _ in range(3):
        direction = {
            name: torch.randn(g.shape, generator=generator, dtype=torch.float64)
            for name, g in gradient.items()
        }
        ahead, behind = (steps.objective(direction, by) for by in (1e-6, -1e-6))
        along = sum(float((gradient[name] * direction[name]).sum()) for name in gradient)
        assert (ahead - behind) / 2e-6 == pytest.approx(along, rel=1e-5)


def test_the_figure_is_the_divergence_of_both_models_own_logits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By transformers' logits and torch's kl_div; LwF's T = 2, its figure without T²."""
    steps = Steps(LWF, monkeypatch)
    steps.objective()
    rows = torch.from_numpy(steps.batch.source == 1)
    ids, labels = steps.batch.input_ids[rows], steps.batch.labels[rows]
    logs = []
    for model in (moved(0.05), base()):
        with torch.no_grad():
            logits = model.eval()(input_ids=ids).logits
        logs.append((logits / 2).log_softmax(-1)[labels != -100])
    expected = torch.nn.functional.kl_div(logs[0], logs[1], reduction="batchmean", log_target=True)
    assert steps.kl == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("recipe", [LWF, KL_ALONE, STORED], ids=["lwf", "alone", "stored"])
def test_a_resumed_run_has_the_same_bits(tmp_path: Path, recipe: RetentionRecipe) -> None:
    train_retaining(tmp_path / "whole", recipe)
    for step in (1, 3, 8):
        train_retaining(tmp_path / "parts", recipe, until_step=step)
    assert tensors_of(tmp_path / "parts") == tensors_of(tmp_path / "whole")


def test_the_teacher_is_the_base_after_a_resume_too(tmp_path: Path) -> None:
    """Every step's divergence is that of the run without a stop, and never 0 again."""
    train_retaining(tmp_path, LWF, until_step=4)
    train_retaining(tmp_path, LWF, until_step=6)
    found = [record.retention["distill"] for record in RunFolder(tmp_path).steps()]
    assert found[0] < 1e-12, "at the base nothing diverges"
    assert min(found[1:]) > 1e-9


def test_the_teacher_has_no_dropout_and_takes_no_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[nn.Module] = []

    def noting(recipe: Any, sources: Any, loss: Any, teacher: Root) -> Distillation:
        seen.append(teacher.model)
        return Distillation(recipe, sources, loss, teacher)

    monkeypatch.setattr(retained, "Distillation", noting)
    train_retaining(tmp_path, LWF, until_step=1)
    (teacher,) = seen
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_a_step_without_such_text_has_no_divergence_on_record(tmp_path: Path) -> None:
    """0 would say that the model is at the base."""
    plan = retaining(LWF)
    only_old = tuple(
        phase.model_copy(update={"weights": (sum(phase.weights), 0)})
        for phase in plan.science.phases
    )
    plan = plan.model_copy(update={"science": plan.science.model_copy(update={"phases": only_old})})
    train_retaining(tmp_path, LWF, plan=plan, until_step=2)
    assert [record.retention for record in RunFolder(tmp_path).steps()] == [{}, {}]


def test_a_strong_divergence_keeps_the_model_at_what_the_base_says(tmp_path: Path) -> None:
    def last(name: str, weight: float) -> float:
        assert LWF.distill is not None
        recipe = LWF.model_copy(
            update={"distill": LWF.distill.model_copy(update={"weight": weight})}
        )
        plan = retaining(recipe, num_steps=20, checkpoint_every=20)
        train_retaining(tmp_path / name, recipe, plan=plan)
        records = RunFolder(tmp_path / name).steps()
        return records[-1].retention["distill"]

    assert last("strong", 30.0) < 0.7 * last("weak", 0.01)


def test_chunks_do_not_matter(tmp_path: Path) -> None:
    train_retaining(tmp_path / "chunks", STORED, until_step=3)
    train_retaining(tmp_path / "whole", STORED, until_step=3, plain=True)
    one, other = (outcome(tmp_path / name, STORED) for name in ("chunks", "whole"))
    assert all(torch.allclose(one[name], other[name], rtol=0, atol=1e-12) for name in other)


RECIPE = """
name = "held"
base = { path = "my-model", pretraining = { peak_lr = 1e-2, final_lr = 1e-3 } }
budget = { tokens = 1024 }
batch = { tokens = 128, sequence_length = 32 }
checkpoints = { every_steps = 4 }
training = { num_threads = 1, precision = "float32" }

[sources.new]
path = "my-text"
role = "new"
held_out = 0.1

[sources.said]
role = "replay"
held_out = 0.2
rehearse = { tokens = 3000, top_k_logits = 8 }

[retention.distill]
teacher = "stored"
on = ["said"]

[[phases]]
name = "all"
roles = { new = 0.5, old = 0.5 }
"""


def test_what_was_sampled_and_stored_is_held_to_from_command_to_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`rewarm rehearse` stores, `prepare` takes over, `train` reads: at the base what is stored is
    what the model says, so that the first step's divergence is rounding of half precision."""
    folder = make_reader_folder(tmp_path)
    recipe = folder / "held.toml"
    recipe.write_text(RECIPE)
    for command in ("rehearse", "prepare", "train"):
        assert main([command, str(recipe)]) == 0, capsys.readouterr().err
    records = RunFolder(folder / "runs" / "held").steps()
    found = [record.retention["distill"] for record in records]
    assert len(found) == 8
    assert abs(found[0]) < 1e-4
    assert found[-1] > abs(found[0])


def test_text_without_stored_distributions_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_reader_folder(tmp_path)
    recipe = folder / "held.toml"
    text = RECIPE.replace(", top_k_logits = 8", "")
    recipe.write_text(re.sub("(?m)^on = .*", 'on = "all"', text))
    assert main(["plan", str(recipe)]) == 2
    told = capsys.readouterr().err
    assert "the base's distribution is not stored beside 'new', which is text of files" in told
    assert "set sources.said.rehearse.top_k_logits" in told
