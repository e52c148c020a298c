"""A folder with questions, and a corpus that the texts they were made from are hidden in."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tests.support.tiny_models import make_tiny_base

# Letters of words that mean nothing: what a text is about is its three rare ones.
_SYLLABLES = ("ba", "ke", "lo", "mi", "nu", "pra", "sti", "ver", "gan", "dol")
_COMMON = ("the", "of", "and", "a", "in", "to", "was", "is", "for", "on", "with", "as", "by", "at")
NUM_ASKED = 40


def _word(rng: random.Random) -> str:
    return "".join(rng.choice(_SYLLABLES) for _ in range(4))


def _text(rng: random.Random, words: list[str], usual: list[str]) -> str:
    filling = [rng.choice(_COMMON) for _ in range(25)] + [rng.choice(usual) for _ in range(20)]
    every = filling + words
    rng.shuffle(every)
    return " ".join(every)


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_asked_folder(folder: Path, *, reverse: bool = False, num_others: int = 160) -> Path:
    """Write `base`, `qa.jsonl` (ids q-N) and `web.jsonl` (asked-N, other-N; copy-N, the same text
    as asked-N, and near-N, nearly the same, of the first four); return the folder.

    Question N is about what text asked-N says. With `reverse` the corpus stands the other way
    round.
    """
    folder.mkdir(parents=True, exist_ok=True)
    make_tiny_base(folder / "base")
    rng = random.Random(0)
    usual = [_word(rng) for _ in range(60)]
    web: list[dict[str, str]] = []
    qa: list[dict[str, str]] = []
    for number in range(NUM_ASKED):
        rare = [_word(rng) for _ in range(3)]
        web.append({"id": f"asked-{number}", "text": _text(rng, rare, usual)})
        question = f"Which {rare[0]} is the {rare[1]} of {rng.choice(usual)}?"
        qa.append({"id": f"q-{number}", "question": question, "answer": rare[2]})
    for number in range(4):
        web.append({"id": f"copy-{number}", "text": web[number]["text"]})
        web.append({"id": f"near-{number}", "text": web[number]["text"] + " end"})
    for number in range(num_others):
        words = [_word(rng) for _ in range(3)]
        web.append({"id": f"other-{number}", "text": _text(rng, words, usual)})
    rng.shuffle(web)
    _write(folder / "web.jsonl", web[::-1] if reverse else web)
    _write(folder / "qa.jsonl", qa)
    return folder


def asked_recipe(keep: str, *, name: str = "r", more: str = "", qa: str = "") -> str:
    """Return the TOML of a recipe that keeps a part of `web`."""
    asked = qa or 'path = "qa.jsonl", question_field = "question", answer_field = "answer"'
    return f"""\
name = "{name}"
base = {{ path = "base", pretraining = {{ peak_lr = 1e-2, final_lr = 1e-3 }} }}
budget = {{ tokens = 2048 }}
batch = {{ tokens = 256, sequence_length = 32 }}
sources.web = {{ path = "web.jsonl", role = "quality", held_out = 0.1{keep and ", " + keep} }}
sources.qa = {{ {asked}, role = "qa", held_out = 0.2 }}
phases = [{{ name = "all", weights = {{ web = 1.0 }} }}]
{more}
[training]
num_threads = 1
"""


def nearest(settings: str = "") -> str:
    """Return the `keep` that takes five neighbours of each question."""
    return f'keep = {{ nearest = "qa", neighbours = 5{", " + settings if settings else ""} }}'
