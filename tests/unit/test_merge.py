"""`rewarm merge` on model folders: what is written, and what is refused."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from safetensors.torch import load_file, save_file
from torch import Tensor

import rewarm.export.merged as merged_room
from rewarm.artifacts import file_sha256
from rewarm.cli import main
from rewarm.export.place import copy_files
from rewarm.planning.model_facts import read_model_facts
from tests.support.chat import give_chat_template
from tests.support.tiny_models import make_family_folder, make_tiny_base

NAMES = ("base", "one", "two", "three")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(NAMES):
        make_tiny_base(folder / name, seed=seed)
    return folder


@pytest.fixture
def here(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own with links to the models, to be written into."""
    for path in models.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def merge(*arguments: str) -> int:
    return main(["merge", *arguments])


def weights(folder: str | Path) -> dict[str, Tensor]:
    loaded: dict[str, Tensor] = load_file(Path(folder) / "model.safetensors")
    return loaded


def spoilt(here: Path, name: str, source: str = "one") -> Path:
    """A copy of a model that a test may change."""
    return Path(shutil.copytree(here / source, here / name))


# What is written


def test_linear_and_its_card(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert merge("--base", "base", "--model", "one", "--weight", "0.25", "--output", "out") == 0
    told = capsys.readouterr().out
    assert "(1 − w) base + w model" in told
    assert "merged and verified" in told
    base, one = weights("base"), weights("one")
    for name, tensor in weights("out").items():
        expected = 0.75 * base[name].double() + 0.25 * one[name].double()
        assert torch.equal(tensor, expected.float()), name

    _, front, body = (here / "out" / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["merge", "rewarm"],
    }
    facts = [read_model_facts(here / name) for name in ("base", "one")]
    assert f"| base | base |  | {facts[0].weights_fingerprint} | not stated |" in body
    assert f"| model | one | 0.25 | {facts[1].weights_fingerprint} | not stated |" in body
    assert "linear interpolation (WiSE-FT" in body
    assert str(here) not in body
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (here / "out" / name).read_bytes() == (here / "base" / name).read_bytes()

    mark = (here / "out" / "rewarm.json").read_bytes()
    assert merge("--base", "base", "--model", "one", "--weight", "0.25", "--output", "out") == 0
    assert "merged already" in capsys.readouterr().out
    assert merge("--base", "base", "--model", "one", "--weight", "0.3", "--output", "out") == 2
    assert "there is something already" in capsys.readouterr().err
    assert (here / "out" / "rewarm.json").read_bytes() == mark


def test_the_ends_are_base_and_model_bit_for_bit(here: Path) -> None:
    for method in ("linear", "slerp"):
        for weight, name in (("0", "base"), ("1", "one")):
            out = f"{method}-{weight}"
            given = ("--base", "base", "--model", "one", "--weight", weight, "--output", out)
            assert merge("--method", method, *given) == 0
            found = weights(out)
            assert all(torch.equal(found[key], own) for key, own in weights(name).items())


def test_the_chat_vector_brings_its_chat_format(here: Path) -> None:
    give_chat_template(spoilt(here, "tuned", "two"))
    (here / "tuned" / "LICENSE").write_text("the tuned model's")
    given = ("--base", "base", "--model", "one", "--instruct", "tuned", "--output", "out")
    assert merge("--method", "chat-vector", *given) == 0
    base, one, two = weights("base"), weights("one"), weights("two")
    for name, tensor in weights("out").items():
        expected = one[name].double() + (two[name].double() - base[name].double())
        assert torch.allclose(tensor.double(), expected, rtol=0, atol=1e-8), name
    for name in ("tokenizer_config.json", "LICENSE"):
        assert (here / "out" / name).read_bytes() == (here / "tuned" / name).read_bytes()
    assert read_model_facts(here / "out").has_chat_template
    # A model plus the difference of a model that is its own base is that model.
    same = ("--base", "base", "--model", "one", "--instruct", "two", "--weight", "0")
    assert merge("--method", "chat-vector", *same, "--output", "plain") == 0
    assert all(torch.equal(weights("plain")[name], tensor) for name, tensor in one.items())


def test_an_average_is_the_same_bytes_in_any_order(here: Path) -> None:
    hashes = set()
    for number, order in enumerate(itertools.permutations(("one", "two", "three"))):
        models = [part for name in order for part in ("--model", name)]
        out = f"out-{number}"
        assert merge("--method", "average", *models, "--output", out) == 0
        hashes.add(file_sha256(here / out / "model.safetensors"))
    assert len(hashes) == 1
    parts = [weights(name) for name in ("one", "two", "three")]
    for name, tensor in weights("out-0").items():
        expected = torch.stack([part[name].double() for part in parts]).sum(0) / 3
        assert torch.equal(tensor, expected.float())


def test_task_arithmetic_adds_differences(here: Path) -> None:
    given = ("--base", "base", "--model", "one", "--model", "two")
    by = ("--weight", "0.5", "--weight=-0.25", "--output", "out")
    assert merge("--method", "task-arithmetic", *given, *by) == 0
    base, one, two = weights("base"), weights("one"), weights("two")
    for name, tensor in weights("out").items():
        start = base[name].double()
        moved = start + 0.5 * (one[name].double() - start) - 0.25 * (two[name].double() - start)
        assert torch.allclose(tensor.double(), moved, rtol=0, atol=1e-8)


@pytest.mark.parametrize("family", ["gpt_neox", "gemma2", "gpt2"])
def test_families(here: Path, family: str) -> None:
    for seed in (0, 1):
        make_family_folder(here / f"m{seed}", family, seed=seed)
    given = ("--base", "m0", "--model", "m1", "--output", "out")
    assert merge("--method", "slerp", *given, "--dtype", "bfloat16") == 0
    facts = read_model_facts(here / "out")
    assert facts.saved_dtype == "bfloat16"
    assert json.loads((here / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_shards_of_the_base_and_a_whole_model(here: Path) -> None:
    from rewarm.model.load import load_base

    load_base(here / "base").save_pretrained("parts", max_shard_size="40KB")  # type: ignore[operator]
    shutil.copy("base/tokenizer.json", "parts")
    assert merge("--base", "parts", "--model", "one", "--output", "out") == 0
    names = {path.name for path in Path("parts").glob("model*")}
    assert len(names) > 2
    assert {path.name for path in Path("out").glob("model*")} == names


# What is refused: everything at once, nothing left behind


def left(here: Path) -> set[str]:
    return {path.name for path in here.iterdir()} - set(NAMES)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", ["--model: it is missing"]),
        ("--method soup --model one", ["'soup' is not known", "linear, slerp, average"]),
        ("--model one --output o", ["--base: it is missing"]),
        ("--model one --base base", ["--output: it is missing"]),
        (
            "--model one --model two --instruct x --weight 2 --weight nan --dtype int3",
            [
                "5 problems",
                "--model: 2 were given, and linear takes one",
                "--instruct: linear has no use for it",
                "--weight: 2 is not between base (0) and model (1)",
                "--weight: nan is no weight",
                "'int3' is not known",
            ],
        ),
        ("--method chat-vector --model one", ["--instruct: chat-vector needs it"]),
        ("--method average --model one --output o", ["needs two models or more"]),
        ("--method average --model one --model two --weight=-1 --weight 1", ["-1 is not positive"]),
        (
            "--method average --model one --model two --weight 1 --output o",
            ["--weight: 1 were given for 2 models"],
        ),
        (
            "--method average --model one --model two --model one --output o",
            ["--model one: it has the very weights of --model one"],
        ),
        (
            "--method chat-vector --base base --model one --instruct base --output o",
            ["--instruct base: it has the very weights of --base base"],
        ),
        ("--base nowhere --model ./x --output o", ["2 problems", "nowhere", "there is no folder"]),
        ("--base base --model one/config.json --output o", ["is a file"]),
        ("--base base --model one@3 --output o", ["there is no folder"]),
        ("--base base --model one --sweep --output o", ["one is no run, so there is no held-out"]),
        ("--base base --model one --sweep --weight 1", ["a sweep chooses it"]),
        ("--method average --model one --model two --sweep", ["average has no single weight"]),
        ("--model one --grid 0.5", ["--grid and --tolerance are its own"]),
        ("--model one --sweep --grid 0.5,x", ["'x' is no number"]),
        (
            "--model one --grid x,2 --dtype int3 --base base --output two",
            [
                "5 problems",
                "'x' is no number",
                "2 is not between 0 and 1",
                "--grid and --tolerance are its own",
                "'int3' is not known",
                "--output two: there is something already",
            ],
        ),
        (
            "--base base --model nowhere --output one",
            ["--output one: there is something already"],
        ),
        (
            "--model one --sweep --grid 7 --tolerance inf",
            ["2 problems", "7 is not between 0 and 1"],
        ),
    ],
)
def test_a_mistake_is_one_message_and_code_2(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: str, told: list[str]
) -> None:
    assert merge(*arguments.split()) == 2
    said = capsys.readouterr().err
    assert all(part in said for part in told), said
    assert left(here) == set()


def test_a_hub_that_cannot_be_reached(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model in ("org/absent", "org/absent@main"):
        assert merge("--base", "base", "--model", model, "--output", "o") == 1
        told = capsys.readouterr().err
        assert "the hub cannot be reached for 'org/absent'" in told
        assert "give its folder as --model" in told


def test_models_that_do_not_belong_together_are_told_in_everything(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tiny_base(here / "wide", vocab_size=330, tied_embeddings=False)
    config = json.loads((here / "wide" / "config.json").read_text())
    (here / "wide" / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))
    half = spoilt(here, "half")
    tensors = {name: tensor.half() for name, tensor in weights(half).items()}
    save_file(tensors, half / "model.safetensors", metadata={"format": "pt"})
    given = ("--base", "base", "--model", "wide", "--model", "half", "--output", "o")
    assert merge("--method", "task-arithmetic", *given) == 2
    told = capsys.readouterr().err
    for part in (
        "wide: tensor lm_head.weight is not in base",
        "wide: tensor model.embed_tokens.weight has shape [330, 32], in base [320, 32]",
        "wide: the output head of base is tied to its embedding, that of wide is not",
        "wide: config.json has rms_norm_eps = 0.1, that of base 1e-06",
        "wide: config.json has vocab_size = 330, that of base 320",
        "wide: 10 ids are other tokens than in base",
        "half: it stores float16, base stores float32\n    → say in which type",
    ):
        assert part in told, told
    assert left(here) == {"wide", "half"}
    assert merge("--base", "base", "--model", "half", "--dtype", "float32", "--output", "o") == 0


def test_values_that_are_not_finite(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = spoilt(here, "bad")
    tensors = weights(bad)
    tensors["model.norm.weight"][3] = torch.nan
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.inf
    save_file(tensors, bad / "model.safetensors", metadata={"format": "pt"})
    assert merge("--base", "base", "--model", "bad", "--output", "o") == 2
    told = capsys.readouterr().err
    assert "bad: tensor model.norm.weight holds values that are not finite" in told
    assert "bad: tensor model.layers.1.mlp.up_proj.weight holds values" in told
    assert left(here) == {"bad"}


def _flip_a_bit(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _change_the_network(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_flip_a_bit, "does not hold what was computed: 1 tensors differ (model.norm.weight)"),
        (_change_the_network, "gives other logits than its form's network, by up to"),
        (_truncate, "cannot be loaded again: "),
    ],
)
def test_a_folder_that_does_not_give_the_model_back(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    dtype: str,
    spoil: Any,
    message: str,
) -> None:
    def flawed(source: Path, folder: Path) -> None:
        copy_files(source, folder)
        spoil(folder)

    monkeypatch.setattr(merged_room, "copy_files", flawed)
    given = ("--base", "base", "--model", "one", "--dtype", dtype, "--output", "o")
    assert merge(*given) == 1
    told = capsys.readouterr().err
    assert f"the exported folder {message}" in told
    assert "nothing was exported" in told
    assert left(here) == set()


def test_licences_that_differ_are_told_and_not_mixed(here: Path) -> None:
    for name, licence in (("a", "mit"), ("b", "apache-2.0")):
        spoilt(here, name, "base" if name == "a" else "one")
        (here / name / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    assert merge("--base", "a", "--model", "b", "--output", "out") == 0
    _, front, body = (here / "out" / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert "license" not in yaml.safe_load(front)
    assert "| mit |" in body
    assert "| apache-2.0 |" in body
