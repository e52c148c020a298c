"""Low-rank matrices: nothing changes at the start, the base stays, the export is merged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rewarm.cli import main
from rewarm.errors import RecipeError
from rewarm.model.adapter import add_adapters, merge_adapters
from rewarm.model.head_loss import HeadLoss
from rewarm.model.load import load_base
from rewarm.model.trainable import is_adapter
from rewarm.planning.plan import load_plan
from rewarm.recipe.parameters import AdapterRecipe
from rewarm.records.run_folder import RunFolder
from tests.support.road import make_reader_folder
from tests.support.tiny_models import family_model

pytest.importorskip("peft", reason="peft is not installed")
FAMILIES = ("llama", "qwen2", "gpt_neox", "gpt2")


def new_model(family: str) -> Any:
    return family_model(family).double().eval()


def logits_of(model: nn.Module) -> Tensor:
    ids = torch.arange(24).view(2, -1)
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits


def disturb(model: nn.Module) -> None:
    """Give every adapter's matrices values, as training does."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_adapter(name):
                noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                parameter.add_(0.05 * noise)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_it_begins_as_the_base_and_merges_into_what_it_computed(family: str, kind: Any) -> None:
    model = new_model(family)
    expected, names = logits_of(model), set(model.state_dict())
    add_adapters(model, AdapterRecipe(kind=kind, rank=4), seed=3)
    assert torch.allclose(logits_of(model), expected, rtol=0, atol=1e-12)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if is_adapter(name)}
    disturb(model)
    moved = logits_of(model)
    assert (moved - expected).abs().max() > 1e-3
    merge_adapters(model)
    assert set(model.state_dict()) == names
    assert torch.allclose(logits_of(model), moved, rtol=0, atol=1e-9)


def test_lora_by_hand() -> None:
    """W + (alpha/rank)·B·A, and alpha/√rank where it is rank-stabilised."""
    for kind, scale in (("lora", 8 / 4), ("rslora", 8 / 2)):
        model = new_model("llama")
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        recipe = AdapterRecipe(kind=kind, rank=4, alpha=8, targets=["q_proj"])
        add_adapters(model, recipe, seed=3)
        disturb(model)
        matrices = dict(model.named_parameters())
        here = "model.layers.0.self_attn.q_proj"
        product = (
            matrices[f"{here}.lora_B.default.weight"] @ matrices[f"{here}.lora_A.default.weight"]
        )
        merge_adapters(model)
        merged = model.state_dict()
        torch.testing.assert_close(
            merged[f"{here}.weight"], before[f"{here}.weight"] + scale * product.detach()
        )
        others = before.keys() - {f"model.layers.{n}.self_attn.q_proj.weight" for n in range(9)}
        assert all(torch.equal(merged[name], before[name]) for name in others)


def test_its_values_follow_from_the_seed_alone() -> None:
    def matrices(seed: int) -> list[Tensor]:
        torch.manual_seed(seed * 7)
        model = new_model("llama")
        state = torch.get_rng_state()
        add_adapters(model, AdapterRecipe(rank=2), seed=5)
        assert torch.equal(torch.get_rng_state(), state)
        return [p.detach() for name, p in model.named_parameters() if is_adapter(name)]

    for one, other in zip(matrices(1), matrices(2), strict=True):
        assert torch.equal(one, other)


def test_the_loss_in_chunks_finds_head_and_hidden_states() -> None:
    model = new_model("llama").train()
    add_adapters(model, AdapterRecipe(rank=2), seed=5)
    assert HeadLoss().settle(model) is None


def test_a_target_that_is_not_there_is_told() -> None:
    with pytest.raises(RecipeError, match=r"use attention, mlp, or some of:.*q_proj"):
        add_adapters(new_model("llama"), AdapterRecipe(targets=["mlp", "w1"]), seed=1)


FLAGS = ["--base", "my-model", "--text", "my-text", "--budget", "2k"]


def test_a_run_with_an_adapter_from_the_recipe_to_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_reader_folder(tmp_path / "reader")
    monkeypatch.chdir(folder)
    rates = ["--peak-lr", "1e-2", "--final-lr", "1e-2"]
    assert main(["init", "r.toml", *FLAGS, *rates]) == 0
    adapter = ["-o", "parameters.adapter={rank=4, alpha=16}"]
    assert main(["prepare", "r.toml", *adapter]) == 0
    assert main(["train", "r.toml", *adapter, "--until-step", "4"]) == 0
    assert main(["train", "r.toml", *adapter]) == 0
    run = RunFolder(folder / "runs" / "r")
    checkpoint = max(run.checkpoints.iterdir())
    size = (checkpoint / "model.safetensors").stat().st_size
    assert size < (folder / "my-model" / "model.safetensors").stat().st_size / 2
    assert main(["export", str(run.path)]) == 0
    assert main(["evaluate", str(run.path)]) == 0
    assert main(["report", str(run.path)]) == 0
    exported, base = load_base(run.export), load_base(folder / "my-model")
    names = {name for name, _ in base.named_parameters()}
    assert {name for name, _ in exported.named_parameters()} == names
    config = json.loads((run.export / "config.json").read_text())
    assert "peft" not in json.dumps(config)
    moved = {
        name
        for (name, one), (_, other) in zip(
            base.named_parameters(), exported.named_parameters(), strict=True
        )
        if not torch.equal(one, other)
    }
    assert moved == {name for name in names if "_proj" in name}
    # Killed and resumed above; whole, it comes to the same bits.
    capsys.readouterr()
    whole = ["-o", "name=whole", *adapter]
    assert main(["train", "r.toml", *whole]) == 0
    one, other = (
        max((folder / "runs" / name / "checkpoints").iterdir()) / "model.safetensors"
        for name in ("r", "whole")
    )
    assert one.read_bytes() == other.read_bytes()
    assert load_plan(run.plan).science.parameters.adapter is not None
