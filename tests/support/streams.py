"""Small made-up images for streams, and the file of an experiment on them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

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
