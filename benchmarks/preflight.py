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

from record import Figure, write_results

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rewarm.planning.plan import Plan, load_plan
from rewarm.records.probe import Probe
from tests.support.road import make_reader_folder
from tests.support.tiny_models import make_family_folder

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, 8 layers of 256, 4k entries": (
        "llama",
        {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8, "vocab_size": 4096},
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
    ),
    "gpt_neox, 6 layers of 384, 8k entries": (
        "gpt_neox",
        {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "vocab_size": 8192},
    ),
    "olmo2, 8 layers of 512, 16k entries": (
        "olmo2",
        {
            "hidden_size": 512,
            "intermediate_size": 1376,
            "num_hidden_layers": 8,
            "vocab_size": 16_384,
        },
    ),
}
LENGTH, BATCH = 512, 8192
WITHIN = 0.15


def rewarm(folder: Path, *arguments: str) -> None:
    """Run a verb in a folder, in silence."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent / "src")}
    command = [sys.executable, "-m", "rewarm", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")


def made(folder: Path, family: str, shape: dict[str, Any], tokens: str) -> Path:
    """Return a folder with a base of a shape, prepared text and a recipe."""
    make_reader_folder(folder)
    for file in (folder / "my-model").iterdir():
        file.unlink()
    make_family_folder(folder / "my-model", family, max_position_embeddings=LENGTH, **shape)
    flags = f"--base my-model --text my-text --replay my-old-text --budget {tokens} --peak-lr 1e-3"
    rewarm(folder, "init", "r.toml", *flags.split())
    return folder


def probed(folder: Path, *overrides: str) -> tuple[Plan, Probe, Plan]:
    """Return plan, probe, and the plan after it."""
    options = [part for override in overrides for part in ("-o", override)]
    rewarm(folder, "prepare", "r.toml", *options)
    rewarm(folder, "plan", "r.toml", *options)
    (run,) = (folder / "runs").iterdir()
    before = load_plan(run / "plan.json")
    rewarm(folder, "plan", "r.toml", "--probe", *options)
    probe = Probe.model_validate_json((run / "probe.json").read_text())
    return before, probe, load_plan(run / "plan.json")


def estimate(plan: Plan, name: str) -> float:
    """Return one of a plan's estimates."""
    return next(found.value for found in plan.estimates if found.name == name)


def memory_figures(root: Path) -> list[Figure]:
    """Return measured peaks over estimated ones."""
    figures = []
    for name, (family, shape) in SHAPES.items():
        for precision in ("float32", "bf16"):
            folder = made(root / f"{family}-{precision}", family, shape, "200k")
            before, probe, _ = probed(
                folder,
                f"batch.tokens={BATCH}",
                f"batch.sequence_length={LENGTH}",
                f'training.precision="{precision}"',
            )
            trial = probe.trials[0]
            peak = trial.peak_bytes - trial.process_bytes
            ratio = peak / estimate(before, "peak memory")
            print(f"{name} {precision}: {peak / 2**20:.0f} MiB, {ratio:.3f}", flush=True)
            figures.append(
                Figure(f"{name}, {precision}: peak", ratio, "", "lower", 1 + WITHIN, "the estimate")
            )
    worst = max(abs(figure.value - 1) for figure in figures)
    return [
        Figure("memory estimate, furthest from the peak", worst, "", "lower", WITHIN, "the peak"),
        *figures,
    ]


def time_figures(root: Path) -> list[Figure]:
    """Return the wall clock of 200 steps over the plan's time after a probe."""
    family, shape = SHAPES["llama, 8 layers of 256, 4k entries"]
    folder = made(root / "time", family, shape, str(200 * 2048))
    overrides = (
        "batch.tokens=2048",
        f"batch.sequence_length={LENGTH}",
        "evaluation.matched_continuation_items=0",
    )
    _, probe, plan = probed(folder, *overrides)
    assert plan.science.num_steps == 200
    started = time.perf_counter()
    rewarm(folder, "train", "r.toml", *(p for o in overrides for p in ("-o", o)))
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
        figures = [figure for part in wanted for figure in parts[part](Path(name))]
    if len(wanted) == len(parts):
        write_results("preflight", figures)


if __name__ == "__main__":
    main()
