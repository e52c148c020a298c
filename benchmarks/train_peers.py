"""Training by rewarm beside transformers' Trainer, LitGPT's pretraining and a bare loop.

Tokens per second and peak memory on this machine's CPU, eager and compiled, of three Llamas: one
model, the same windows, batch and precision (bf16 where the processor has units for it). Each loop
runs in a process of its own (`train_loops.py`), in turns; a ratio is of two runs of one round, and
the median over rounds is told. LitGPT lies in a folder of its own (`make .peers-train/.ready`);
where that is missing it is left out. Saves, of which a run has one in many steps, are left out of
these few, as the Trainer's are: `checkpoint_blocking.py` measures them.

    python benchmarks/train_peers.py [--rounds 3] [--steps 8] [--models 6M,25M,128k] [--shared]

`--shared`, where other work has the machine at the time: seconds are processor time of one thread,
and the figures say so.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from record import Figure, write_results

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / ".peers-train"
VOCABULARY = 4096
NUM_WARMUPS = 3
LIMIT_S = 3600


class Shape(NamedTuple):
    """A Llama with tied embeddings, and its step."""

    hidden_size: int
    num_layers: int
    intermediate_size: int
    vocab_size: int
    num_sequences: int
    length: int = 512


SHAPES = {
    "6M": Shape(256, 6, 688, VOCABULARY, 8),
    "25M": Shape(512, 7, 1376, VOCABULARY, 8),
    "128k": Shape(256, 6, 688, 131_072, 4),
}
TOLD = {
    "6M": "5.8M parameters",
    "25M": "24M parameters",
    "128k": "38M parameters, 131,072 entries",
}
LOOPS = (
    "rewarm",
    "trainer",
    "litgpt, eager",
    "bare",
    "rewarm, compiled",
    "trainer, compiled",
    "litgpt",
    "bare, compiled",
)
Found = dict[str, Any]


def texts() -> Iterator[str]:
    """Yield the modules of the standard library that this Python has."""
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        yield path.read_text(encoding="utf-8", errors="ignore")


def write_text(folder: Path) -> None:
    """Write the text of all shapes as two sources."""
    modules = list(texts())
    for name, part in (("new", modules[::2]), ("old", modules[1::2])):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in part)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


RECIPE = """
name = "peers"
budget = {{ tokens = {tokens} }}
batch = {{ tokens = {batch}, sequence_length = {length} }}
base = {{ path = "{model}", pretraining = {{ peak_lr = 1e-4, final_lr = 1e-4 }} }}
schedule = {{ kind = "constant" }}
sources.new = {{ path = "new.jsonl", role = "new", held_out = 0.05 }}
sources.old = {{ path = "old.jsonl", role = "replay", held_out = 0.05 }}
phases = [{{ name = "all", weights = {{ new = 0.75, old = 0.25 }} }}]
training = {{ micro_batch_sequences = {rows}, precision = "{precision}" }}
evaluation = {{ matched_continuation_items = 0 }}
checkpoints = {{ every_steps = 1_000_000 }}
"""


def prepare(folder: Path, name: str, num_steps: int, *, shared: bool) -> Found:
    """Write model, recipe, prepared text and the windows of all steps; return the settings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from rewarm.batches.loader import BatchLoader
    from rewarm.cli import main as rewarm
    from rewarm.model.load import save_weights
    from rewarm.model.vocabulary import train_bpe
    from rewarm.planning.machine import cpu_multiplies_bf16
    from rewarm.stages.job import open_job
    from rewarm.stages.plan import plan_job
    from rewarm.stages.train import open_views

    shape = SHAPES[name]
    model = folder / f"model-{name}"
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.hidden_size // 64,
        num_key_value_heads=shape.hidden_size // 64,
        max_position_embeddings=shape.length,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    save_weights(LlamaForCausalLM(config), model)
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.exists():
        tokenizer.write_text(train_bpe(list(texts())[:60], VOCABULARY), encoding="utf-8")
    (model / "tokenizer.json").write_text(tokenizer.read_text(encoding="utf-8"), encoding="utf-8")
    recipe = folder / f"{name}.toml"
    batch = shape.num_sequences * shape.length
    recipe.write_text(
        RECIPE.format(
            tokens=batch * num_steps,
            batch=batch,
            length=shape.length,
            model=model,
            rows=shape.num_sequences,
            precision="bf16" if cpu_multiplies_bf16() else "float32",
        ),
        encoding="utf-8",
    )
    if rewarm(["prepare", str(recipe)]):
        raise SystemExit("the text could not be prepared")
    plan = plan_job(open_job(recipe), estimates_allowed=False)
    loader = BatchLoader(
        plan.science.order(),
        open_views(plan),
        sequence_length=shape.length,
        vocab_size=shape.vocab_size,
    )
    batches = [loader.batch(step) for step in range(num_steps)]
    windows = [np.concatenate([b.input_ids, b.labels[:, -1:]], axis=1) for b in batches]
    np.save(folder / f"{name}.npy", np.concatenate(windows))
    return {
        "model": str(model),
        "windows": str(folder / f"{name}.npy"),
        "recipe": str(recipe),
        "num_sequences": shape.num_sequences,
        "length": shape.length,
        "num_steps": num_steps,
        "num_warmups": NUM_WARMUPS,
        "half": cpu_multiplies_bf16(),
        "shared": shared,
    }


def take(loop: str, settings: Found, folder: Path) -> Found:
    """Run a loop in a process of its own and return what it tells."""
    with tempfile.TemporaryDirectory(dir=folder) as output:
        path = folder / "settings.json"
        path.write_text(json.dumps({**settings, "output": f"{output}/run"}), encoding="utf-8")
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        if settings["shared"]:
            environment["OMP_NUM_THREADS"] = "1"
        if loop.startswith("litgpt"):
            environment["PYTHONPATH"] = str(PEERS)
        done = subprocess.run(
            [sys.executable, str(HERE / "train_loops.py"), loop, str(path)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"{loop} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    found: Found = json.loads(done.stdout.splitlines()[-1])
    batch = settings["num_sequences"] * settings["length"]
    found["tokens_per_s"] = batch / statistics.median(found["steps_s"])
    print(
        f"  {loop}: {found['tokens_per_s']:.0f} tokens/s, "
        f"{found['peak_bytes'] / 2**20:.0f} MiB, {found['warm_up_s']:.1f} s to warm up",
        flush=True,
    )
    return found


def ratio(rounds: list[dict[str, Found]], one: str, other: str, key: str) -> float:
    """Return the median over rounds of one loop's figure over another's."""
    return float(statistics.median(found[one][key] / found[other][key] for found in rounds))


def figures_of(name: str, rounds: list[dict[str, Found]]) -> list[Figure]:
    """Return a model's figures."""
    told = TOLD[name]
    figures = []
    large = name == "128k"
    for way, least in (("", 1.0), (", compiled", 1.1)):
        ours = f"rewarm{way}"
        for peer in ("trainer", "litgpt", "bare"):
            other = {"": "litgpt, eager", ", compiled": "litgpt"}[way]
            other = other if peer == "litgpt" else f"{peer}{way}"
            if other not in rounds[0]:
                continue
            goals: tuple[float | None, float | None] = (None, None)
            if peer == "trainer":
                goals = (least, None)
            if large and peer == "trainer" and not way:
                goals = (1 / 0.75, 0.4)
            speed = ratio(rounds, ours, other, "tokens_per_s")
            memory = ratio(rounds, ours, other, "peak_bytes")
            figures += [
                Figure(f"{told}: tokens/s of {ours}", speed, "", "higher", goals[0], other),
                Figure(f"{told}: memory of {ours}", memory, "", "lower", goals[1], other),
            ]
    waits = statistics.median(found["rewarm"]["data_wait_share"] for found in rounds)
    figures.append(Figure(f"{told}: waiting for windows", waits, "", "lower", 0.01, "the step"))
    for loop in rounds[0]:
        speed = statistics.median(found[loop]["tokens_per_s"] for found in rounds)
        peak = statistics.median(found[loop]["peak_bytes"] for found in rounds)
        figures += [
            Figure(f"{told}: {loop}", speed, "tokens/s", "higher"),
            Figure(f"{told}: {loop}, peak", peak / 2**20, "MiB", "lower"),
        ]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Training beside peers.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--models", default=",".join(SHAPES))
    parser.add_argument("--loops", default=";".join(LOOPS), help="names, apart by ';'")
    parser.add_argument("--shared", action="store_true")
    options = parser.parse_args()
    loops = [
        loop for loop in options.loops.split(";") if PEERS.exists() or not loop.startswith("litgpt")
    ]
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_text(folder)
        for name in options.models.split(","):
            settings = prepare(folder, name, NUM_WARMUPS + options.steps, shared=options.shared)
            rounds: list[dict[str, Found]] = []
            for number in range(options.rounds):
                print(f"{name}, round {number + 1}", flush=True)
                rounds.append({loop: take(loop, settings, folder) for loop in loops})
            figures += figures_of(name, rounds)
    if options.shared:
        figures = [figure_beside_other_work(figure) for figure in figures]
    others = tuple(f"{TOLD[name]}: " for name in TOLD if name not in options.models.split(","))
    write_results("train_peers", figures, stays=lambda name: name.startswith(others))


def figure_beside_other_work(figure: Figure) -> Figure:
    """Return a figure that says how it was taken."""
    return Figure(**{**vars(figure), "name": f"{figure.name} (processor time, one thread)"})


if __name__ == "__main__":
    main()
