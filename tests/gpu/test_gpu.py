"""What only a GPU can show: its kernels, half precision, compiled blocks, resuming to the bit.

Skipped where torch sees none; nothing here needs a network.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rewarm.batches.loader import BatchLoader
from rewarm.distributed.fsdp import blocks_of
from rewarm.model.blocks import checkpoint_blocks
from rewarm.model.compiled import compile_blocks
from rewarm.model.head_loss import HeadLoss
from rewarm.model.loss import sum_of_token_losses
from rewarm.model.packing import DocumentAttention
from rewarm.records.probe import Checkpointing
from rewarm.records.run_folder import RunFolder
from tests.support.road import make_reader_folder
from tests.support.tiny_models import family_model, make_family_folder
from tests.support.tiny_plans import SEQUENCE_LENGTH, VOCAB_SIZE, make_plan, make_views

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")

REPOSITORY = Path(__file__).resolve().parents[2]
LLAMA = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
STEPS = 40


def rewarm(folder: Path, *arguments: str, expected: int = 0) -> str:
    """Give a command in a folder; return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "rewarm", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder with a recipe and prepared text."""
    folder = make_reader_folder(tmp_path_factory.mktemp("gpu"))
    for file in (folder / "my-model").iterdir():
        file.unlink()
    make_family_folder(folder / "my-model", "llama", **LLAMA)
    flags = "--base my-model --text my-text --replay my-old-text --peak-lr 1e-3"
    rewarm(folder, "init", "r.toml", *flags.split(), "--budget", str(STEPS * 1024))
    text = (folder / "r.toml").read_text()
    (folder / "r.toml").write_text(text + "[checkpoints]\nevery_steps = 10\n")
    rewarm(folder, "prepare", "r.toml", "-o", "batch.tokens=1024")
    return folder


def options(name: str, **settings: Any) -> list[str]:
    """Return the overrides of a run of its own."""
    written = {"name": name, "run_folder": name, "batch.tokens": 1024, **settings}
    return [part for key, value in written.items() for part in ("-o", f"{key}={json.dumps(value)}")]


def weights_of(run: Path) -> str:
    """Return a hash of all tensors of a run's last checkpoint."""
    newest = max(RunFolder(run).checkpoints.iterdir())
    digest = hashlib.sha256()
    for path in sorted(newest.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def losses_of(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in RunFolder(run).steps_log.read_text().splitlines()]


@pytest.mark.parametrize("compiled", ["none", "blocks"])
def test_a_deterministic_run_resumes_to_the_same_bits(folder: Path, compiled: str) -> None:
    settings = {
        "training.deterministic": True,
        "training.precision": "bf16",
        "training.compile": compiled,
    }
    whole, cut = options(f"whole-{compiled}", **settings), options(f"cut-{compiled}", **settings)
    rewarm(folder, "train", "r.toml", *whole)
    rewarm(folder, "train", "r.toml", *cut, "--until-step", "13")
    rewarm(folder, "train", "r.toml", *cut)
    assert losses_of(folder / f"whole-{compiled}") == losses_of(folder / f"cut-{compiled}")
    assert weights_of(folder / f"whole-{compiled}") == weights_of(folder / f"cut-{compiled}")


def test_half_precision_and_compiled_blocks_train_as_float32_does(folder: Path) -> None:
    plain = options("plain", **{"training.precision": "float32", "training.compile": "none"})
    half = options("half", **{"training.precision": "bf16", "training.compile": "blocks"})
    rewarm(folder, "train", "r.toml", *plain)
    told = rewarm(folder, "train", "r.toml", *half)
    assert "not compiled" not in told
    placement = json.loads(RunFolder(folder / "half").placement.read_text())
    assert placement["device"] == "cuda"
    assert placement["compiled"]
    assert placement["document_attention"] == "varlen"
    assert placement["autocast_dtype"] == "bfloat16"
    expected = losses_of(folder / "plain")
    assert expected[-1] < expected[0] - 0.5, "it would not show that anything was learned"
    assert losses_of(folder / "half") == pytest.approx(expected, rel=0.02)


def test_what_follows_a_run_works_on_a_gpu(folder: Path) -> None:
    """The probe, the profile, the evaluation, the export and the report."""
    own = options("road", **{"training.precision": "bf16"})
    assert "probe" in rewarm(folder, "plan", "r.toml", *own, "--probe")
    rewarm(folder, "train", "r.toml", *own, "--profile")
    assert RunFolder(folder / "road").profile.with_name("trace.json.gz").exists()
    rewarm(folder, "evaluate", "road")
    rewarm(folder, "export", "road")
    rewarm(folder, "report", "road")


@pytest.mark.parametrize("family", ["llama", "qwen2", "olmo2", "gemma2", "gpt_neox"])
def test_blocks_and_loss_of_a_family_compile_in_half_precision(family: str) -> None:
    """By the kernel that keeps documents apart, held against the blocks as they are."""
    model = family_model(family).cuda().train()
    attention = DocumentAttention(("varlen", "mask"), sequence_length=64)
    loss = HeadLoss()
    assert loss.settle(model) is None
    with torch.autocast("cuda", dtype=torch.bfloat16):
        attention.settle(model)
        if family != "gemma2":  # whose attention is capped, which the kernel does not have
            assert attention.taken == "varlen"
        shape = (4, 64)
        assert (
            compile_blocks(model, blocks_of(model), "none", shape=shape, mask_documents=True)
            is None
        )
        assert loss.compile(model, 256) is None


@pytest.mark.parametrize(("kind", "expected"), [("none", 2), ("selective", 2), ("full", 4)])
def test_attention_is_kept_where_the_rest_of_a_block_is_computed_again(
    kind: Checkpointing, expected: int
) -> None:
    """By the kernel that keeps documents apart: so often it is launched in a step of two blocks."""
    model = family_model("llama", vocab_size=VOCAB_SIZE).cuda().train()
    attention = DocumentAttention(("varlen",), sequence_length=SEQUENCE_LENGTH)
    ids = torch.arange(SEQUENCE_LENGTH, device="cuda")[None] % VOCAB_SIZE
    positions = torch.arange(SEQUENCE_LENGTH // 2, device="cuda").repeat(2)[None]
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert attention.settle(model) == []
        checkpoint_blocks(blocks_of(model), kind)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as watched:
            nats, _ = sum_of_token_losses(model, ids, ids, positions)
            torch.autograd.backward(nats)
    kernels = {"aten::_flash_attention_forward", "aten::_cudnn_attention_forward"}
    assert sum(row.count for row in watched.key_averages() if row.key in kernels) == expected


# torch warns that its mode is young.
@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
@pytest.mark.parametrize("apart", [True, False], ids=["documents", "whole"])
def test_nothing_of_a_micro_batch_waits_for_the_device(apart: bool) -> None:
    """torch raises where the host would: from the batch in pinned memory to the gradients."""
    model = family_model("llama", vocab_size=VOCAB_SIZE).cuda().train()
    attention = DocumentAttention(("varlen",), sequence_length=SEQUENCE_LENGTH)
    loss = HeadLoss()
    assert loss.settle(model) is None
    whole = BatchLoader(
        make_plan().science.order(),
        make_views(),
        sequence_length=SEQUENCE_LENGTH,
        vocab_size=VOCAB_SIZE,
        mask_documents=apart,
    ).batch(0)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        told = attention.settle(model) if apart else attention.settle_whole(model)
        assert not told
        for checked in (False, True):  # the first time kernels are loaded, which waits
            batch = whole.pinned()
            torch.cuda.set_sync_debug_mode("error" if checked else "default")
            try:
                part = batch.of_rows(slice(0, 4)).to(torch.device("cuda"))
                nats, _ = loss(model, part.input_ids, part.labels, part.position_ids, part.bounds())
                torch.autograd.backward(nats)
            finally:
                torch.cuda.set_sync_debug_mode("default")


def test_a_model_that_does_not_fit_is_told_in_words(folder: Path) -> None:
    """A share of the memory stands for a small GPU."""
    code = (
        "import torch; torch.cuda.set_per_process_memory_fraction(2e-4); "
        "import sys; from rewarm.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    own = options("small", **{"training.micro_batch_sequences": 8})
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "r.toml", *own],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "micro_batch_sequences" in done.stderr
