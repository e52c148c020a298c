"""docs/speed.md: its tables are the figures on record, and its drawings are drawn from them."""

from __future__ import annotations

import json
import re

from tools.speed_page import BLOCKS, PAGE, RESULTS, written

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_tables_are_written_from_the_record() -> None:
    assert written(TEXT) == TEXT, "run: python tools/speed_page.py"
    assert set(re.findall(r"<!-- figures ([a-z_]+) -->", TEXT)) == BLOCKS.keys()


def test_drawings_are_there_and_hold_as_many_points_as_the_record() -> None:
    drawings = re.findall(r'<img src="(figures/growth-[a-z-]+\.svg)"', TEXT)
    assert len(drawings) == 7
    path = RESULTS / "growth.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    for drawing in drawings:
        svg = (PAGE.parent / drawing).read_text(encoding="utf-8")
        found = re.search(r"<title>([^<]+)</title>", svg)
        assert found is not None
        points = [row for row in rows if row["name"].startswith(f"{found[1]}, at ")]
        (curve,) = re.findall(r'<path class="[^"]*\bline\b[^"]*" d="([^"]+)"', svg) or [""]
        assert len(re.findall(r"[ML]", curve)) == len(points) > 1, drawing
