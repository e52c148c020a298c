"""The plan's estimate of a step's peak memory, without a probe, beside what a process takes.

Of four shapes the peak of some steps in a process of their own (the kernel's count of its own
pages, less what it took before it had weights) over the estimate. In bf16 too where the processor
has units for it, or `--bf16` asks for it: without units a step takes some twenty times as long.
"""

from __future__ import annotations

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
from rewarm.planning.machine import cpu_multiplies_bf16
from rewarm.planning.memory import StepShape, peak_memory
from rewarm.planning.model_facts import read_model_facts
from rewarm.recipe.steps import OptimizerRecipe
from rewarm.training.optimizer import build_optimizer, set_learning_rate, trainable_parameters
from rewarm.training.usage import MemoryMeter
from tests.support.tiny_models import make_family_folder

SHAPES: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama, 8 layers of 256, 4k entries": (
        "llama",
        {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8, "vocab_size": 4096},
        "plain",
    ),
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
WITH_BF16 = cpu_multiplies_bf16() or "--bf16" in sys.argv
PRECISIONS = ("float32", "bf16") if WITH_BF16 else ("float32",)


def step_in_this_process(folder: Path, half: bool, loss: str) -> None:
    """Take two steps on made-up text; print the bytes that they took beside the process's, and the
    processor time of the second.
    """
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
        started = time.process_time()
        for _ in range(MICRO_BATCHES):
            ids = torch.randint(vocab_size, (ROWS, LENGTH), generator=generator)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                nats, _ = root(objective, ids, ids, None)
            (nats / ids.numel()).backward()
            del nats
        set_learning_rate(optimizer, 1e-4)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    print(meter.take_peak().used_bytes - meter.process_bytes, time.process_time() - started)


def memory_figures(root: Path) -> list[Figure]:
    """Return measured peaks over estimated ones."""
    figures = []
    for name, (family, sizes, loss) in SHAPES.items():
        folder = root / family
        make_family_folder(folder, family, max_position_embeddings=LENGTH, **sizes)
        facts = read_model_facts(folder)
        for precision in PRECISIONS:
            half = precision == "bf16"
            command = [sys.executable, __file__, "step", str(folder), precision, loss]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            shape = StepShape(ROWS * LENGTH, MICRO_BATCHES, half, loss, sequence_length=LENGTH)
            state = state_bytes(facts, "adamw") - 4 * facts.num_parameters
            estimated = peak_memory(facts, shape, state_bytes=state).total
            peak, seconds = said.split()
            ratio = int(peak) / estimated
            told = f"{int(peak) / 2**20:.0f} MiB, {ratio:.3f}, a step {float(seconds):.2f} s"
            print(f"{name} {precision}: {told} of processor time", flush=True)
            figures.append(Figure(f"{name}, {precision}: peak", ratio, "", "lower", versus="plan"))
    worst = max(abs(figure.value - 1) for figure in figures)
    return [
        Figure("memory estimate, furthest from the peak", worst, "", "lower", WITHIN, "the peak"),
        *figures,
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        write_results("peak_memory", memory_figures(Path(name)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["step"]:
        step_in_this_process(Path(sys.argv[2]), sys.argv[3] == "bf16", sys.argv[4])
    else:
        main()
