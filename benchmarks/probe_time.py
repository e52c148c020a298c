"""The plan's time after a probe beside the wall clock of the run, and what its start took.

A run of 200 steps is planned on a probe, then trained by the command line; then a launch that
resumes one of its kind, for the parts of a cold start and of a resume. Needs a quiet machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

from record import Figure, write_results

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rewarm.planning.plan import Plan, load_plan
from rewarm.records.probe import Probe
from rewarm.records.run_folder import RunFolder
from tests.support.road import make_reader_folder
from tests.support.tiny_models import make_family_folder

LLAMA = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8, "vocab_size": 4096}
LENGTH = 512
OVERRIDES = (
    "batch.tokens=2048",
    f"batch.sequence_length={LENGTH}",
    "evaluation.matched_continuation_items=0",
)
OPTIONS = [part for override in OVERRIDES for part in ("-o", override)]


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


def time_figures(folder: Path) -> list[Figure]:
    """Return the wall clock of 200 steps over the plan's time after a probe."""
    rewarm(folder, "prepare", "r.toml", *OPTIONS)
    rewarm(folder, "plan", "r.toml", "--probe", *OPTIONS)
    (path,) = (folder / "runs").iterdir()
    run = RunFolder(path)
    probe = Probe.model_validate_json(run.probe.read_text())
    plan = load_plan(run.plan)
    assert plan.science.num_steps == 200
    started = time.perf_counter()
    rewarm(folder, "train", "r.toml", *OPTIONS)
    took = time.perf_counter() - started
    ratio = took / estimate(plan, "time")
    return [
        Figure("200 steps: off the probe's time", abs(ratio - 1), "", "lower", 0.1, "the plan"),
        Figure("200 steps: wall clock over the probe's time", ratio, "", "lower"),
        Figure("a step in the probe", probe.best.step_s, "s", "lower"),
        *start_figures(run, "cold start"),
    ]


def resume_figures(folder: Path) -> list[Figure]:
    """Return what a launch takes that goes on from a checkpoint."""
    options = [*OPTIONS, "-o", 'name="resumed"']
    for until_step in ("2", "4"):
        rewarm(folder, "train", "r.toml", "--until-step", until_step, *options)
    return start_figures(RunFolder(folder / "runs" / "resumed"), "resume")


def start_figures(run: RunFolder, name: str) -> list[Figure]:
    """Return the parts of the last launch's start, before its first step."""
    launches = [event for event in run.events() if event.kind in ("launch", "resume")]
    parts = cast("list[tuple[str, float]]", launches[-1].details["start_s"])
    whole = sum(seconds for _, seconds in parts)
    figures = [Figure(f"{name}: {part}", seconds, "s", "lower") for part, seconds in parts]
    return [Figure(f"{name}, to the first step", whole, "s", "lower"), *figures]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = made(Path(name) / "reader")
        write_results("probe_time", [*time_figures(folder), *resume_figures(folder)])


if __name__ == "__main__":
    main()
