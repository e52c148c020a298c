"""docs/selection.md: its recipe is one, its table names every score, its figures are on record."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

from rewarm.recipe.keep import KeepRecipe, Score
from rewarm.recipe.load import parse_recipe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "selection.md").read_text(encoding="utf-8")


def test_the_recipe_is_one() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    keep = parse_recipe(text).sources["papers"].keep
    assert isinstance(keep, KeepRecipe)
    assert (keep.lowest, keep.share, keep.reference) == ("perplexity", 0.25, "textbook")


def test_every_score_is_in_the_table() -> None:
    assert set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)) == set(get_args(Score))


def test_the_figures_are_those_on_record() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "selection.json").read_text())
    found = {row["name"]: row["value"] for row in rows}
    rows_of_page = re.findall(
        r"^\| ([\w-]+)(?: \(([\w-]+)\))? \| ([\d.]+) \| ([\d.]+) \| ([\d.]+|–) \|",
        PAGE,
        re.MULTILINE,
    )
    assert len(rows_of_page) == 8
    for name, kin, medical, in_order, loss in rows_of_page:
        way = f"{name}-{kin}" if kin else name
        assert float(medical) == round(found[f"precision, medical: {way}"], 2)
        assert float(in_order) == round(found[f"precision, medical in order: {way}"], 2)
        if loss != "–":
            trained = found[f"held-out medical text: trained on the tenth of {way}"]
            assert float(loss) == round(trained, 3)
