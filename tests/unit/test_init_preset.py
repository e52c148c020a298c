"""`rewarm init` writes a preset with the reasons, and what it fills in as comments."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from rewarm.cli import main
from rewarm.recipe.load import load_recipe, parse_recipe
from rewarm.recipe.presets import PRESETS, declared_in, settings_of
from rewarm.recipe.schema import Recipe
from rewarm.recipe.setting import written
from rewarm.stages.init_recipe import Answers, recipe_text
from tests.support.road import make_reader_folder

RATES: dict[str, Any] = {"peak_lr": 1e-3, "final_lr": 1e-4}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reader_folder(tmp_path_factory.mktemp("init"))


@pytest.fixture(autouse=True)
def _in_the_reader_s_folder(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(reader)


def text_for(**answers: Any) -> str:
    given: dict[str, Any] = {"base": "my-model", "text": ("my-text",), "budget": "1M", **answers}
    return recipe_text(Answers(**given), Path("recipe.toml"))


def comment_blocks(text: str) -> list[list[str]]:
    """Return the keys that stand in comments, each with all of its lines."""
    recipe = parse_recipe(text)
    assert recipe.preset is not None
    blocks = []
    for setting in settings_of(PRESETS[recipe.preset], declared_in(recipe)):
        lines = [line for line in written(setting) if not line.startswith("#")]
        if setting.key.startswith("sources."):
            lines = [re.sub(r"^sources\.[a-z]+\.", "", line) for line in lines]
        if f"# {lines[0]}" in text:
            blocks.append(lines)
    return blocks


def uncommented(text: str, *blocks: list[str]) -> str:
    for line in itertools.chain(*blocks):
        assert text.count(f"# {line}\n") == 1, line
        text = text.replace(f"# {line}\n", f"{line}\n")
    return text


def apart_from_preset(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(exclude={"preset"})


CASES: dict[str, dict[str, Any]] = {
    "reuse": {"shift": "weak", "replay": ("my-old-text",), "qa": ("my-qa.jsonl",), **RATES},
    "rewarm": {"shift": "strong", **RATES},
    "infinite": {"more_to_come": True, "replay": ("my-old-text",), **RATES},
    "stability-gap": {"shift": "strong", "budget": "5k", "replay": ("my-old-text",), **RATES},
    "wsd": {"preset": "wsd", "replay": ("my-old-text",), **RATES},
    "naive": {"preset": "naive", "replay": ("my-old-text",), **RATES},
    "baseline": {"preset": "baseline", "replay": ("my-old-text",), **RATES},
    "constant": {"preset": "constant", "replay": ("my-old-text",), **RATES},
}


@pytest.mark.parametrize("preset", CASES)
def test_what_stands_in_comments_is_what_the_preset_fills_in(preset: str) -> None:
    text = text_for(**CASES[preset])
    recipe = parse_recipe(text)
    assert recipe.preset == preset
    blocks = comment_blocks(text)
    assert len(blocks) == len(settings_of(PRESETS[preset], declared_in(recipe)))
    # Uncommented, every line together says the same without the preset …
    by_hand = re.sub(r"^preset = .*$", "", uncommented(text, *blocks), flags=re.MULTILINE)
    assert parse_recipe(by_hand).preset is None
    assert apart_from_preset(parse_recipe(by_hand)) == apart_from_preset(recipe)
    # … and each of them stands by itself.
    for block in blocks:
        alone = parse_recipe(uncommented(text, block))
        assert apart_from_preset(alone) == apart_from_preset(recipe)
        assert len(alone.preset_settings) == len(recipe.preset_settings) - 1


@pytest.mark.parametrize("preset", ["reuse", "rewarm", "infinite", "stability-gap"])
def test_the_preset_that_fits_is_written_with_its_reasons(preset: str) -> None:
    text = text_for(**CASES[preset])
    flat = " ".join(text.replace("\n#", " ").split())
    assert f'preset = "{preset}" # because ' in flat
    for other in {"reuse", "rewarm", "infinite", "stability-gap", "wsd"} - {preset}:
        assert re.search(rf"Not {other}: \w.*?\.", flat), other
    assert "an estimate: its bytes / 4" in flat
    assert f"docs/recipes/{preset}.md" in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_the_estimate_of_the_new_text_counts_files_folders_and_globs(reader: Path) -> None:
    size = sum(file.stat().st_size for file in (reader / "my-text").iterdir())
    by_four = f"{size // 4 / 1000:.1f}k tokens, an estimate"
    assert by_four in text_for(text=("my-text",))
    assert by_four in text_for(text=("my-text/*.txt",))
    # Four times the budget is what decides for stability-gap.
    old: dict[str, Any] = {"shift": "strong", "replay": ("my-old-text",), **RATES}
    assert parse_recipe(text_for(budget=str(size // 16), **old)).preset == "stability-gap"
    assert parse_recipe(text_for(budget=str(size // 16 + 1), **old)).preset == "rewarm"
    nowhere = text_for(text=("hub-of-nowhere/*.txt",), **old)
    assert "an estimate" not in nowhere
    assert "held_out = 0.06" in text_for(text=("my-text/*.txt",))


def test_without_rates_one_is_assumed_aloud_and_nowhere_else() -> None:
    text = text_for()
    assert "schedule.peak_lr = 3e-5  # ASSUMED" in text
    assert parse_recipe(text).schedule.peak_lr.factor == 3e-5
    for known in ({"peak_lr": 1e-3}, {"final_lr": 1e-4}, {"preset": "stability-gap"}):
        assert "ASSUMED" not in text_for(**known)
    # A final rate of 0 is none to start from, and tells no peak.
    assert "ASSUMED" in text_for(final_lr=0.0)
    # The examples are those of a base: a final rate is below its peak.
    assert "# peak_lr = 3e-4\n# final_lr = 3e-5\n" in text_for()
    assert 'write "pretraining.peak" here' in text_for(preset="wsd", final_lr=1e-4)


FLAGS = ["--base", "my-model", "--text", "my-text", "--budget", "20k"]


def test_the_flags(reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rates = ["--peak-lr", "1e-3", "--final-lr", "1e-4"]
    old = ["--replay", "my-old-text"]
    assert main(["init", "a.toml", *FLAGS, *rates, *old, "--shift", "strong"]) == 0
    recipe = load_recipe(reader / "a.toml")
    assert (recipe.shift, recipe.preset) == ("strong", "rewarm")
    assert recipe.phases[0].roles == {"new": 0.75, "old": 0.25}
    assert 'preset = "rewarm": strong shift' in capsys.readouterr().out
    assert main(["init", "b.toml", *FLAGS, *rates, *old, "--more-to-come"]) == 0
    assert load_recipe(reader / "b.toml").preset == "infinite"
    asked = ["--preset", "wsd", "--shift", "weak"]
    assert main(["init", "c.toml", *FLAGS, *rates, *old, *asked]) == 0
    assert load_recipe(reader / "c.toml").preset == "wsd"
    told = capsys.readouterr().out
    assert 'preset = "wsd" as asked for; "reuse" would be advised' in told
    assert "It plans 156 steps" in told
    assert "# Advised would be reuse: going on" in (reader / "c.toml").read_text()


def test_what_is_wrong_with_the_flags_is_told_at_once(
    reader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ["--shift", "week", "--preset", "rewarn", "--peak-lr", "7"]
    assert main(["init", "x.toml", *FLAGS, *wrong]) == 2
    told = capsys.readouterr().err
    assert "3 problems" in told
    assert "--shift: 'week' is neither weak nor strong" in told
    assert "--preset: there is no preset 'rewarn'" in told
    assert main(["init", "x.toml", *FLAGS, "--preset", "baseline"]) == 2
    assert "'baseline' is about text that no source has" in capsys.readouterr().err
    assert not (reader / "x.toml").exists()
