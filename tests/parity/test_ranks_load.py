"""A base in parts against the same base whole, and the command line on two ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rewarm.cli import main
from rewarm.model.load import load_base
from rewarm.model.loss import token_losses
from rewarm.records.run_folder import RunFolder
from rewarm.training.state import weights_of
from tests.support.ranks import run_ranks, start_ranks, wait_for
from tests.support.road import make_reader_folder
from tests.support.tiny_models import make_family_folder, make_tiny_base
from tests.support.tiny_plans import SEQUENCE_LENGTH

JOBS = "tests.support.rank_jobs"
FAMILIES = ("llama", "qwen3", "olmo2", "gemma2", "gpt_neox", "gpt2")


def test_a_base_in_parts_is_the_base(tmp_path: Path) -> None:
    """Six families, tied and untied, a head saved beside its embedding, renamed, damaged."""
    for family in FAMILIES:
        make_family_folder(tmp_path / family, family)
    make_tiny_base(tmp_path / "tied", vocab_size=323)
    for name in ("both heads", "two heads", "damaged", "renamed", "bfloat16"):
        make_tiny_base(tmp_path / name, tied_embeddings=True)
        path = tmp_path / name / "model.safetensors"
        tensors = load_file(path)
        embedding = tensors["model.embed_tokens.weight"]
        if name == "both heads":
            tensors["lm_head.weight"] = embedding.clone()
        elif name == "two heads":
            tensors["lm_head.weight"] = embedding + 1
        elif name == "damaged":
            embedding[-1, -1] = float("nan")
        elif name == "renamed":
            tensors = {key.removeprefix("model."): tensor for key, tensor in tensors.items()}
        else:
            tensors = {key: tensor.to(torch.bfloat16) for key, tensor in tensors.items()}
        save_file(tensors, path, metadata={"format": "pt"})
    run_ranks(f"{JOBS}:loads", str(tmp_path), num_ranks=2)
    ids = torch.arange(2 * SEQUENCE_LENGTH).view(2, -1)
    for folder in sorted(tmp_path.iterdir()):
        found = torch.load(folder / "loaded.pt", weights_only=True)
        if folder.name == "damaged":
            assert "embed_tokens.weight holds values that are not finite" in found["refused"]
            continue
        if folder.name == "two heads":
            assert "differ in the checkpoint" in found["refused"]
            continue
        assert "refused" not in found, found
        noticed = bool(found.pop("notice"))
        if folder.name != "gpt_neox":  # old versions of transformers did not rename its head
            assert noticed == (folder.name == "renamed")
        whole = load_base(folder).eval()
        with torch.no_grad():
            losses = token_losses(whole, ids, ids)
        # Buffers too: rotary tables that were never set would show here.
        assert torch.allclose(found.pop("losses"), losses, rtol=0, atol=1e-5), folder.name
        expected = weights_of(whole)
        assert found.keys() == expected.keys(), folder.name
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), f"{folder.name}: {name}"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_reader_folder(tmp_path_factory.mktemp("reader"))
    recipe = """
name = "{name}"
budget = {{ tokens = "8k" }}
base = {{ path = "my-model", pretraining = {{ peak_lr = 1e-2, final_lr = 1e-3 }} }}
batch = {{ sequence_length = 64, tokens = 256, mask_documents = true }}
sources.new = {{ path = "my-text", role = "new", held_out = 0.1 }}
sources.old = {{ path = "my-old-text", role = "replay", held_out = 0.1 }}
phases = [{{ name = "general", weights = {{ new = 0.75, old = 0.25 }} }}]
evaluation = {{ max_bytes_per_domain = 20000 }}
# bf16 units, where there are such, round ranks otherwise
training = {{ precision = "float32", tensor_parallel = {shared} }}
"""
    for name, shared in (("alone", 1), ("ranks", 1), ("shared", 2)):
        (folder / f"{name}.toml").write_text(recipe.format(name=name, shared=shared))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["prepare", "alone.toml"]) == 0
        assert main(["train", "alone.toml"]) == 0
    return folder


@pytest.mark.parametrize("name", ["ranks", pytest.param("shared", marks=pytest.mark.slow)])
def test_the_command_line_on_two_ranks(reader: Path, name: str) -> None:
    """The same losses and evaluations as one process has, to float32's rounding; one voice; and
    what follows reads the checkpoint of the ranks in one process. Data or matrices are shared."""
    if name == "shared":
        pytest.importorskip("transformers.distributed.tensor_parallel")
    recipe = str(reader / f"{name}.toml")
    ended = run_ranks(f"{JOBS}:rewarm", "train", recipe, num_ranks=2)
    assert "finished after" in ended[0].output
    assert ended[1].output == ""
    alone, ranks = (RunFolder(reader / "runs" / run) for run in ("alone", name))
    placement = json.loads(ranks.placement.read_text())
    shared = {"ranks": 1, "shared": 2}[name]
    assert [placement["tensor_parallel"], placement["whole_gradients"]] == [shared, shared == 1]
    assert [r.loss for r in ranks.steps()] == pytest.approx([r.loss for r in alone.steps()], 1e-4)
    found, expected = ranks.evals(), alone.evals()
    assert [(r.step, r.domain, r.metric, len(r.item_values)) for r in found] == [
        (r.step, r.domain, r.metric, len(r.item_values)) for r in expected
    ]
    assert [r.value for r in found] == pytest.approx([r.value for r in expected], rel=1e-3)
    for verb in ("evaluate", "report", "export"):
        assert main([verb, recipe]) == 0
    again = run_ranks(f"{JOBS}:rewarm", "train", recipe, num_ranks=2)
    assert [end.code for end in again] == [0, 0]
    assert "finished already, after" in again[0].output
    assert again[1].output == ""


@pytest.mark.slow
def test_the_command_line_on_two_ranks_in_half_precision(reader: Path) -> None:
    """Blocks compute in bf16 by policy; documents are found apart all the same, and it learns."""
    changes = ["-o", "training.precision=bf16", "-o", "name=half", "-o", "budget.tokens=8k"]
    run_ranks(f"{JOBS}:rewarm", "train", str(reader / "ranks.toml"), *changes, num_ranks=2)
    run = RunFolder(reader / "runs" / "half")
    assert '"autocast_dtype": "bfloat16"' in run.placement.read_text(encoding="utf-8")
    alone = [r.loss for r in RunFolder(reader / "runs" / "alone").steps()]
    # At the first step weights and samples are the same: what differs is bf16's rounding.
    first = run.steps()[0].loss
    assert first == pytest.approx(alone[0], rel=1e-2)
    assert run.steps()[-1].loss < first


def test_what_all_ranks_find_wrong_is_told_once(reader: Path) -> None:
    pytest.importorskip("peft")
    changes = ["-o", "parameters.adapter.rank=4", "-o", "name=adapter"]
    started = start_ranks(
        f"{JOBS}:rewarm", "train", str(reader / "ranks.toml"), *changes, num_ranks=2
    )
    ended = wait_for(started)
    assert [end.code for end in ended] == [2, 2]
    assert "adapters train in one process" in ended[0].output
    assert ended[1].output == ""


def test_one_process_alone_cannot_share_matrices(
    reader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["-o", "name='unshared'", "-o", "training.tensor_parallel=2"]
    assert main(["train", str(reader / "alone.toml"), *overrides]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "training.tensor_parallel: 2 ranks of a node are to share each matrix" in said
    assert "this launch has 1, 1 a node" in said
