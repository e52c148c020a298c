"""docs/mining.md: its recipe is one, its figures are on record, and what it promises of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from rewarm.recipe.keep import LSA, TF_IDF
from rewarm.recipe.load import parse_recipe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "mining.md").read_text(encoding="utf-8")
ROWS = json.loads((ROOT / "benchmarks" / "results" / "mining.json").read_text(encoding="utf-8"))
VALUES = {row["name"]: row["value"] for row in ROWS}
COLUMNS = ("tf-idf", "BM25", "lsa", "random")


def test_the_recipe_is_one() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    keep = parse_recipe(text).sources["mined"].keep
    assert keep is not None
    assert (keep.nearest, keep.neighbours, keep.tokens) == ("qa", 50, 60_000_000)


def test_the_embeddings_without_a_model_are_in_the_table() -> None:
    assert set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)) == {"embedding", TF_IDF, LSA}


def test_the_figures_are_those_on_record() -> None:
    rows = re.findall(
        r"^\| ([\w ]+), ([a-z-]+) \| ([\d.–]+) \| ([\d.–]+) \| ([\d.–]+) \| ([\d.–]+) \| (.+?) \|$",
        PAGE,
        re.MULTILINE,
    )
    assert len(rows) == 8
    for case, which, *figures, difference in rows:
        for name, figure in zip(COLUMNS, figures, strict=True):
            if figure != "–":
                assert float(figure) == round(VALUES[f"{case}, {which}: recall, {name}"], 3)
        name = f"{case}, {which}: recall, tf-idf less BM25"
        (versus,) = [row["versus"] for row in ROWS if row["name"] == name]
        low, high = re.findall(r"[+-][\d.]+", versus)
        told = f"{VALUES[name]:+.3f} ({low} to {high})".replace("-", "−")
        assert difference == told
