"""A folder such as a reader of the tutorial has: a model, new text, old text."""

from __future__ import annotations

import random
from pathlib import Path

from tests.support.tiny_models import make_tiny_base

SENTENCE = "the a model trains on text with a rate and some data to learn from in every step"


def make_reader_folder(folder: Path, *, num_documents: int = 250) -> Path:
    """Write `my-model`, `my-text` and `my-old-text`, of so many files each; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    make_tiny_base(folder / "my-model")
    rng, words = random.Random(0), SENTENCE.split()
    for name, ending in (("my-text", "new"), ("my-old-text", "old")):
        (folder / name).mkdir()
        for number in range(num_documents):
            text = " ".join(rng.choice(words) for _ in range(120))
            (folder / name / f"{number:03d}.txt").write_text(f"{text} {ending} {number}")
    return folder
