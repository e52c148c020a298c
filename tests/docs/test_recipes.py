"""The pages of docs/recipes: their commands exist, and their figures are those on record."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from rewarm.planning.resolve import resolve
from rewarm.recipe.load import parse_recipe
from rewarm.recipe.retention import RetentionRecipe
from rewarm.recipe.sources import RehearsalRecipe
from rewarm.retention.degenerate import KEPT, REASONS
from rewarm.stages.merge_methods import METHODS
from rewarm.verbs import app
from tests.support.fake_facts import make_corpus_facts, make_model_facts

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "recipes").glob("*.md"))
RETENTION = (ROOT / "docs" / "recipes" / "retention.md").read_text(encoding="utf-8")
TERMS = tuple(RetentionRecipe.model_fields)
MERGING = (ROOT / "docs" / "recipes" / "merging.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_their_options_are_there(page: Path) -> None:
    verbs = get_command(app).commands  # type: ignore[attr-defined]
    text = page.read_text(encoding="utf-8")
    lines = [
        line
        for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
    ]
    assert lines or page.stem != "merging"
    for line in lines:
        program, verb, *arguments = shlex.split(line)
        assert program == "rewarm"
        options = {option for param in verbs[verb].params for option in param.opts}
        assert {part for part in arguments if part.startswith("-")} <= options, line


def test_the_figures_of_merging_are_those_on_record() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "merging.json").read_text())
    found = {row["name"]: row["value"] for row in rows}
    for row, name in (
        ("`naive`, as it ended", "linear, weight 1"),
        ("merged linearly, w = 0.5", "linear, weight 0.5"),
        ("merged linearly, w = 0.4 (the knee)", "linear, weight 0.4 (chosen: the knee)"),
        ("merged spherically, w = 0.4", "slerp, weight 0.4 (chosen: the knee)"),
        (
            "a quarter of old text replayed instead, nothing merged",
            "a quarter replayed instead (rewarm)",
        ),
        ("constant rate, last checkpoint", "last checkpoint at a constant rate"),
        ("average of its last ten checkpoints, two steps apart", "average of its last ten"),
        (
            "the rate decayed to a tenth instead (`naive`)",
            "the same steps with a decayed rate",
        ),
    ):
        cells = [f"{found[f'{name}: {what}']:+.3f}".replace("-", "−") for what in ("old", "new")]
        assert f"| {row} | {cells[0]} | {cells[1]} |" in MERGING
    end, half = (
        {what: found[f"linear, weight {w}: {what}"] for what in ("old", "new")}
        for w in ("1", "0.5")
    )
    assert round(100 * half["new"] / end["new"]) == 78
    assert round(100 * half["old"] / end["old"]) == 40
    replay = found["a quarter replayed instead (rewarm): new"]
    assert round(found["linear, weight 0.4 (chosen: the knee): new"] - replay, 2) == 0.19


def test_every_method_has_its_row_with_formula_and_source() -> None:
    for name, method in METHODS.items():
        (row,) = [line for line in MERGING.splitlines() if line.startswith(f"| `{name}` |")]
        assert method.formula.split(",")[0] in row
        assert re.findall(r"arXiv [\d.]+", method.source) == re.findall(r"arXiv [\d.]+", row)


def test_the_recipe_of_rehearsal_plans_and_shows_nothing_twice() -> None:
    text = (ROOT / "docs" / "recipes" / "rehearsal.md").read_text(encoding="utf-8")
    whole, *_ = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    recipe = parse_recipe(whole)
    made = recipe.sources["made"].rehearse
    assert made is not None
    corpora = {
        "new": make_corpus_facts("new", "new", num_tokens=4_000_000_000),
        "made": make_corpus_facts("made", "replay", num_tokens=made.tokens),
    }
    plan = resolve(recipe, make_model_facts(max_positions=2048), corpora, base_folder="base")
    assert not plan.warnings
    science = plan.science
    index = [source.name for source in science.sources].index("made")
    shown = sum(phase.samples[index] for phase in science.phases) * science.sequence_length
    assert 0.9 < shown / made.tokens <= 1


def test_what_rehearsal_says_of_its_rate_and_its_bounds_is_so() -> None:
    text = (ROOT / "docs" / "recipes" / "rehearsal.md").read_text(encoding="utf-8")
    rows = json.loads((ROOT / "benchmarks" / "results" / "rehearsal_rate.json").read_text())
    found = {row["name"]: row["value"] for row in rows}
    for name in ("no text ends: ratio", "texts of 96 tokens: ratio"):
        assert f"{found[name]:.1f} times" in " ".join(text.split())
    defaults = RehearsalRecipe(tokens=1)
    for key in ("min_tokens", "max_repeat_share", "min_compressed_share", "max_similarity"):
        assert f"`{key}` = {getattr(defaults, key)} |" in text
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(REASONS) - {KEPT}


def test_the_figures_of_expansion_are_those_on_record() -> None:
    text = (ROOT / "docs" / "recipes" / "parameters.md").read_text(encoding="utf-8")
    rows = json.loads((ROOT / "benchmarks" / "results" / "expansion_start.json").read_text())
    found = {row["name"]: row["value"] for row in rows}
    table = re.findall(r"^\| (.+?), (\w+) \| ([\d.]+) % \| ([\d.]+) % \|$", text, re.MULTILINE)
    assert len(table) * 2 == len(found)
    for family, what, *shares in table:
        for after, share in zip(("1 update", "100 updates"), shares, strict=True):
            name = f"{family.lower().replace(' ', '')}, {what} silent, after {after}"
            assert float(share) == pytest.approx(100 * found[name], rel=0.05), name


def test_the_recipes_of_retention_plan_and_what_they_name_is_planned() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", RETENTION, re.DOTALL)
    named = []
    for text in blocks:
        recipe = parse_recipe(text)
        sizes = {"new": 4_000_000_000, "old": 1_000_000_000, "made": 80_000_000}
        corpora = {
            name: make_corpus_facts(name, source.role, num_tokens=sizes[name])
            for name, source in recipe.sources.items()
        }
        plan = resolve(recipe, make_model_facts(max_positions=2048), corpora, base_folder="base")
        assert not plan.warnings
        assert {e.name for e in plan.estimates} >= {"retention compute", "retention memory"}
        wanted = plan.science.retention
        named += [term for term in TERMS if getattr(wanted, term) is not None]
    assert named == ["ewc", "distill", "agem", "ema"]
    keys = set(re.findall(r"^\| `(\w+)\.\w+`", RETENTION, re.MULTILINE))
    assert keys == set(TERMS)


def test_the_costs_of_retention_are_those_on_record() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "retention_cost.json").read_text())
    found = {row["name"]: row["value"] for row in rows}
    lines = RETENTION.partition("## Cost")[2].partition("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:2] == "| "]
    heading, *table = cells
    assert heading[1:] == ["step time: predicted", "measured", "peak memory: predicted", "measured"]
    assert {name for name, *_ in table} == {name.partition(":")[0] for name in found}
    whats = ("step time, predicted", "step time", "peak memory, predicted", "peak memory")
    for term, *values in table:
        for cell, what in zip(values, whats, strict=True):
            value = found.get(f"{term}: {what}")
            assert cell == ("" if value is None else f"{value:.2f}"), (term, what)
