"""A tiny base, two texts, a recipe and experiments over them, each of whose runs takes a moment."""

from __future__ import annotations

import json
import random
from pathlib import Path

from rewarm.records.comparison import ComparisonResult
from rewarm.records.run_folder import RunFolder
from tests.support.road import SENTENCE
from tests.support.tiny_models import make_tiny_base

RECIPE = """\
name = "shared"
base = {{ path = "base", pretraining = {{ peak_lr = 1e-2, final_lr = 1e-3 }} }}
budget = {{ tokens = {tokens} }}
batch = {{ tokens = 256, sequence_length = 64 }}
sources.old = {{ path = "old.jsonl", role = "general", held_out = 0.1 }}
sources.new = {{ path = "new.jsonl", role = "new", held_out = 0.1 }}
phases = [{{ name = "all", weights = {{ new = 1.0 }} }}]
schedule = {{ peak_lr = "pretraining.peak", final_lr = "peak/10" }}
evaluation = {{ every_steps = {every}, max_bytes_per_domain = 2000, stride_fraction = 1.0 }}
checkpoints = {{ every_steps = {save_every} }}
"""

EXPERIMENT = """\
name = "replay"
hypothesis = "A quarter of old text lowers forgetting, at little cost."
recipe = "recipe.toml"
seeds = 3
control = "none"
noise_floor = true

[[primary]]
metric = "forgetting"
expect = "lower"

[[primary]]
metric = "adaptation"
expect = "equal"
within = 0.05

[arms.none]
description = "new text alone"

[arms.replay]
description = "a quarter of old text"
set.phases = [{ name = "all", weights = { new = 0.75, old = 0.25 } }]

[run]
mode = "processes"
workers = 2
threads_each = 1
"""


def make_comparison_folder(
    folder: Path,
    experiment: str = EXPERIMENT,
    *,
    tokens: int = 1536,
    save_every: int = 100,
    evaluate_every: int = 100,
    seed: int = 0,
) -> Path:
    """Write base, text, `recipe.toml` and `experiment.toml`; return the experiment's path."""
    make_tiny_base(folder / "base", seed=seed)
    rng = random.Random(0)
    for name, words in (("old", SENTENCE.split()), ("new", [str(n) for n in range(100, 120)])):
        texts = (" ".join(rng.choice(words) for _ in range(60)) for _ in range(160))
        lines = "".join(f'{{"text": "{text} {k}"}}\n' for k, text in enumerate(texts))
        (folder / f"{name}.jsonl").write_text(lines)
    recipe = RECIPE.format(tokens=tokens, save_every=save_every, every=evaluate_every)
    (folder / "recipe.toml").write_text(recipe)
    path = folder / "experiment.toml"
    path.write_text(experiment)
    return path


def root_of(experiment: Path) -> Path:
    """Return the folder of the comparison that an `experiment.toml` made here describes."""
    return experiment.parent / "comparisons" / "replay"


def result_of(experiment: Path) -> ComparisonResult:
    """Return what its comparison came to."""
    written = (root_of(experiment) / "result.json").read_text()
    return ComparisonResult.model_validate(json.loads(written))


def run_of(experiment: Path, arm: str, seed: int) -> RunFolder:
    """Return the folder of one of its runs."""
    return RunFolder(root_of(experiment) / "runs" / arm / f"seed-{seed}")
