"""docs/compare.md: its experiment is one, its tables name every key, metric, mode and word."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from rewarm.comparison.experiment import (
    ArmRecipe,
    ContrastRecipe,
    Experiment,
    PrimaryRecipe,
    RunRecipe,
    read_experiment,
)
from rewarm.comparison.metrics import KINDS
from rewarm.comparison.student import detectable_in_errors, margin_in_errors
from rewarm.recipe.section import Section
from rewarm.records.comparison import Direction, Word
from rewarm.stages.demo_experiment import experiment_text

PAGE = (Path(__file__).parents[2] / "docs" / "compare.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    return PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]


def test_the_experiment_is_one(tmp_path: Path) -> None:
    text, no_worse = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "experiment.toml"
    path.write_text(text)
    experiment = read_experiment(path).experiment
    assert experiment.seed_list == (1, 2, 3, 4, 5)
    assert [primary.metric for primary in experiment.primary] == ["forgetting", "adaptation"]
    path.write_text(text + no_worse)
    last = read_experiment(path).experiment.primary[-1]
    assert last == PrimaryRecipe(metric="mean_loss", expect="not_higher", within=0.05)
    path.write_text(experiment_text(2048))
    assert read_experiment(path).experiment.hypothesis == experiment.hypothesis


def test_every_key_is_told() -> None:
    keys = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section("Keys"), re.MULTILINE))
    assert set(keys) == set(Experiment.model_fields)
    parts: dict[str, type[Section]] = {
        "primary": PrimaryRecipe,
        "arms": ArmRecipe,
        "contrasts": ContrastRecipe,
        "run": RunRecipe,
    }
    for key, part in parts.items():
        assert set(re.findall(r"`(\w+)`", keys[key])) >= set(part.model_fields), key


def test_every_expectation_is_told() -> None:
    (told,) = re.findall(r"^\| `primary` \|.*`expect` \((.*?)\)", section("Keys"), re.MULTILINE)
    assert told.split(", ") == list(get_args(Direction))


def test_every_metric_is_told() -> None:
    rows = re.findall(r"^\| `([\w. ]+)` \| .* \| (\w+) \|$", section("Metrics"), re.MULTILINE)
    told = {re.sub(r"\.(SOURCE|NAME|NAME METRIC)$", "", name): better for name, better in rows}
    assert told == {name: kind.better for name, kind in KINDS.items()}


def test_every_word_and_mode_is_told() -> None:
    words = set(re.findall(r"^\| ([a-z ]+) \|", section("What is said"), re.MULTILINE)) - {"word"}
    assert words == set(get_args(Word)) - {""}
    modes = set(re.findall(r"^\| `(\w+)` \|", section("How runs are carried out"), re.MULTILINE))
    assert modes == set(get_args(RunRecipe.model_fields["mode"].annotation)) | {"mode"}


def test_the_figures_are_what_the_code_gives() -> None:
    flat = " ".join(PAGE.split())
    for seeds, word in ((3, "three seeds"), (5, "five")):
        assert f"{detectable_in_errors(seeds):.1f}" in flat.split("noncentral t:")[1].split(word)[0]
    margins = flat.split("within which these tests find")[1].split("So name")[0]
    both, one = (
        [f"{margin_in_errors(seeds, num_ends=ends):.1f}" for seeds in (3, 5)] for ends in (2, 1)
    )
    assert f"±{both[0]} standard errors with three seeds and ±{both[1]} with five" in margins
    assert f"{one[0]} and {one[1]} for `not_higher`" in margins
