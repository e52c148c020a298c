"""A folder with a recipe whose old text the base makes up."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from rewarm.corpus.rehearsed import Rehearsal
from rewarm.stages.job import open_job
from rewarm.stages.survey import survey
from tests.support.road import SENTENCE
from tests.support.tiny_models import make_tiny_base

# The tiny base is random: it writes special tokens in the midst of texts and repeats nothing, so
# texts are short, and what is kept is kept.
SETTINGS: dict[str, Any] = {
    "tokens": 1500,
    "max_tokens_per_sample": 40,
    "min_tokens": 5,
    "batch_samples": 16,
}


def recipe_text(settings: dict[str, Any] | None = None, **more: Any) -> str:
    """Return the TOML of a recipe with the source `made`; JSON scalars are TOML's."""
    rehearse = {**SETTINGS, **(settings or {}), **more}
    keys = ", ".join(f"{key} = {json.dumps(value)}" for key, value in rehearse.items())
    return f"""\
name = "r"
base = {{ path = "base", pretraining = {{ peak_lr = 1e-2, final_lr = 1e-3 }} }}
budget = {{ tokens = 4096 }}
batch = {{ tokens = 256, sequence_length = 32 }}
sources.new = {{ path = "new.jsonl", role = "new", held_out = 0.1 }}
phases = [{{ name = "all", weights = {{ new = 0.75, made = 0.25 }} }}]
[training]
num_threads = 1
[sources.made]
role = "replay"
held_out = 0.1
rehearse = {{ {keys} }}
"""


def make_rehearsal_folder(folder: Path, **settings: Any) -> Path:
    """Write base, new text and `recipe.toml`; return the folder."""
    make_tiny_base(folder / "base")
    rng = random.Random(0)
    texts = [" ".join(rng.choice(SENTENCE.split()) for _ in range(60)) for _ in range(120)]
    (folder / "new.jsonl").write_text(
        "".join(json.dumps({"text": f"{text} {n}"}) + "\n" for n, text in enumerate(texts))
    )
    (folder / "recipe.toml").write_text(recipe_text(settings))
    return folder


def rehearsal_in(folder: Path) -> Rehearsal:
    """Return the rehearsal of the folder's recipe."""
    found = survey(open_job(folder / "recipe.toml"))
    (rehearsal,) = found.rehearsals
    return rehearsal


def contents(folder: Path) -> dict[str, bytes]:
    """Return what determines training of a folder of sampled text: not its times and versions."""
    endings = (".bin", ".idx", ".npy", ".ids")
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name.endswith(endings)}
