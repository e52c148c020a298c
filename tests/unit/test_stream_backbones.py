"""Backbones of transformers, tiny and random, give features of the width that the head expects."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import RevisionNotFoundError
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    EfficientNetConfig,
    EfficientNetModel,
    Gemma3Config,
    Gemma3Model,
    MobileNetV2Config,
    MobileNetV2Model,
    OPTConfig,
    OPTModel,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetModel,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTMAEConfig,
    ViTMAEModel,
    ViTModel,
)

from rewarm.cli import main
from rewarm.errors import BaseModelError, CorpusError
from rewarm.stages import stream_backbones, stream_runs
from rewarm.stages.stream_backbones import Backbones
from rewarm.stream.experiment import read_stream
from rewarm.stream.inputs import prepare_inputs
from rewarm.stream.network import Pretrained, build_network
from rewarm.stream.sections import BackboneRecipe, SourceRecipe
from rewarm.stream.source import Examples
from tests.support.streams import EXPERIMENT, write_images
from tests.support.tiny_models import make_tiny_base

_SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 8,
}


_TEXT = {
    "vocab_size": 64,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "eos_token_id": 63,
}
_IMAGE = {"pixel_values": torch.zeros(1, 3, 16, 16)}


def _models() -> dict[str, Any]:
    return {
        "vit": ViTModel(ViTConfig(**_SIZES)),
        "clip": CLIPVisionModel(CLIPVisionConfig(**_SIZES)),
        "resnet": ResNetModel(
            ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
        ),
    }


@pytest.mark.parametrize("kind", ["vit", "clip", "resnet"])
def test_features_are_the_mean_of_the_last_hidden_states(kind: str, tmp_path: Path) -> None:
    model = _models()[kind]
    model.save_pretrained(tmp_path)
    drawn = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    examples = Examples(drawn, (), np.arange(3), np.zeros(3, dtype=np.bool_), ("a", "b", "c"))
    recipe = BackboneRecipe(path=str(tmp_path))
    inputs = prepare_inputs(examples, SourceRecipe(path="x", kind="image"), recipe).rows(
        np.arange(3)
    )
    network = build_network(recipe, 3, seed=1, example=inputs).eval()
    pixels = torch.from_numpy(drawn.transpose(0, 3, 1, 2) / 127.5 - 1).float()
    torch.testing.assert_close(inputs["pixel_values"], pixels)
    with torch.no_grad():
        hidden = model.eval()(pixel_values=pixels).last_hidden_state
        wanted = hidden.flatten(2).mean(2) if kind == "resnet" else hidden.mean(1)
        torch.testing.assert_close(network.features(inputs), wanted)
        assert network(inputs).shape == (3, 3)


@pytest.mark.parametrize("kind", ["vit", "clip", "resnet"])
def test_weights_drawn_anew_hang_on_the_seed_alone(kind: str, tmp_path: Path) -> None:
    model = _models()[kind]
    model.save_pretrained(tmp_path)
    recipe = BackboneRecipe(path=str(tmp_path), from_scratch=True)
    assert recipe.learning_rate == 0.1
    first, again, other = (
        next(iter(build_network(recipe, 2, seed, _IMAGE).backbone.parameters()))
        for seed in (1, 1, 2)
    )
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)
    assert not torch.equal(first, next(iter(model.parameters())))


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        build_network(BackboneRecipe(path=str(tmp_path)), 2, 1, _IMAGE)


def _wide_images() -> dict[str, Any]:
    """Models whose configurations do not say how wide what they make of an image is."""
    whole = {"text_config": {**_TEXT, "max_position_embeddings": 8}, "vision_config": _SIZES}
    return {
        "mobile": MobileNetV2Model(MobileNetV2Config(depth_multiplier=0.25)),
        "efficient": EfficientNetModel(
            EfficientNetConfig(image_size=32, width_coefficient=0.25, hidden_dim=320)
        ),
        "clip": CLIPModel(CLIPConfig(**whole, projection_dim=8)),
        "siglip": SiglipModel(SiglipConfig(**whole)),
        "gemma": Gemma3Model(
            Gemma3Config(
                text_config={**_TEXT, "num_key_value_heads": 1, "head_dim": 8},
                vision_config={**_SIZES, "vision_use_head": False},
                mm_tokens_per_image=1,
            )
        ),
    }


@pytest.mark.parametrize("kind", ["mobile", "efficient", "clip", "siglip", "gemma"])
@pytest.mark.parametrize("from_scratch", [False, True])
def test_the_head_is_as_wide_as_what_the_backbone_makes_of_an_image(
    kind: str, from_scratch: bool, tmp_path: Path
) -> None:
    model = _wide_images()[kind].eval()
    size = 64 if kind == "efficient" else 16
    image = {"pixel_values": torch.rand(1, 3, size, size)}
    model.save_pretrained(tmp_path)
    recipe = BackboneRecipe(path=str(tmp_path), from_scratch=from_scratch)
    network = build_network(recipe, 2, 1, image).eval()
    tower = {"clip": "vision_model", "siglip": "vision_model", "gemma": "vision_tower"}.get(kind)
    whole = model if tower is None else getattr(model, tower)
    with torch.no_grad():
        hidden = whole(pixel_values=image["pixel_values"]).last_hidden_state
        wanted = hidden.flatten(2).mean(2) if hidden.dim() == 4 else hidden.mean(1)
        found = network.features(image)
        assert network(image).shape == (1, 2)
    assert found.shape == wanted.shape
    if not from_scratch:
        torch.testing.assert_close(found, wanted)


def _wide_texts() -> dict[str, Any]:
    sizes = {"vision_config": _SIZES}
    return {
        "clip": CLIPModel(CLIPConfig(text_config=_TEXT, projection_dim=8, **sizes)),
        "clip-text": CLIPTextModel(CLIPTextConfig(**_TEXT)),
        "opt": OPTModel(
            OPTConfig(
                vocab_size=64,
                hidden_size=16,
                word_embed_proj_dim=8,
                ffn_dim=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=32,
                do_layer_norm_before=False,
            )
        ),
    }


@pytest.mark.parametrize("kind", ["clip", "clip-text", "opt"])
@pytest.mark.parametrize("from_scratch", [False, True])
def test_the_head_is_as_wide_as_what_the_backbone_makes_of_a_text(
    kind: str, from_scratch: bool, tmp_path: Path
) -> None:
    model = _wide_texts()[kind].eval()
    model.save_pretrained(tmp_path)
    ids = torch.tensor([[5, 6, 7, 63]])
    text = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    recipe = BackboneRecipe(path=str(tmp_path), from_scratch=from_scratch)
    network = build_network(recipe, 2, 1, text).eval()
    with torch.no_grad():
        wanted = (model.text_model if kind == "clip" else model)(**text).last_hidden_state.mean(1)
        found = network.features(text)
        assert network(text).shape == (1, 2)
    assert found.shape == wanted.shape
    if not from_scratch:
        torch.testing.assert_close(found, wanted)


def test_drawn_heads_do_not_hang_on_what_a_backbone_draws_while_it_looks(tmp_path: Path) -> None:
    config = ViTConfig(**_SIZES)
    ViTModel(config).save_pretrained(tmp_path / "vit")
    # It masks patches by lot, in evaluation mode too.
    ViTMAEModel(ViTMAEConfig(**_SIZES)).save_pretrained(tmp_path / "mae")
    vit, mae = (
        build_network(BackboneRecipe(path=str(tmp_path / name)), 2, 1, _IMAGE)
        for name in ("vit", "mae")
    )
    torch.testing.assert_close(vit.head.weight, mae.head.weight, rtol=0, atol=0)


def test_a_model_without_hidden_states_is_told() -> None:
    with pytest.raises(ValueError, match="Linear returns no last hidden states"):
        Pretrained(torch.nn.Linear(4, 4))(input=torch.zeros(1, 4))


# --- texts ---

_TEXTS = ("add", "The quick brown fox jumps over the lazy dog.", "a model")


def _text_backbone(kind: str, folder: Path) -> Path:
    base = make_tiny_base(folder / "llama")
    if kind == "llama":
        return base
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    tokenizer.add_special_tokens({"pad_token": "</s>"})
    tokenizer.save_pretrained(folder / "bert")
    torch.manual_seed(0)
    sizes = {name: _SIZES[name] for name in list(_SIZES)[:4]}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=12, **sizes)
    BertModel(config).save_pretrained(folder / "bert")
    return folder / "bert"


def _of_texts() -> Examples:
    return Examples(None, _TEXTS, np.arange(3), np.zeros(3, dtype=np.bool_), ("a", "b", "c"))


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_features_of_a_text_are_the_mean_over_its_own_tokens(kind: str, tmp_path: Path) -> None:
    path = _text_backbone(kind, tmp_path)
    recipe, source = BackboneRecipe(path=str(path)), SourceRecipe(path="x", kind="text")
    inputs = prepare_inputs(_of_texts(), source, recipe)
    network = build_network(recipe, 3, 1, inputs.rows(np.arange(1))).eval()
    model: Any = network.backbone
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    with torch.no_grad():
        together = network.features(inputs.rows(np.arange(3)))
        for row, text in enumerate(_TEXTS):
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            if kind == "bert":
                assert row != 1 or ids.shape[1] > 12
                ids = ids[:, :12]  # it has no more positions
            wanted = model.model(input_ids=ids).last_hidden_state.mean(1)
            torch.testing.assert_close(together[row : row + 1], wanted, rtol=0, atol=1e-5)


def test_features_from_scratch_do_not_hang_on_the_texts_beside_them() -> None:
    recipe = BackboneRecipe(small="bytes")
    inputs = prepare_inputs(_of_texts(), SourceRecipe(path="x", kind="text"), recipe)
    network = build_network(recipe, 3, 1, inputs.rows(np.arange(1)))
    with torch.no_grad():
        together = network.features(inputs.rows(np.arange(3)))
        alone = network.features(inputs.rows(np.array([0])))
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-6)


def test_a_stream_over_a_causal_model(tmp_path: Path) -> None:
    path = _text_backbone("llama", tmp_path)
    rows = [{"text": word * (3 + n), "label": word} for word in "abcd" for n in range(10)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "e.toml").write_text(
        'name = "t"\nseeds = 1\n[source]\npath = "a.jsonl"\nkind = "text"\n'
        "[scenario]\ntasks = 2\nmode = 'offline'\nbatch = 4\n"
        f'[backbones.llama]\npath = "{path}"\nlr = 0.1\n[learners.er]\nalgorithm = "er"\n'
    )
    assert main(["stream", str(tmp_path / "e.toml")]) == 0
    result = json.loads((tmp_path / "streams/t/result.json").read_text())
    assert result["cells"][0]["figures"]["final"]["mean"] > 0.4  # chance is 0.25


def test_an_encoder_with_a_decoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(BaseModelError, match="an encoder and a decoder"):
        build_network(BackboneRecipe(path=str(tmp_path)), 2, 1, _IMAGE)


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_all_that_cannot_be_used_is_told_before_anything_runs(
    more: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _text_backbone("bert", tmp_path)
    write_images(tmp_path / "a.parquet")
    (tmp_path / "t5").mkdir()
    (tmp_path / "t5/config.json").write_text('{"model_type": "t5"}')
    backbones = "".join(f'[backbones.{n}]\npath = "{n}"\n' for n in ("bert", "t5"))
    learners = 'er = { algorithm = "er" }\n'
    text = EXPERIMENT.replace("[learners]\n", f"{backbones}[learners]\n{learners}")
    (tmp_path / "e.toml").write_text(text)
    assert main(["stream", str(tmp_path / "e.toml"), *more]) == 2
    said = capsys.readouterr().err
    assert "backbones.bert: it makes nothing of an image" in said
    assert f"backbones.t5.path: {tmp_path}/t5: it cannot be loaded (t5 is an encoder and a" in said
    assert not list(tmp_path.glob("streams/*/runs/*"))


def test_a_backbone_whose_runs_are_done_is_not_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "a.parquet")
    path = tmp_path / "e.toml"
    path.write_text(EXPERIMENT + 'er = { algorithm = "er" }\n')
    assert main(["stream", str(path)]) == 0
    tried: list[str] = []
    monkeypatch.setattr(stream_runs, "try_backbone", lambda name, *_: tried.append(name))
    assert main(["stream", str(path)]) == 0
    assert tried == []
    next(tmp_path.glob("streams/*/runs/*/*/seed-2.json")).unlink()
    assert main(["stream", str(path)]) == 0
    assert tried == ["scratch"]


# --- which weights ---


def _cache(hub: Path, commit: str, model: Any, *, branch: str = "main") -> None:
    """Put a commit of org/model into a cache of the hub, as its client would."""
    folder = hub / "models--org--model"
    model.save_pretrained(folder / "snapshots" / commit)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / branch).write_text(commit)


def _of_hub(folder: Path, *lines: str) -> Path:
    backbone = "\n".join(('path = "org/model"', *lines))
    text = EXPERIMENT.replace('small = "cnn"', backbone).replace("seeds = 2", "seeds = 1")
    write_images(folder / "a.parquet")
    (folder / "e.toml").write_text(text + 'er = { algorithm = "er" }\n')
    return folder / "e.toml"


_FIRST, _SECOND = "1" * 40, "2" * 40


_AGAIN = "other weights or settings: it is done again (the weights of the backbone changed)"


def _told_again(capsys: pytest.CaptureFixture[str]) -> bool:
    return _AGAIN in capsys.readouterr().out


def test_what_a_branch_was_at_the_first_run_is_held_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    path, one = _of_hub(tmp_path), ViTModel(ViTConfig(**_SIZES))
    _cache(tmp_path / "hub", _FIRST, one)
    assert main(["stream", str(path), "--dry-run"]) == 0
    commits = tmp_path / "streams/made-up/commits.json"
    assert not commits.exists()
    assert main(["stream", str(path)]) == 0
    assert json.loads(commits.read_text()) == {"org/model": _FIRST}
    told = capsys.readouterr().out
    assert f"backbones.scratch: org/model is commit {_FIRST}, by {commits}" in told
    _cache(tmp_path / "hub", _SECOND, ViTModel(ViTConfig(**_SIZES)))
    assert main(["stream", str(path)]) == 0
    assert not _told_again(capsys)
    commits.unlink()
    assert main(["stream", str(path)]) == 0
    assert _told_again(capsys)
    assert json.loads(commits.read_text()) == {"org/model": _SECOND}


@pytest.mark.parametrize("text", ["[]", '{"org/model": 1}', "{"])
def test_commits_that_are_damaged_are_told(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _of_hub(tmp_path)
    commits = tmp_path / "streams/made-up/commits.json"
    commits.parent.mkdir(parents=True)
    commits.write_text(text)
    assert main(["stream", str(path)]) == 2
    assert f"{commits}: " in capsys.readouterr().err


def test_weights_that_are_not_needed_are_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "hub" / _FIRST
    ViTModel(ViTConfig(**_SIZES)).save_pretrained(snapshot)
    asked: list[tuple[str | None, bool]] = []

    def download(hub_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((revision, "*.safetensors" in allow_patterns))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    path = _of_hub(tmp_path)
    assert main(["stream", str(path), "--dry-run"]) == 0
    assert asked == [(None, False), (_FIRST, False)]
    backbones = Backbones(read_stream(path))
    backbones.recipe("scratch", with_weights=True)
    assert asked[2:] == [(None, False), (_FIRST, True)]
    path = _of_hub(tmp_path, "from_scratch = true")
    Backbones(read_stream(path)).recipe("scratch", with_weights=True)
    assert not any(weights for _, weights in asked[4:])


def test_a_revision_is_what_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub))
    one, two = (ViTModel(ViTConfig(**_SIZES)) for _ in range(2))
    _cache(hub, _FIRST, one, branch="old")
    _cache(hub, _SECOND, two)
    for revision, model in (("old", one), (_FIRST, one), ("main", two), (None, two)):
        lines = () if revision is None else (f'revision = "{revision}"',)
        written = read_stream(_of_hub(tmp_path, *lines))
        backbones = Backbones(written)
        commit = _FIRST if model is one else _SECOND
        assert backbones.identity("scratch") == f"org/model@{commit}"
        found = backbones.recipe("scratch", with_weights=True)
        weight = next(build_network(found, 2, 1, _IMAGE).backbone.parameters())
        torch.testing.assert_close(weight, next(model.parameters()), rtol=0, atol=0)
    path = _of_hub(tmp_path, f'revision = "{_FIRST}"')
    assert main(["stream", str(path)]) == 0
    assert not (tmp_path / "streams/made-up/commits.json").exists()  # it is in the file already
    shutil.rmtree(hub)
    assert main(["stream", str(path)]) == 0  # what is done needs no hub
    assert not _told_again(capsys)


@pytest.mark.parametrize("name", ["/no/such/folder", "./models/x", "~/x", "models/deep/x", "../x"])
def test_a_folder_that_is_not_there_is_told_as_that(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _of_hub(tmp_path)
    path.write_text(path.read_text().replace("org/model", name))
    assert main(["stream", str(path), "--dry-run"]) == 2
    folder = tmp_path / Path(name).expanduser()
    assert f"backbones.scratch.path: there is no folder {folder}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("a.parquet", "", "path: {}/a.parquet is a file"),
        ("here", 'revision = "v2"', "revision: {}/here is a folder, and only models of the hub"),
        ("bert-base", "", "path: there is no folder {}/bert-base\n    → give a folder in"),
    ],
)
def test_what_leads_to_no_model_is_told(
    name: str, line: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _of_hub(tmp_path, line)
    (tmp_path / "here").mkdir()
    path.write_text(path.read_text().replace("org/model", name))
    assert main(["stream", str(path)]) == 2
    assert f"backbones.scratch.{said.format(tmp_path)}" in capsys.readouterr().err


def test_what_the_hub_has_not_is_told_as_of_any_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    path = _of_hub(tmp_path, 'revision = "v2"')
    assert main(["stream", str(path)]) == 1
    said = capsys.readouterr().err
    assert "the hub cannot be reached for 'org/model'" in said
    assert "give its folder as backbones.scratch.path" in said

    def refuse(*_: object, **__: object) -> None:
        raise RevisionNotFoundError("gone", response=Mock())

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    assert main(["stream", str(path)]) == 2
    said = capsys.readouterr().err
    assert "backbones.scratch.revision: org/model has no revision 'v2'" in said


def test_a_backbones_folder_counts_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "files").mkdir()
    path = _of_hub(tmp_path / "files")
    path.write_text(path.read_text().replace("org/model", "model"))
    (tmp_path / "files" / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    backbones = Backbones(read_stream(Path("files/e.toml")))
    found = backbones.recipe("scratch", with_weights=True)
    assert found.path == str(tmp_path / "files" / "model")


def test_runs_without_a_revision_hang_on_what_they_did_before_there_were_any() -> None:
    assert "revision" not in BackboneRecipe(path="org/model").claim()
    assert BackboneRecipe(path="org/model", revision="v1").claim()["revision"] == "v1"


def test_a_file_that_cannot_be_read_is_told_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").touch()

    def refuse(folder: Path, names: list[str]) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder / names[0]))

    monkeypatch.setattr(stream_backbones, "file_entries", refuse)
    with pytest.raises(CorpusError, match=r"/weights: it cannot be read \(Permission denied\)"):
        stream_backbones.folder_content(tmp_path)
