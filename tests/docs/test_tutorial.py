"""The tutorial's commands, run as they stand there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rewarm.recipe.load import parse_recipe
from tests.support.road import make_reader_folder

REPOSITORY = Path(__file__).resolve().parents[2]


def blocks(path: Path, language: str) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_of_the_tutorial_runs(tmp_path: Path) -> None:
    folder = make_reader_folder(tmp_path / "reader")
    tutorial = REPOSITORY / "docs" / "tutorial.md"
    commands = [line for block in blocks(tutorial, "console") for line in block.splitlines()]
    assert len(commands) >= 9
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "rewarm"
        finished = subprocess.run(
            [sys.executable, "-m", "rewarm", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, f"{command}\n{finished.stdout}\n{finished.stderr}"
    assert (folder / "runs" / "recipe" / "report.html").is_file()
    for block in blocks(tutorial, "python"):
        subprocess.run([sys.executable, "-c", block], cwd=folder, check=True)


def test_the_recipes_of_the_readme_are_recipes() -> None:
    short, two_blends = (parse_recipe(block) for block in blocks(REPOSITORY / "README.md", "toml"))
    assert short.preset == "rewarm"
    assert short.phases[0].roles == {"new": 0.75, "old": 0.25}
    assert [phase.name for phase in two_blends.phases] == ["general", "qa"]


def test_your_own_model_takes_under_20_lines() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = text.split("## Your own model and your own text")[1].split("\n## ")[0]
    assert len([line for line in section.splitlines() if line.strip()]) < 20


def test_the_readme_names_verbs_that_exist() -> None:
    from typer.main import get_command

    from rewarm.verbs import app

    verbs = set(get_command(app).commands)  # type: ignore[attr-defined]
    for page in (REPOSITORY / "README.md", REPOSITORY / "docs" / "tutorial.md"):
        for block in blocks(page, "console"):
            for verb in re.findall(r"^rewarm ([a-z]+)", block, re.MULTILINE):
                assert verb in verbs
