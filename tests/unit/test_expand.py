"""`rewarm expand`: a deeper model that computes the same, of which the copies alone train."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

import rewarm.export.expanded as expanded_room
from rewarm.artifacts import file_sha256
from rewarm.cli import main
from rewarm.model.expand import evenly, every_nth, write_expanded
from rewarm.model.load import load_base
from rewarm.planning.model_facts import EXPANDED_LAYERS, read_model_facts
from rewarm.records.run_folder import RunFolder
from tests.support.road import make_reader_folder
from tests.support.tiny_models import make_family_folder, make_tiny_base

# What each copy adds nothing by: (tensor within a layer, the value that fills it).
SILENT = {
    "llama": {"self_attn.o_proj.weight": 0, "mlp.down_proj.weight": 0},
    "qwen2": {"self_attn.o_proj.weight": 0, "mlp.down_proj.weight": 0},
    "olmo2": {"post_attention_layernorm.weight": 0, "post_feedforward_layernorm.weight": 0},
    "gemma2": {"post_attention_layernorm.weight": -1, "post_feedforward_layernorm.weight": -1},
    "olmo3": {"post_attention_layernorm.weight": 0, "post_feedforward_layernorm.weight": 0},
    "gemma3_text": {
        "post_attention_layernorm.weight": -1,
        "post_feedforward_layernorm.weight": -1,
    },
    "smollm3": {"self_attn.o_proj.weight": 0, "mlp.down_proj.weight": 0},
    "gemma": {"self_attn.o_proj.weight": 0, "mlp.down_proj.weight": 0},
    "gpt_neox": {
        "attention.dense.weight": 0,
        "attention.dense.bias": 0,
        "mlp.dense_4h_to_h.weight": 0,
        "mlp.dense_4h_to_h.bias": 0,
    },
    "gpt2": {
        "attn.c_proj.weight": 0,
        "attn.c_proj.bias": 0,
        "mlp.c_proj.weight": 0,
        "mlp.c_proj.bias": 0,
    },
}
PREFIX = {"gpt_neox": "gpt_neox.layers", "gpt2": "transformer.h"}


def family_folder(folder: Path, family: str, num_layers: int = 3, **changes: Any) -> Path:
    key = "n_layer" if family == "gpt2" else "num_hidden_layers"
    return make_family_folder(folder, family, **{key: num_layers}, **changes)


def logits_of(folder: Path) -> Tensor:
    """As a user of the library gets them, on more tokens than a sliding window holds."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    ids = torch.arange(80).view(2, 40) * 7 % 320
    with torch.no_grad():
        logits: Tensor = model.eval()(input_ids=ids, use_cache=False).logits
    return logits


def weights(folder: Path) -> dict[str, Tensor]:
    return {
        name: tensor
        for path in folder.glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


def config_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text()))


@pytest.mark.parametrize("family", SILENT)
def test_it_computes_what_its_base_does(family: str, tmp_path: Path) -> None:
    """Layers 0, 1, copy of 1, 2: logits to the bit, every tensor of the base, copies but for
    what silences them."""
    base, out = family_folder(tmp_path / "base", family), tmp_path / "out"
    assert main(["expand", str(base), "--every", "2", "--output", str(out)]) == 0
    assert torch.equal(logits_of(out), logits_of(base))
    before, after = weights(base), weights(out)
    layers = PREFIX.get(family, "model.layers") + "."
    expected: dict[str, Tensor] = {}
    for name, tensor in before.items():
        if not name.startswith(layers):
            expected[name] = tensor
            continue
        number, _, rest = name.removeprefix(layers).partition(".")
        for new in {"0": [0], "1": [1, 2], "2": [3]}[number]:
            filled = SILENT[family].get(rest) if new == 2 else None
            expected[f"{layers}{new}.{rest}"] = (
                tensor if filled is None else torch.full_like(tensor, filled)
            )
    assert after.keys() == expected.keys()
    for name, tensor in after.items():
        assert torch.equal(tensor, expected[name]), name
    assert config_of(out)[EXPANDED_LAYERS] == [2]
    facts = read_model_facts(out)
    assert (facts.num_layers, facts.expanded_layers) == (4, (2,))


def test_layers_keep_their_kind(tmp_path: Path) -> None:
    """Gemma 2 alternates; an older config.json leaves that to the layers' numbers."""
    base = family_folder(tmp_path / "base", "gemma2", 4)
    config = config_of(base)
    assert config.pop("layer_types") == ["sliding_attention", "full_attention"] * 2
    (base / "config.json").write_text(json.dumps(config))
    assert main(["expand", str(base), "--copies", "4", "--output", str(tmp_path / "out")]) == 0
    kinds = config_of(tmp_path / "out")["layer_types"]
    assert kinds == [kind for pair in ("sliding", "full") * 2 for kind in [f"{pair}_attention"] * 2]
    assert torch.equal(logits_of(tmp_path / "out"), logits_of(base))


def test_where_copies_come() -> None:
    assert every_nth(32, 4) == evenly(32, 8) == (3, 7, 11, 15, 19, 23, 27, 31)
    assert every_nth(10, 4) == (3, 7)
    assert every_nth(3, 3) == evenly(3, 1) == (2,)
    assert evenly(10, 3) == (2, 5, 9)
    assert every_nth(3, 1) == evenly(3, 3) == (0, 1, 2)


def test_files_types_and_what_stands_beside_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """bfloat16 in two files; the copy goes where its layer is."""
    base = make_tiny_base(tmp_path / "base", num_layers=2)
    tensors = {
        name: tensor.bfloat16() for name, tensor in load_file(base / "model.safetensors").items()
    }
    (base / "model.safetensors").unlink()
    parts = ([name for name in tensors if ".1." not in name], [n for n in tensors if ".1." in n])
    placed: dict[str, str] = {}
    for number, names in enumerate(parts, start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, base / file)
        placed |= dict.fromkeys(names, file)
    index = {"metadata": {}, "weight_map": placed}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    (base / "LICENSE").write_text("as you like")
    (base / "README.md").write_text("---\nlicense: mit\n---\n")
    out = tmp_path / "out"
    assert main(["expand", str(base), "--copies", "1", "--output", str(out)]) == 0
    told = capsys.readouterr().out
    assert "layers: 2 → 3; copies: 2 (from 0)" in told
    assert "logits are the base's, bit for bit" in told
    found = weights(out)
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    second = load_file(out / "model-00002-of-00002.safetensors")
    assert {name.split(".")[2] for name in second} == {"1", "2"}
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor), name
    for name in ("tokenizer.json", "tokenizer_config.json", "LICENSE"):
        assert file_sha256(out / name) == file_sha256(base / name)
    _, front, body = (out / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "mit"
    facts = read_model_facts(base)
    assert f"| fingerprint of its weights | {facts.weights_fingerprint} |" in body
    assert "| layers | 2 of the base, 3 here |" in body
    added = sum(t.numel() for name, t in tensors.items() if ".layers.1." in name)
    assert read_model_facts(out).num_parameters == facts.num_parameters + added
    assert str(tmp_path) not in body


def test_an_expanded_base_lists_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = make_tiny_base(tmp_path / "base", num_layers=2)
    once, twice = tmp_path / "once", tmp_path / "twice"
    assert main(["expand", str(base), "--copies", "1", "--output", str(once)]) == 0
    # 0 1 1': each is copied, and 1' stands where it was moved to.
    assert main(["expand", str(once), "--every", "1", "--output", str(twice)]) == 0
    assert config_of(twice)[EXPANDED_LAYERS] == [1, 3, 4, 5]
    assert "| copies added earlier | 4 |" in (twice / "README.md").read_text(encoding="utf-8")
    assert torch.equal(logits_of(twice), logits_of(base))


# What is refused


def test_everything_wrong_is_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = make_tiny_base(tmp_path / "base", num_layers=2)
    (tmp_path / "out").mkdir()
    for given, told in (
        (["--every", "3"], "--every: 3 is more than the base's 2 layers"),
        (["--copies", "9"], "--copies: 9 is more than the base's 2 layers"),
        ([], "--every, --copies: neither is given"),
        (["--every", "1", "--copies", "1"], "--every, --copies: both are given"),
    ):
        assert main(["expand", str(base), *given, "--output", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert "out: there is something already" in error
    assert main(["expand", str(tmp_path / "no"), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "BASE: there is no folder" in error
    assert "neither is given" in error
    assert not list((tmp_path / "out").iterdir())


def test_a_second_time_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, out = make_tiny_base(tmp_path / "base"), tmp_path / "out"
    given = ["expand", str(base), "--output", str(out)]
    assert main([*given, "--every", "1"]) == 0
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    capsys.readouterr()
    assert main([*given, "--copies", "2"]) == 0  # the same copies
    assert capsys.readouterr().out == f"expanded already: {out}\n"
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before

    assert main([*given, "--copies", "1"]) == 2
    assert "out: there is something already" in capsys.readouterr().err
    make_tiny_base(tmp_path / "other", seed=1)
    assert main(["expand", str(tmp_path / "other"), "--every", "1", "--output", str(out)]) == 2
    assert "out: there is something already" in capsys.readouterr().err
    raw = bytearray((out / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (out / "model.safetensors").write_bytes(raw)
    assert main([*given, "--every", "1"]) == 2
    error = capsys.readouterr().err
    assert "out: it is this expansion, damaged: model.safetensors" in error


def test_a_base_that_is_not_finite_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = make_tiny_base(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    spoilt = ["model.layers.0.mlp.up_proj.weight", "model.norm.weight"]
    for name in spoilt:
        tensors[name].view(-1)[3] = torch.nan
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    assert main(["expand", str(base), "--every", "1", "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert all(f"{base}: tensor {name} holds values that are not" in error for name in spoilt)
    assert "a fault of rewarm" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["base"], "nothing is left behind"


def test_a_family_that_is_not_known_is_refused_with_its_tensors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = make_family_folder(tmp_path / "base", "phi")
    assert main(["expand", str(base), "--every", "1", "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "it is not known which tensors of a 'phi' block silence it" in error
    assert "mlp.fc2.weight, self_attn.dense.bias, self_attn.dense.weight" in error
    assert not (tmp_path / "out").exists()


def test_blocks_that_depend_on_their_number_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = family_folder(tmp_path / "base", "gpt2", scale_attn_by_inverse_layer_idx=True)
    model: Any = load_base(base)
    attention = model.transformer.h[1].attn
    if getattr(attention, "scaling", None) != attention.head_dim**-0.5 / 2:
        pytest.skip("this version of transformers lets its fused attention pass the number over")
    assert main(["expand", str(base), "--every", "2", "--output", str(tmp_path / "out")]) == 2
    assert "with the copies it gives other logits than without them" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["base"], "nothing is left behind"


def test_what_the_disk_changed_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = make_tiny_base(tmp_path / "base")

    def altered(base: Any, weights: Any, expansion: Any, folder: Path) -> Any:
        digests = write_expanded(base, weights, expansion, folder)
        raw = bytearray((folder / "model.safetensors").read_bytes())
        raw[-1] ^= 1
        (folder / "model.safetensors").write_bytes(raw)
        return digests

    monkeypatch.setattr(expanded_room, "write_expanded", altered)
    assert main(["expand", str(base), "--every", "1", "--output", str(tmp_path / "out")]) == 1
    assert "does not hold what was written: 1 tensors differ" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# The copies alone train

RECIPE = """\
name = "deeper"
base = { path = "deeper", pretraining = { peak_lr = 1e-2, final_lr = 1e-3 } }
budget = { tokens = 4096 }
batch = { tokens = 256, sequence_length = 32 }
schedule = { peak_lr = 1e-2 }
sources.new = { path = "my-text", role = "new", held_out = 0.05 }
parameters = { train = ["expanded"] }
checkpoints = { every_steps = 4, keep = 9 }
training = { num_threads = 1 }
"""


def test_the_copies_alone_train_resume_and_are_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_reader_folder(tmp_path)
    deeper = tmp_path / "deeper"
    assert (
        main(["expand", str(tmp_path / "my-model"), "--every", "2", "--output", str(deeper)]) == 0
    )
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    assert main(["run", str(recipe), "--yes"]) == 0
    run = RunFolder(tmp_path / "runs" / "deeper")
    before, after = weights(deeper), weights(run.path / "export")
    assert before.keys() == after.keys()
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert {".layers.2." in name for name in moved} == {True}
    assert {
        "model.layers.2.mlp.down_proj.weight",
        "model.layers.2.self_attn.o_proj.weight",
    } <= moved
    base = weights(tmp_path / "my-model")
    for name, tensor in base.items():
        assert torch.equal(after[name], tensor), name
    last = run.checkpoints / "step-00000016"
    assert all(".layers.2." in name for name in load_file(last / "model.safetensors"))
    assert config_of(run.path / "export")[EXPANDED_LAYERS] == [2]
    assert not torch.equal(logits_of(run.path / "export"), logits_of(tmp_path / "my-model"))

    # From step 8 on again: the same bits.
    whole = {
        name: (last / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")
    }
    for step in (12, 16):
        shutil.rmtree(run.checkpoints / f"step-{step:08d}")
    capsys.readouterr()
    assert main(["train", str(recipe)]) == 0
    assert "resumed from step-00000008" in capsys.readouterr().out
    assert {name: (last / name).read_bytes() for name in whole} == whole
