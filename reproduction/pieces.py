"""Corpora whose documents are pieces of chapters, speeches and articles.

A whole chapter has 20 kB: what an evaluation may read would be two or three of them. Of pieces it
is some twenty, from as many chapters. Each bears its document, by which it is held out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import zstandard

from rewarm.artifacts import write_atomically

__all__ = ["NUM_CHARACTERS", "cut", "make_pieces"]

NUM_CHARACTERS = 2000
"""A piece ends with the first line (else the first word) by which it is as long."""
_LONGEST = 2 * NUM_CHARACTERS


def make_pieces(data: Path, folder: Path) -> None:
    """Write every corpus of data/text into a folder as JSON lines: document, text.

    What is there already is left as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((data / "text").glob("*.jsonl.zst")):
        written = folder / path.name.removesuffix(".zst")
        if not written.exists():
            write_atomically(written, "".join(_lines(path)))


def _lines(path: Path) -> Iterator[str]:
    with zstandard.open(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            for piece in cut(json.loads(line)["text"]):
                value = {"document": f"{path.name}:{number}", "text": piece}
                yield json.dumps(value, ensure_ascii=False) + "\n"


def cut(text: str) -> list[str]:
    """Return the pieces of a text, which are it when they are put together.

    >>> [len(piece) for piece in cut("a" * 2100 + chr(10) + "b" * 1500)]
    [2101, 1500]
    >>> [len(piece) for piece in cut("four " * 1000)]
    [2000, 2000, 1000]
    """
    pieces, start = [], 0
    while len(text) - start > NUM_CHARACTERS:
        least, most = start + NUM_CHARACTERS, start + _LONGEST
        end = text.find("\n", least - 1, most)
        if end < 0:
            end = text.find(" ", least - 1, most)
        if end < 0:
            end = min(most, len(text)) - 1
        pieces.append(text[start : end + 1])
        start = end + 1
    if text[start:].strip() or not pieces:
        pieces.append(text[start:])
    else:
        pieces[-1] += text[start:]
    return pieces
