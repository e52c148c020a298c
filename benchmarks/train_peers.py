"""Training by rewarm beside transformers' Trainer, LitGPT's pretraining and a bare loop.

Tokens per second and peak memory on this machine's CPU, eager and compiled, of three Llamas: one
model, the same windows, batch and precision (bf16 where the processor has units for it). Each loop
is a process of its own (`train_loops.py`), all of them alive at once; they take turns of three
steps, of which two are timed, forwards and backwards in alternate rounds. A ratio is of two turns
of one round, seconds apart; the median over rounds is told, and between which half of them lie.
LitGPT lies in a folder of its own (`make .peers-train/.ready`); where that is missing it is left
out. Saves, of which a run has one in many steps, are left out of these few, as the Trainer's are:
`checkpoint_blocking.py` measures them.

    python benchmarks/train_peers.py [--rounds 12] [--models 6M,25M,128k] [--shared]

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
from record import Figure, arguments_of, write_results

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / ".peers-train"
VOCABULARY = 4096
NUM_WARMUPS = 3
TURN = 3


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
        "turn": TURN,
        "half": cpu_multiplies_bf16(),
        "shared": shared,
    }


class Loop:
    """A loop in a process of its own, warmed up and waiting for its turn.

    Raises:
        SystemExit: the process ended with an error; its last words are told.
    """

    def __init__(self, name: str, settings: Found, folder: Path) -> None:
        self.name = name
        self._outputs = tempfile.TemporaryDirectory(dir=folder)
        outputs = Path(self._outputs.name)
        path = outputs / "settings.json"
        path.write_text(json.dumps({**settings, "output": f"{outputs}/run"}), encoding="utf-8")
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        if settings["shared"]:
            environment["OMP_NUM_THREADS"] = "1"
        if name.startswith("litgpt"):
            environment["PYTHONPATH"] = str(PEERS)
        self._errors = (outputs / "errors").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "train_loops.py"), name, str(path)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._wait()

    def take_turn(self) -> None:
        """Let the process take its next steps, and wait for their end."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._wait()

    def told(self) -> Found:
        """Return what the process told after its last turn."""
        found: Found = json.loads(self._last)
        self._process.wait()
        self._errors.close()
        self._outputs.cleanup()
        return found

    def _wait(self) -> None:
        assert self._process.stdout is not None
        self._last = self._process.stdout.readline()
        if not self._last:
            self._errors.seek(0)
            last_words = self._errors.read()[-3000:]
            raise SystemExit(f"{self.name} ended with {self._process.wait()}:\n{last_words}")


def measure(names: list[str], settings: Found, num_rounds: int, folder: Path) -> dict[str, Found]:
    """Let all loops take their turns; return what each told, by its name."""
    loops = [Loop(name, settings, folder) for name in names]
    for number in range(num_rounds):
        print(f"  round {number + 1} of {num_rounds}", flush=True)
        for loop in loops[:: 1 if number % 2 else -1]:
            loop.take_turn()
    measured = {loop.name: loop.told() for loop in loops}
    batch = settings["num_sequences"] * settings["length"]
    for name, found in measured.items():
        found["tokens_per_s"] = batch / statistics.median(found["turns_s"])
        print(
            f"  {name}: {found['tokens_per_s']:.0f} tokens/s, "
            f"{found['peak_bytes'] / 2**20:.0f} MiB, {found['warm_up_s']:.1f} s to warm up",
            flush=True,
        )
    return measured


def times_as_quick(one: Found, other: Found) -> tuple[float, tuple[float, float]]:
    """Return the median over rounds of one loop's rate over another's, and between which half of
    them lie.
    """
    rounds = [b / a for a, b in zip(one["turns_s"], other["turns_s"], strict=True)]
    low, median, high = (float(part) for part in statistics.quantiles(rounds, n=4))
    half = max(low, min(rounds)), min(high, max(rounds))  # of two rounds quartiles lie beyond both
    print(f"    {median:.3f}, half of the rounds {half[0]:.3f} to {half[1]:.3f}")
    return median, half


def figures_of(name: str, measured: dict[str, Found]) -> list[Figure]:
    """Return a model's figures."""
    told = TOLD[name]
    figures = []
    large = name == "128k"
    for way, least in (("", 1.0), (", compiled", 1.1)):
        ours = f"rewarm{way}"
        for peer in ("trainer", "litgpt", "bare"):
            other = {"": "litgpt, eager", ", compiled": "litgpt"}[way]
            other = other if peer == "litgpt" else f"{peer}{way}"
            if ours not in measured or other not in measured:
                continue
            goals: tuple[float | None, float | None] = (None, None)
            if peer == "trainer":
                goals = (least, None)
            if large and peer == "trainer" and not way:
                goals = (1 / 0.75, 0.4)
            print(f"  {ours} against {other}")
            speed, half = times_as_quick(measured[ours], measured[other])
            memory = measured[ours]["peak_bytes"] / measured[other]["peak_bytes"]
            figures += [
                Figure(f"{told}: tokens/s of {ours}", speed, "", "higher", goals[0], other, half),
                Figure(f"{told}: memory of {ours}", memory, "", "lower", goals[1], other),
            ]
    for loop, found in measured.items():
        if loop == "rewarm":
            waits = found["data_wait_share"]
            figures.append(
                Figure(f"{told}: waiting for windows", waits, "", "lower", 0.01, "the step")
            )
        figures += [
            Figure(f"{told}: {loop}", found["tokens_per_s"], "tokens/s", "higher"),
            Figure(f"{told}: {loop}, peak", found["peak_bytes"] / 2**20, "MiB", "lower"),
        ]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Training beside peers.")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--models", default=",".join(SHAPES))
    parser.add_argument("--loops", default=";".join(LOOPS), help="names, apart by ';'")
    parser.add_argument("--shared", action="store_true")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds: at least 2, as the spread over rounds is told")
    loops = [
        loop for loop in options.loops.split(";") if PEERS.exists() or not loop.startswith("litgpt")
    ]
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_text(folder)
        for name in options.models.split(","):
            num_steps = NUM_WARMUPS + TURN * options.rounds
            settings = prepare(folder, name, num_steps, shared=options.shared)
            print(name, flush=True)
            figures += figures_of(name, measure(loops, settings, options.rounds, folder))
    if options.shared:
        figures = [figure_beside_other_work(figure) for figure in figures]
    others = tuple(f"{TOLD[name]}: " for name in TOLD if name not in options.models.split(","))
    write_results(
        "train_peers",
        figures,
        stays=lambda name: name.startswith(others),
        arguments=arguments_of(options),
    )


def figure_beside_other_work(figure: Figure) -> Figure:
    """Return a figure that says how it was taken."""
    return Figure(**{**vars(figure), "name": f"{figure.name} (processor time, one thread)"})


if __name__ == "__main__":
    main()
