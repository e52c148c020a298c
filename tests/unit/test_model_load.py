"""A base is loaded exactly as it lies on disk, or refused; and new ones follow from their seed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rewarm.errors import BaseModelError
from rewarm.model.load import load_base, save_weights
from rewarm.planning.model_facts import read_model_facts
from tests.support.tiny_models import FAMILIES, make_family_folder, make_tiny_base

WEIGHTS = "model.safetensors"


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny_base, tmp_path / "a base – naïve"))


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    changed = {key: value for key, value in {**config, **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(changed))


def refusal(folder: Path) -> str:
    with pytest.raises(BaseModelError) as caught:
        load_base(folder)
    return str(caught.value)


# What is loaded


def test_the_weights_are_those_on_disk_in_float32_and_training_mode(tiny_base: Path) -> None:
    model: Any = load_base(tiny_base)
    saved = load_file(tiny_base / WEIGHTS)
    loaded = model.state_dict()
    assert loaded.keys() - saved.keys() == {"lm_head.weight"}
    for name, tensor in saved.items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], tensor), name
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.training
    assert not model.config.use_cache
    assert model.config._attn_implementation == "sdpa"


def test_weights_saved_in_bfloat16_become_float32_unless_asked(tmp_path: Path) -> None:
    folder = make_tiny_base(tmp_path)
    change_weights(folder, lambda t: t.update({n: x.bfloat16() for n, x in t.items()}))
    change_config(folder, dtype="bfloat16")
    assert read_model_facts(folder).saved_dtype == "bfloat16"
    parameters = [next(iter(load_base(folder).parameters()))]
    parameters += [next(iter(load_base(folder, dtype=torch.bfloat16).parameters()))]
    assert [parameter.dtype for parameter in parameters] == [torch.float32, torch.bfloat16]
    assert torch.equal(*(parameter.float() for parameter in parameters))


def test_nothing_is_written_to_the_terminal(
    tiny_base: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    load_base(tiny_base)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("family", FAMILIES)
def test_families_agree_with_their_facts(family: str, tmp_path: Path) -> None:
    folder = make_family_folder(tmp_path, family)
    facts = read_model_facts(folder)
    model: Any = load_base(folder)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert facts.num_parameters == num_parameters
    assert facts.num_embedding_parameters == embedding.numel()
    assert facts.num_head_parameters == (0 if head is embedding else head.numel())
    assert facts.tied_embeddings == (head is embedding)
    assert facts.max_positions == 64
    assert facts.num_layers == 2
    # sdpa leaves out soft-capping, without a word in old versions.
    assert model.config._attn_implementation == ("eager" if family == "gemma2" else "sdpa")


def test_dropout_stays_as_the_config_has_it_and_is_told(tmp_path: Path) -> None:
    folder = make_family_folder(tmp_path, "gpt2", resid_pdrop=0.3, embd_pdrop=0.0)
    assert read_model_facts(folder).dropout == {"attn_pdrop": 0.1, "resid_pdrop": 0.3}
    model: Any = load_base(folder)
    assert model.transformer.h[0].mlp.dropout.p == 0.3


# What is refused


def test_a_family_is_imported_and_no_model_made(tiny_base: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from torch import nn; made = []\n"
        "real = nn.Module.__init__\n"
        "def noting(self, *given, **named):\n"
        "    made.append(type(self).__name__); real(self, *given, **named)\n"
        "nn.Module.__init__ = noting\n"
        "from rewarm.model.load import base_without_weights, import_family\n"
        "name = 'transformers.models.llama.modeling_llama'; before = name in sys.modules\n"
        "import_family(Path(sys.argv[1])); none = not any('Llama' in kind for kind in made)\n"
        "after = name in sys.modules; base_without_weights(Path(sys.argv[1]))\n"
        "print(before, after, none, any('Llama' in kind for kind in made))"
    )
    command = [sys.executable, "-c", script, str(tiny_base)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False", "True", "True", "True"]


def test_what_the_facts_refuse_is_refused(base: Path) -> None:
    change_config(base, auto_map={"AutoModelForCausalLM": "evil.Model"})
    assert "'auto_map' asks for code to be run" in refusal(base)


def test_every_tensor_that_does_not_fit_is_named(base: Path) -> None:
    def spoil(tensors: dict[str, Tensor]) -> None:
        del tensors["model.norm.weight"]
        del tensors["model.layers.0.mlp.up_proj.weight"]
        tensors["model.layers.7.mlp.up_proj.weight"] = torch.zeros(2)
        name = "model.layers.1.self_attn.q_proj.weight"
        tensors[name] = tensors[name][:5].clone()

    change_weights(base, spoil)
    text = refusal(base)
    assert "tensor model.norm.weight is missing from the checkpoint" in text
    assert "tensor model.layers.0.mlp.up_proj.weight is missing from the checkpoint" in text
    assert "tensor model.layers.7.mlp.up_proj.weight has no place in the model" in text
    assert (
        "tensor model.layers.1.self_attn.q_proj.weight has shape [5, 32] instead of [32, 32]"
        in text
    )


def test_the_head_of_an_untied_model_must_be_there(tmp_path: Path) -> None:
    folder = make_tiny_base(tmp_path, tied_embeddings=False)
    change_config(folder, tie_word_embeddings=None)
    change_weights(folder, lambda tensors: tensors.pop("lm_head.weight"))
    assert "tensor lm_head.weight is missing from the checkpoint" in refusal(folder)


def test_a_head_that_differs_from_the_embedding_it_is_tied_to(base: Path) -> None:
    embedding = "model.embed_tokens.weight"
    change_weights(base, lambda t: t.update({"lm_head.weight": t[embedding].clone()}))
    model: Any = load_base(base)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    change_weights(base, lambda t: t.update({"lm_head.weight": t[embedding] + 1}))
    assert "config.json: tie_word_embeddings is true, but the checkpoint holds" in refusal(base)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(base: Path, value: float) -> None:
    names = ["model.layers.1.mlp.down_proj.weight", "model.norm.weight"]

    def spoil(tensors: dict[str, Tensor]) -> None:
        for name in names:
            tensors[name].view(-1)[-1] = value

    change_weights(base, spoil)
    text = refusal(base)
    for name in names:
        assert f"tensor {name} holds values that are not finite" in text
    assert text.count("not finite") == 2


def test_a_family_that_transformers_does_not_know(base: Path) -> None:
    change_config(base, model_type="imaginary", architectures=["ImaginaryForCausalLM"])
    text = refusal(base)
    assert "transformers cannot load it (ValueError: " in text
    assert "`imaginary`" in text


def test_a_config_that_transformers_refuses(base: Path) -> None:
    change_config(base, hidden_act="imaginary")
    text = refusal(base)
    assert "transformers cannot load it (KeyError: " in text
    assert "imaginary" in text


# What is made


def test_a_new_model_follows_from_its_seed_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    first = make_tiny_base(tmp_path / "first", seed=5)
    drawn = torch.rand(1)
    second = make_tiny_base(tmp_path / "second", seed=5)
    third = make_tiny_base(tmp_path / "third", seed=6)
    files = {"config.json", "generation_config.json", WEIGHTS, "tokenizer.json"}
    assert {path.name for path in first.iterdir()} == files | {"tokenizer_config.json"}
    for name in files:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert (first / WEIGHTS).read_bytes() != (third / WEIGHTS).read_bytes()
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), drawn)


def test_transformers_finds_the_tokenizer_of_a_new_model(tiny_base: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    ids = tokenizer("Every document begins")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id == read_model_facts(tiny_base).bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == "Every document begins"
    assert tokenizer.eos_token_id == read_model_facts(tiny_base).eos_token_id


@pytest.mark.parametrize("tied", [True, False])
def test_saving_gives_the_same_bytes_and_ties_once(tmp_path: Path, tied: bool) -> None:
    model = load_base(make_tiny_base(tmp_path / "base", tied_embeddings=tied))
    for name in ("first", "second"):
        save_weights(model, tmp_path / name)
    saved = [(tmp_path / name / WEIGHTS).read_bytes() for name in ("first", "second")]
    assert saved[0] == saved[1]
    names = load_file(tmp_path / "first" / WEIGHTS).keys()
    assert ("lm_head.weight" in names) is not tied
