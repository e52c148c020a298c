"""A folder with a base, a reference of one kind of text, and a corpus of that kind and another."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tests.support.tiny_models import make_tiny_base

LIKE = "the patient was given a dose of the drug and the trial ended after two weeks of care"
UNLIKE = "she walked down to the sea where a boat lay and sang of love while evening fell"


def _text(rng: random.Random, words: str, number: int) -> str:
    return " ".join(rng.choice(words.split()) for _ in range(rng.randint(20, 60))) + f" {number}"


def _write(path: Path, texts: list[tuple[str, str]]) -> None:
    rows = (json.dumps({"id": name, "text": text}) for name, text in texts)
    path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")


def make_mixed_folder(folder: Path, *, copies: int = 0) -> Path:
    """Write `base`, `good.jsonl` and `web.jsonl` (ids like-N, unlike-N, copy-N); return the folder.

    `copies` of the reference's texts stand in the corpus too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    make_tiny_base(folder / "base")
    rng = random.Random(0)
    good = [(f"good-{n}", _text(rng, LIKE, n)) for n in range(60)]
    web = [(f"like-{n}", _text(rng, LIKE, 100 + n)) for n in range(40)]
    web += [(f"unlike-{n}", _text(rng, UNLIKE, 200 + n)) for n in range(120)]
    web += [(f"copy-{n}", text) for n, (_, text) in enumerate(good[:copies])]
    rng.shuffle(web)
    _write(folder / "good.jsonl", good)
    _write(folder / "web.jsonl", web)
    return folder


def recipe_text(keep: str, *, name: str = "r", more: str = "") -> str:
    """Return the TOML of a recipe that keeps a part of `web`."""
    return f"""\
name = "{name}"
base = {{ path = "base", pretraining = {{ peak_lr = 1e-2, final_lr = 1e-3 }} }}
budget = {{ tokens = 2048 }}
batch = {{ tokens = 256, sequence_length = 32 }}
sources.web = {{ path = "web.jsonl", role = "new", held_out = 0.1{", " + keep if keep else ""} }}
sources.good = {{ path = "good.jsonl", role = "quality", held_out = 0.1 }}
phases = [{{ name = "all", weights = {{ web = 1.0 }} }}]
{more}
[training]
num_threads = 1
"""


PERPLEXITY = 'keep = { lowest = "perplexity", share = 0.2, reference = "good", ngram = 3 }'
CLASSIFIER = 'keep = { highest = "classifier", share = 0.2, reference = "good" }'
BASE_LOSS = 'keep = { lowest = "base-loss", share = 0.2 }'
