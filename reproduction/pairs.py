"""English and German sentences that mean the same, from the two halves of XQuAD.

Questions are paired by their id; passages are cut into sentences where both languages have as many,
of alike length. Each pair bears its article, by which it is held out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import zstandard

from rewarm.artifacts import write_atomically

__all__ = ["CORPORA", "make_pairs", "paired_sentences"]

CORPORA = ("qa/xquad_de.jsonl.zst", "qa/xquad_en.jsonl.zst")
_END = re.compile(r"(?<=[.!?])\s+(?=[\"„(]?[A-ZÄÖÜ0-9])")
_ALIKE = (0.5, 2.0)
"""German characters for each English one: beyond these, sentences are taken for others."""


def make_pairs(data: Path, path: Path) -> int:
    """Write the pairs as JSON lines: id, article, question (English), answer (German), text.

    Returns how many there are.
    """
    of_german, of_english = (data / name for name in CORPORA)
    german = {item["id"]: item for item in _items(of_german)}
    english = [item for item in _items(of_english) if item["id"] in german]
    lines = []
    seen: set[str] = set()
    for item in english:
        other = german[item["id"]]
        pairs = [(item["question"], other["question"])]
        if item["context"] not in seen:
            seen.add(item["context"])
            pairs += paired_sentences(item["context"], other["context"])
        for number, (source, target) in enumerate(pairs):
            value = {
                "id": f"{item['id']}#{number}",
                "article": item["article"],
                "question": source,
                "answer": target,
                "text": f"Question: {source}\nAnswer: {target}",
            }
            lines.append(json.dumps(value, ensure_ascii=False) + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(lines))
    return len(lines)


def paired_sentences(one: str, other: str) -> list[tuple[str, str]]:
    """Return the sentences of two passages side by side; none where they do not match.

    >>> paired_sentences("It rains. We stay.", "Es regnet. Wir bleiben.")
    [('It rains.', 'Es regnet.'), ('We stay.', 'Wir bleiben.')]
    >>> paired_sentences("It rains. We stay.", "Es regnet, wir bleiben.")
    []
    """
    first, second = _END.split(one.strip()), _END.split(other.strip())
    if len(first) != len(second):
        return []
    pairs = list(zip(first, second, strict=True))
    low, high = _ALIKE
    return pairs if all(low <= len(b) / len(a) <= high for a, b in pairs) else []


def _items(path: Path) -> Iterator[dict[str, str]]:
    with zstandard.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
