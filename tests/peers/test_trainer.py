"""The step after a checkpoint of a real transformers Trainer is the Trainer's own next step."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rewarm.distributed.world import ALONE
from rewarm.recipe.base import BaseRecipe
from rewarm.stages.optimizer_state import find_optimizer_state
from rewarm.training.base_moments import take_over_moments
from rewarm.training.optimizer import (
    build_optimizer,
    masked_step,
    set_learning_rate,
    trainable_parameters,
)
from tests.support.optimizer_states import LR, RECIPE, new_model

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("accelerate") is None,
        reason="a Trainer needs accelerate, which rewarm does not: `make test-peers` has it",
    ),
    pytest.mark.filterwarnings("ignore"),
]

IDS = torch.arange(16) * 7 % 61


def without_dropout(family: str) -> nn.Module:
    model = new_model(family)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def trained_by_trainer(family: str, folder: Path) -> nn.Module:
    """Take six steps on one text, a checkpoint after the fifth; return the model after them."""
    from transformers import Trainer, TrainingArguments

    model = without_dropout(family)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=6,
        save_steps=5,
        per_device_train_batch_size=2,
        learning_rate=LR,
        lr_scheduler_type="constant",
        weight_decay=RECIPE.weight_decay,
        adam_beta1=RECIPE.betas[0],
        adam_beta2=RECIPE.betas[1],
        adam_epsilon=RECIPE.eps,
        max_grad_norm=0.5,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )
    data = [{"input_ids": IDS, "labels": IDS}] * 32
    Trainer(model=model, args=arguments, train_dataset=data).train()
    return model


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2"])
def test_our_step_is_the_trainers(tmp_path: Path, family: str) -> None:
    trained = trained_by_trainer(family, tmp_path)
    left = tmp_path / "checkpoint-5"
    base = BaseRecipe(path=str(left), optimizer_state=str(left))
    facts = find_optimizer_state(base, tmp_path, left)
    assert facts is not None
    assert facts.num_updates == (5, 5)

    model = without_dropout(family)
    model.load_state_dict(load_file(left / "model.safetensors"), strict=False)
    optimizer = build_optimizer(trainable_parameters(model), RECIPE)
    taken = take_over_moments(facts, model, optimizer, ALONE)
    assert (taken.most_updates, taken.betas) == (5, RECIPE.betas)
    loss: Tensor = model(IDS.expand(2, -1), labels=IDS.expand(2, -1)).loss
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    set_learning_rate(optimizer, LR)
    masked_step(optimizer, skip=torch.tensor(False))

    expected = dict(trained.named_parameters())
    for name, parameter in model.named_parameters():
        # Both take the loss in float32, by different divisions; a rate is 1e-2.
        assert (parameter - expected[name]).abs().max() <= 1e-8, name
