"""Every row of docs/failures.md names a test that is there, or says that it was not tried."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def rows() -> list[list[str]]:
    text = (ROOT / "docs/failures.md").read_text(encoding="utf-8")
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    return [row for row in cells if row[0] != "what happens"]


def test_every_row_is_backed_or_says_that_it_is_not() -> None:
    assert len(rows()) > 25
    for row in rows():
        assert len(row) == 4, row
        backing = row[3].strip("| ")
        if backing == "not tried here":
            continue
        for name in backing.split(", "):
            found = re.fullmatch(r"`(tests/\S+\.py)::(\w+)`", name)
            assert found is not None, backing
            source = (ROOT / found[1]).read_text(encoding="utf-8")
            assert f"def {found[2]}(" in source, name


def test_what_the_rows_quote_is_what_the_code_says() -> None:
    """Words in code marks that are no option, file or test stand in the source."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    flat = re.sub(r"`", "", " ".join(re.sub(r'"\s*f?"', "", source).split()))
    for row in rows():
        for quoted in re.findall(r"`([^`]+)`", row[1]):
            for part in re.split(r"…|\d+|:", quoted):
                words = part.strip(" ,;")
                assert words in flat or len(words) < 12, f"{words!r} of {quoted!r}"
