"""Small made-up images and corpora for streams, and the files of experiments on them."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.support.road import SENTENCE
from tests.support.tiny_models import make_tiny_base

Image = pytest.importorskip("PIL.Image", reason="images need pillow")

EXPERIMENT = """
name = "made-up"
seeds = 2
[source]
path = "a.parquet"
kind = "image"
image_size = 8
[scenario]
tasks = 2
batch = 4
evaluate_every = 2
[memory]
size = 12
batch = 4
[backbones.scratch]
small = "cnn"
[learners]
"""


def png(level: int) -> bytes:
    """Return a flat image."""
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), level, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_images(path: Path, *, num_classes: int = 4, each: int = 12) -> None:
    """Write flat images whose brightness is their class."""
    rows = [
        {"image": png(20 + 60 * label + shade), "label": f"c{label}"}
        for label in range(num_classes)
        for shade in range(each)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), path)


CORPORA = """
name = "domains"
seeds = 2
[source]
kind = "corpora"
[source.corpora.words]
path = "words.jsonl"
[source.corpora.numbers]
path = "numbers.jsonl"
[source.corpora.code]
path = "code.jsonl"
[scenario]
order = "given"
batch = 4
tokens = 1536
evaluate_every = 2
[memory]
size = 12
batch = 1
[backbones.base]
path = "base"
lr = 1e-2
[learners]
fine-tune = { algorithm = "fine-tune" }
er = { algorithm = "er" }
[recipe]
training = { num_threads = 1 }
batch = { sequence_length = 64 }
evaluation = { max_bytes_per_domain = 2000, stride_fraction = 1.0 }
"""
"""Three corpora of 6 steps each, over the base of `write_corpora`."""


def write_corpora(folder: Path, experiment: str = CORPORA) -> Path:
    """Write a tiny base, three corpora and an experiment on them; return the experiment's path."""
    folder.mkdir(parents=True, exist_ok=True)
    make_tiny_base(folder / "base")
    rng = random.Random(0)
    words_of = {
        "words": SENTENCE.split(),
        "numbers": [str(number) for number in range(100, 120)],
        "code": ["def", "return", "x", "y", "(", ")", ":", "+"],
    }
    for name, words in words_of.items():
        texts = [" ".join(rng.choice(words) for _ in range(40)) for _ in range(120)]
        lines = "".join(f'{{"text": "{text} {k}"}}\n' for k, text in enumerate(texts))
        (folder / f"{name}.jsonl").write_text(lines)
    path = folder / "stream.toml"
    path.write_text(experiment)
    return path
