"""The pages on presets and schedules: their generated parts are up to date, their recipes plan."""

from __future__ import annotations

import json
import math
import re
import shlex
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewarm.planning.resolve import resolve
from rewarm.planning.schedule import lr_curve
from rewarm.recipe.load import parse_recipe
from rewarm.recipe.presets import PRESETS
from rewarm.reporting.svg import text_width
from rewarm.stages.job import open_job
from rewarm.stages.plan import plan_job
from tests.support.fake_facts import make_corpus_facts, make_model_facts
from tests.support.road import make_reader_folder
from tools.recipe_pages import DOCS, PAGES, Variant, recipes_of, written_files
from tools.schedule_figures import DRAWINGS, FOLDER, rates_of

SMALL = ("budget.tokens=20k", "batch.tokens=512")


def recipe_at(path: Path, index: int) -> Variant:
    return recipes_of(path.read_text(encoding="utf-8"))[index]


def overrides_of_commands(path: Path) -> Iterator[tuple[str, ...]]:
    """Yield the overrides of every `rewarm plan` on a page."""
    for block in re.findall(r"```console\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.splitlines():
            command = [word for word in shlex.split(line) if word != "--why"]
            assert command[:3] == ["rewarm", "plan", "recipe.toml"], line
            assert set(command[3::2]) == {"-o"}, line
            yield tuple(command[4::2])


def all_of(path: Path) -> list[Variant]:
    """Return what a page has for planning: its recipes, and the first with each command."""
    variants = recipes_of(path.read_text(encoding="utf-8"))
    commands = (Variant(variants[0].text, given) for given in overrides_of_commands(path))
    return [*variants, *commands]


def test_what_is_generated_is_up_to_date() -> None:
    files = written_files()
    stale = [
        path.name
        for path, text in files.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    assert not stale, "run: python -m tools.recipe_pages"
    there = set(FOLDER.glob("*.svg")) - set(FOLDER.glob("growth-*.svg"))  # tools/speed_page.py's
    assert {path for path in files if path.suffix == ".svg"} == there
    drawn = {path.stem.removesuffix("-dark") for path in files if path.suffix == ".svg"}
    assert drawn == set(DRAWINGS), "every drawing stands on a page"


def test_every_preset_has_a_page_that_says_what_belongs_there() -> None:
    index = (DOCS / "recipes" / "README.md").read_text(encoding="utf-8")
    for name, preset in PRESETS.items():
        file = "controls.md" if preset.is_control else f"{name}.md"
        text = (DOCS / "recipes" / file).read_text(encoding="utf-8")
        assert f"[{name}]({file})" in index
        for part in (f"<!-- settings {name} -->", f"<!-- blends {name} -->", "<!-- figure "):
            assert part in text, (name, part)
        for heading in ("## A whole recipe", "## Changing", "## When not to use"):
            assert heading in text, (name, heading)
        assert preset.is_control or "## Evidence" in text


def test_every_page_says_what_was_measured_here() -> None:
    """And leads to where its figures stand."""
    for path in (DOCS / "recipes").glob("*.md"):
        text = path.read_text(encoding="utf-8")
        _, found, said = text.partition("Measured here")
        assert found, path.name
        assert "reproduction/README.md" in text or "#measured-here" in said, path.name


def test_every_page_s_first_recipe_has_its_preset() -> None:
    for path in PAGES[1:]:
        wanted = {"README": "rewarm", "controls": "naive"}.get(path.stem, path.stem)
        assert parse_recipe(recipe_at(path, 0).text).preset == wanted


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_recipe_and_every_command_plans_as_it_stands(path: Path) -> None:
    sizes = {"new": 4_000_000_000, "qa": 20_000_000}
    for variant in all_of(path):
        recipe = parse_recipe(variant.text, overrides=variant.overrides)
        corpora = {
            name: make_corpus_facts(
                name, source.role, num_tokens=sizes.get(source.role, 1_000_000_000)
            )
            for name, source in recipe.sources.items()
        }
        facts = make_model_facts(max_positions=2048)
        plan = resolve(recipe, facts, corpora, base_folder="base")
        assert plan.science.num_steps == 572
        # Nothing on these pages is an example of what a plan warns of, but for new text alone.
        assert bool(plan.warnings) == (recipe.preset == "naive"), variant.overrides


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_reader_folder(tmp_path_factory.mktemp("pages"))
    pairs = (
        {"question": f"which text has number {number}?", "answer": f"the one called {number}"}
        for number in range(600)
    )
    (folder / "my-qa.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))
    return folder


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_rewarm_plan_accepts_every_recipe_and_every_command(path: Path, reader: Path) -> None:
    for variant in all_of(path):
        (reader / "recipe.toml").write_text(variant.text, encoding="utf-8")
        job = open_job(reader / "recipe.toml", (*SMALL, *variant.overrides))
        plan = plan_job(job, estimates_allowed=True)
        assert plan.science.num_steps == 39


def test_the_figures_that_the_pages_compute_are_so() -> None:
    path = DOCS / "recipes" / "reuse.md"
    _, schedule, spans = rates_of(recipe_at(path, 0).text)
    steps = schedule[-1].end_step
    switch = spans[1].start_step
    assert switch / steps == pytest.approx(0.7113, abs=1 / steps)
    # Integrated by hand: the tail of r + (1 − r)(1 + cos πx)/2 from f on, and the whole of it.
    f, r = 0.7113, 0.01
    tail = r * (1 - f) + (1 - r) * ((1 - f) / 2 - math.sin(math.pi * f) / (2 * math.pi))
    by_hand = tail / (r + (1 - r) / 2)
    curve = lr_curve(schedule)
    assert curve[switch:].sum() / curve.sum() == pytest.approx(by_hand, abs=1e-3)
    assert round(by_hand, 3) == 0.043
    text = path.read_text(encoding="utf-8")
    assert "0.7113" in text
    assert "4.3 %" in text
    assert DRAWINGS["reuse"].description.count("71 %") == 1


def test_no_text_of_a_figure_is_cut_off_or_lies_on_another() -> None:
    for file in FOLDER.glob("*.svg"):
        root = ET.fromstring(file.read_text(encoding="utf-8"))
        left, top, width, height = map(float, root.attrib["viewBox"].split())
        boxes = []
        for text in root.iter("{http://www.w3.org/2000/svg}text"):
            x, y, content = float(text.attrib["x"]), float(text.attrib["y"]), text.text or ""
            wide = text_width(content)
            start = x - wide * {"middle": 0.5, "end": 1.0}.get(
                text.attrib.get("text-anchor", ""), 0
            )
            boxes.append((start, y - 9, start + wide, y + 3, content))
            assert left <= start, (file.name, content)
            assert start + wide <= left + width, (file.name, content)
            assert top <= y - 9 <= y + 3 <= top + height, (file.name, content)
        for index, one in enumerate(boxes):
            for other in boxes[index + 1 :]:
                apart = (
                    one[2] <= other[0]
                    or other[2] <= one[0]
                    or one[3] <= other[1]
                    or other[3] <= one[1]
                )
                assert apart, (file.name, one[4], other[4])


def test_every_link_leads_somewhere() -> None:
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(
            r'(?:src|srcset)="([^"]+)"', text
        )
        for target in targets:
            if target.startswith("https://"):
                continue
            file, _, anchor = target.partition("#")
            found = (path.parent / file).resolve() if file else path
            assert found.exists(), (path.name, target)
            if anchor:
                headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
                assert anchor in slugs, (path.name, target)
