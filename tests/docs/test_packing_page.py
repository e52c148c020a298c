"""docs/packing.md: its figures are on record."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "packing.md").read_text(encoding="utf-8")
FOUND = {
    row["name"]: row["value"]
    for row in json.loads((ROOT / "benchmarks" / "results" / "packing.json").read_text())
}
CORPORA = {
    "14 corpora, each packed by itself": "all corpora",
    "the same": "all corpora",
    "Python files": "code_python",
    "MedQuAD, a document per topic": "medquad",
    "a civics textbook, by module": "openstax_life_liberty",
    "plays in pieces of 10 kB": "tinyshakespeare",
}


def test_the_table_is_the_record() -> None:
    rows = re.findall(
        r"^\| ([^|]+?) \| ([\d,]+) \| ([\d.]+) % \| ([\d.]+) % \| ([\d.]+) % \|$",
        PAGE,
        re.MULTILINE,
    )
    assert len(rows) == 7
    for name, length, contiguous, best_fit, padding in rows:
        of = f"{CORPORA[name]}, {length} tokens"
        assert float(contiguous) == round(FOUND[f"documents cut, contiguous: {of}"], 1)
        assert float(best_fit) == round(FOUND[f"documents cut, best-fit: {of}"], 1)
        assert float(padding) == round(FOUND[f"padding, best-fit: {of}"], 2)


def test_the_rates_and_the_memory_are_those_on_record() -> None:
    text = " ".join(PAGE.split())
    for pattern, name, digits in (
        (r"([\d.]+) million documents/s into sequences of 2,048", "packing into 2,048 tokens", 1),
        (r"([\d.]+) million into 512", "packing into 512 tokens", 1),
        (r"gathered at ([\d.]+) M tokens/s", "packed windows gathered", 0),
    ):
        found = re.search(pattern, text)
        assert found, pattern
        assert float(found[1]) == round(FOUND[name], digits)
    assert "some 450 MB" in text
    assert 430 < 4.2 * FOUND["memory for packing 4.2 M documents"] < 470
