"""What the streams of the reproduction are over."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import zstandard

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "reproduction"))

import backbones  # noqa: E402


def test_labelled_texts_are_of_one_document_each_spread_over_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of one document would be trained on and tested on."""
    monkeypatch.setattr(backbones, "_STREAMED", ("a", "b"))
    (tmp_path / "text").mkdir()
    for source in ("a", "b"):
        documents = [f"{source}{number:02d} " * 400 for number in range(20)] + ["short"]
        lines = "".join(json.dumps({"text": text}) + "\n" for text in documents)
        packed = zstandard.ZstdCompressor().compress(lines.encode())
        (tmp_path / "text" / f"{source}.jsonl.zst").write_bytes(packed)
    lengths = backbones.Lengths(image_epochs=1, text_steps=1, texts_each=5, digits_each=1)

    backbones.make_labelled_texts(tmp_path, tmp_path / "labelled.jsonl", lengths)

    rows = [json.loads(line) for line in (tmp_path / "labelled.jsonl").read_text().splitlines()]
    of = [(row["label"], row["text"].split()[1]) for row in rows]
    assert of == [(s, f"{s}{n:02d}") for s in ("a", "b") for n in (0, 4, 8, 12, 16)]
    assert {len(row["text"]) for row in rows} == {256}
