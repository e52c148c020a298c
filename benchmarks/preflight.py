"""The plan's estimates beside what comes: memory without a probe, time with one.

Memory: of four shapes, in both precisions, the peak of some steps in a process of their own (the
kernel's count of its own pages, less what it took before it had weights) over the estimate. Time: a
run of 200 steps by its wall clock, over what the plan said after a probe.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from record import Figure, write_results

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rewarm.distributed.fsdp import Root, blocks_of
from rewarm.model.blocks import checkpoint_blocks
from rewarm.model.head_loss import HeadLoss
from rewarm.model.load import base_without_weights, load_base
from rewarm.planning.budget import state_bytes
from rewarm.planning.memory import StepShape, peak_memory
from rewarm.planning.model_facts import read_model_facts
from rewarm.planning.plan import Plan, load_plan
from rewarm.recipe.steps import OptimizerRecipe
from rewarm.records.probe import Probe
from rewarm.training.optimizer import build_optimizer, set_learning_rate, trainable_parameters
from rewarm.training.usage import MemoryMeter
from tests.support.road import make_reader_folder
from tests.support.tiny_models import make_family_folder

LLAMA = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8, "vocab_size": 4096}
SHAPES: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama, 8 layers of 256, 4k entries": ("llama", LLAMA, "plain"),
    "qwen2, 6 layers of 256, 128k entries": (
        "qwen2",
        {
            "hidden_size": 256,
            "intermediate_size": 704,
            "num_hidden_layers": 6,
            "vocab_size": 131_072,
            "tie_word_embeddings": True,
        },
        "chunked",
    ),
    "gpt_neox, 6 layers of 384, 8k entries": (
        "gpt_neox",
        {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "vocab_size": 8192},
        "plain",
    ),
    "olmo2, 8 layers of 512, 16k entries": (
        "olmo2",
        {
            "hidden_size": 512,
            "intermediate_size": 1376,
            "num_hidden_layers": 8,
            "vocab_size": 16_384,
        },
        "chunked",
    ),
}
LENGTH, ROWS, MICRO_BATCHES = 512, 8, 2
WITHIN = 0.15


def step_in_this_process(folder: Path, half: bool, loss: str) -> None:
    """Take two steps on made-up text and print the bytes that they took beside the process's."""
    base_without_weights(folder)
    meter = MemoryMeter("cpu")
    model = load_base(folder).train()
    vocab_size = read_model_facts(folder).vocab_size
    checkpoint_blocks(blocks_of(model), "none")
    optimizer = build_optimizer(trainable_parameters(model), OptimizerRecipe())
    objective = HeadLoss(None)
    if loss == "chunked":
        assert objective.settle(model, within=None, trains=True) is None
    root = Root(model)
    generator = torch.Generator().manual_seed(0)
    meter.take_peak()
    for _ in range(2):
        for _ in range(MICRO_BATCHES):
            ids = torch.randint(vocab_size, (ROWS, LENGTH), generator=generator)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                nats, _ = root(objective, ids, ids, None)
            (nats / ids.numel()).backward()
            del nats
        set_learning_rate(optimizer, 1e-4)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    print(meter.take_peak() - meter.process_bytes)


def memory_figures(root: Path) -> list[Figure]:
    """Return measured peaks over estimated ones."""
    figures = []
    for name, (family, sizes, loss) in SHAPES.items():
        folder = root / family
        make_family_folder(folder, family, max_position_embeddings=LENGTH, **sizes)
        facts = read_model_facts(folder)
        for precision in ("float32", "bf16"):
            half = precision == "bf16"
            command = [sys.executable, __file__, "step", str(folder), precision, loss]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            shape = StepShape(ROWS * LENGTH, MICRO_BATCHES, half, loss)
            state = state_bytes(facts, "adamw") - 4 * facts.num_parameters
            estimated = peak_memory(facts, shape, state_bytes=state).total
            ratio = int(said) / estimated
            print(f"{name} {precision}: {int(said) / 2**20:.0f} MiB, {ratio:.3f}", flush=True)
            figures.append(Figure(f"{name}, {precision}: peak", ratio, "", "lower", versus="plan"))
    worst = max(abs(figure.value - 1) for figure in figures)
    return [
        Figure("memory estimate, furthest from the peak", worst, "", "lower", WITHIN, "the peak"),
        *figures,
    ]


def rewarm(folder: Path, *arguments: str) -> None:
    """Run a verb in a folder, in silence."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent / "src")}
    command = [sys.executable, "-m", "rewarm", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")


def made(folder: Path) -> Path:
    """Return a folder with a base, prepared text and a recipe of 200 steps."""
    make_reader_folder(folder)
    for file in (folder / "my-model").iterdir():
        file.unlink()
    make_family_folder(folder / "my-model", "llama", max_position_embeddings=LENGTH, **LLAMA)
    flags = "--base my-model --text my-text --replay my-old-text --peak-lr 1e-3"
    rewarm(folder, "init", "r.toml", *flags.split(), "--budget", str(200 * 2048))
    return folder


def estimate(plan: Plan, name: str) -> float:
    """Return one of a plan's estimates."""
    return next(found.value for found in plan.estimates if found.name == name)


def time_figures(root: Path) -> list[Figure]:
    """Return the wall clock of 200 steps over the plan's time after a probe."""
    folder = made(root / "time")
    wanted = (
        "batch.tokens=2048",
        f"batch.sequence_length={LENGTH}",
        "evaluation.matched_continuation_items=0",
    )
    options = [part for override in wanted for part in ("-o", override)]
    rewarm(folder, "prepare", "r.toml", *options)
    rewarm(folder, "plan", "r.toml", "--probe", *options)
    (run,) = (folder / "runs").iterdir()
    probe = Probe.model_validate_json((run / "probe.json").read_text())
    plan = load_plan(run / "plan.json")
    assert plan.science.num_steps == 200
    started = time.perf_counter()
    rewarm(folder, "train", "r.toml", *options)
    took = time.perf_counter() - started
    ratio = took / estimate(plan, "time")
    print(f"200 steps: {took:.1f} s, {ratio:.3f} of the plan's", flush=True)
    return [
        Figure("200 steps: off the probe's time", abs(ratio - 1), "", "lower", 0.1, "the plan"),
        Figure("200 steps: wall clock over the probe's time", ratio, "", "lower"),
        Figure("a step in the probe", probe.best.step_s, "s", "lower"),
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        parts = {"memory": memory_figures, "time": time_figures}
        wanted = [part for part in parts if len(sys.argv) < 2 or part in sys.argv[1:]]
        for part in wanted:
            # Memory needs no quiet machine, time does: each is a record of its own.
            write_results(f"preflight_{part}", parts[part](Path(name)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["step"]:
        step_in_this_process(Path(sys.argv[2]), sys.argv[3] == "bf16", sys.argv[4])
    else:
        main()
