"""Tensors read and written a stretch at a time: names, shards, ties, and whatever is wrong."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import rewarm.model.weight_stream as stream
from rewarm.errors import BaseModelError, Problems, UserError
from rewarm.model.average import Linear, Merge, Spherical, fill_merged, weighted_sum, write_merged
from rewarm.model.load import load_base
from rewarm.model.weight_folder import (
    WeightFolder,
    note_other_network,
    note_other_tensors,
    note_other_vocabulary,
)
from rewarm.model.weight_stream import headers_to_store, stretches, tensor_digest
from tests.support.memory_weights import MemoryWeights, merged
from tests.support.tiny_models import make_family_folder, make_tiny_base


def copy_of(base: Path, folder: Path) -> Path:
    return Path(shutil.copytree(base, folder))


def change_tensors(folder: Path, **changes: Any) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name, value in changes.items():
        name = name.replace("__", ".")
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    save_file(tensors, path, metadata={"format": "pt"})


def problems_of(folder: Path) -> str:
    with pytest.raises(BaseModelError) as caught:
        WeightFolder.read(folder)
    return str(caught.value)


# What is read is what is there


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gpt_neox", "gpt2", "olmo2"])
def test_every_tensor_of_a_family_is_read_in_stretches(
    tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "STRETCH", 1000)
    folder = make_family_folder(tmp_path / "m", family)
    form = WeightFolder.read(folder)
    own: dict[str, Tensor] = load_base(folder).state_dict()
    with form.open("m") as weights:
        for name, header in weights.headers.items():
            parts = [weights.read(name, start, stop) for start, stop in stretches(header.size)]
            assert len(parts) == max(1, -(-header.size // 1000))
            assert torch.equal(torch.cat(parts).view(header.shape), own[name])


def test_shards_go_in_and_the_same_shards_come_out(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "base", tied_embeddings=False)
    sharded = tmp_path / "sharded"
    load_base(base).save_pretrained(sharded, max_shard_size="40KB")  # type: ignore[operator]
    shutil.copy(base / "tokenizer.json", sharded)
    names = sorted(path.name for path in sharded.glob("*.safetensors"))
    assert len(names) > 2
    form = WeightFolder.read(sharded)
    out = tmp_path / "out"
    out.mkdir()
    with form.open("m") as weights:
        digests = write_merged(Merge((weights,), Linear((1.0,))), out, form.layout())
    assert sorted(path.name for path in out.glob("*.safetensors")) == names
    before = json.loads((sharded / "model.safetensors.index.json").read_text())
    after = json.loads((out / "model.safetensors.index.json").read_text())
    assert after["weight_map"] == before["weight_map"]
    assert after["metadata"]["total_size"] == before["metadata"]["total_size"]
    own: dict[str, Tensor] = load_base(base).state_dict()
    for name in names:
        for key, tensor in load_file(out / name).items():
            assert torch.equal(tensor, own[key])
            assert digests[key] == tensor_digest(tensor)


def test_what_is_stored_twice_for_a_tie_is_one_tensor(tmp_path: Path, tiny_base: Path) -> None:
    twice = copy_of(tiny_base, tmp_path / "twice")
    embedding = load_file(tiny_base / "model.safetensors")["model.embed_tokens.weight"]
    change_tensors(twice, lm_head__weight=embedding.clone())
    form = WeightFolder.read(twice)
    with form.open("m") as weights:
        assert "lm_head.weight" not in weights.headers
    assert len([t for file in form.layout() for t in file.tensors]) == len(form.places) + 1
    change_tensors(twice, lm_head__weight=embedding + 1)
    with pytest.raises(BaseModelError, match="is tied to another tensor, and the two are stored"):
        form.open("m")


# What is refused


def test_tensors_that_do_not_fit_are_all_listed(tmp_path: Path, tiny_base: Path) -> None:
    folder = copy_of(tiny_base, tmp_path / "m")
    change_tensors(
        folder,
        model__norm__weight=torch.zeros(31),
        model__layers__0__mlp__up_proj__weight=None,
        model__extra__weight=torch.zeros(3),
    )
    told = problems_of(folder)
    assert "tensor model.norm.weight has shape [31] instead of [32]" in told
    assert "tensor model.layers.0.mlp.up_proj.weight is not stored under this name" in told
    assert "tensor model.extra.weight is no tensor of the model" in told


def test_names_that_the_library_changes_are_refused_with_the_way_out(tmp_path: Path) -> None:
    """As GPT-2 lies on the hub: without the prefix, with masks among the weights."""
    folder = make_family_folder(tmp_path / "m", "gpt2")
    path = folder / "model.safetensors"
    tensors = {k.removeprefix("transformer."): v for k, v in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    told = problems_of(folder)
    assert "tensor transformer.wte.weight is not stored under this name" in told
    assert "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new folder)" in told


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path, tiny_base: Path) -> None:
    folder = copy_of(tiny_base, tmp_path / "m")
    form = WeightFolder.read(folder)
    with form.open("m") as weights:
        last = form.layout()[0].tensors[-1]
        with (folder / "model.safetensors").open("r+b") as file:
            file.truncate((folder / "model.safetensors").stat().st_size - 8)
        with pytest.raises(BaseModelError, match="it became shorter while it was read"):
            weights.read(last.name, 0, last.header.size)


def test_values_that_are_not_finite_are_named_by_model_and_tensor() -> None:
    good = {"a": torch.ones(3), "b": torch.ones(2, 2), "c": torch.ones(1)}
    one = MemoryWeights({**good, "a": torch.tensor([1.0, float("nan"), 1.0])}, "one")
    other = MemoryWeights({**good, "b": torch.full((2, 2), float("inf"))}, "other")
    for rule in (Linear((0.5, 0.5)), Linear((1.0, 0.0)), Spherical(0.5)):
        with pytest.raises(UserError) as caught:
            merged(Merge((one, other), rule))
        assert [(p.where, p.what) for p in caught.value.problems] == [
            ("one", "tensor a holds values that are not finite"),
            ("other", "tensor b holds values that are not finite"),
        ]


def test_sums_that_their_type_cannot_hold_are_named() -> None:
    one = MemoryWeights({"a": torch.tensor([6e4]), "b": torch.tensor([1.0])})
    with pytest.raises(UserError, match=r"--dtype: tensor a reaches 1\.2e\+05, which float16"):
        merged(Merge((one,), Linear((2.0,))), torch.float16)
    assert merged(Merge((one,), Linear((2.0,))), torch.bfloat16)["b"].tolist() == [2.0]


def test_weights_that_are_all_zero_sum_to_nothing() -> None:
    with pytest.raises(ValueError, match="every weight is 0"):
        weighted_sum([torch.ones(2)], [0.0])


def test_a_model_is_filled_as_the_files_would_be_written(tmp_path: Path) -> None:
    """Rounded to the stored type, so that what a sweep measures is what is written."""
    bases = [make_tiny_base(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    forms = [WeightFolder.read(base) for base in bases]
    layout = forms[0].layout(torch.bfloat16)
    out = copy_of(bases[0], tmp_path / "out")
    model = load_base(bases[0])
    with ExitStack() as stack:
        opened = tuple(stack.enter_context(form.open("m")) for form in forms)
        merge = Merge(opened, Linear((0.25, 0.75)))
        write_merged(merge, out, layout)
        fill_merged(merge, model, headers_to_store(layout))
    written: dict[str, Tensor] = load_base(out).state_dict()
    assert all(torch.equal(tensor, written[name]) for name, tensor in model.state_dict().items())


# Whether two folders can be one model


def test_models_that_differ_in_tensors(tmp_path: Path) -> None:
    first = MemoryWeights({"a": torch.ones(3), "b": torch.ones(2)}, "first")
    other = MemoryWeights({"b": torch.ones(2, 1), "c": torch.ones(1)}, "other")
    problems = Problems()
    note_other_tensors(first, other, problems)
    with pytest.raises(UserError) as caught:
        problems.raise_as(UserError)
    assert [p.what for p in caught.value.problems] == [
        "tensor a of first is missing",
        "tensor b has shape [2, 1], in first [2]",
        "tensor c is not in first",
    ]


def test_another_network_is_told_by_every_key(tmp_path: Path, tiny_base: Path) -> None:
    other = copy_of(tiny_base, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]  # another spelling of it
    (other / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.1}))
    forms = (WeightFolder.read(tiny_base), WeightFolder.read(other))
    problems = Problems()
    assert note_other_network(*forms, ("first", "other"), problems) == []
    assert not len(problems)

    config |= {"rope_theta": 5e5, "rms_norm_eps": 1e-3, "max_position_embeddings": 4096}
    (other / "config.json").write_text(json.dumps(config))
    forms = (WeightFolder.read(tiny_base), WeightFolder.read(other))
    (warning,) = note_other_network(*forms, ("first", "other"), problems)
    assert warning == ("other: config.json has max_position_embeddings = 4096, that of first 128")
    with pytest.raises(UserError) as caught:
        problems.raise_as(UserError)
    told = [problem.what for problem in caught.value.problems]
    assert len(told) == 2
    assert "rms_norm_eps = 0.001, that of first 1e-06" in told[0]
    assert "rope_parameters" in told[1]


def test_another_vocabulary(tmp_path: Path, tiny_base: Path) -> None:
    other = copy_of(tiny_base, tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    by_id = {id_: token for token, id_ in vocabulary.items()}
    # One id is free for an added token; two others change places.
    tokenizer["added_tokens"][1]["content"] = "<|im_end|>"
    del vocabulary[by_id[1]]
    vocabulary["<|im_end|>"] = 1
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    problems = Problems()
    told = note_other_vocabulary(tiny_base, other, ("first", "other"), problems)
    assert told == ["other: 1 added tokens are others than in first"]
    assert not len(problems)

    vocabulary[by_id[10]], vocabulary[by_id[11]] = 11, 10
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    note_other_vocabulary(tiny_base, other, ("first", "other"), problems)
    with pytest.raises(UserError, match=r"2 ids are other tokens than in first \(10: '"):
        problems.raise_as(UserError)
