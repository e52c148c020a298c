"""The names of lm-evaluation-harness's tasks, from its files, without importing it.

Its own index parses all of its files (docs/decisions/0027 has the times); looking for the lines
that name tasks, groups and tags is quicker, and a plan needs no more. What a line only seems to
name is told when tasks are loaded.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from rewarm.artifacts import file_sha256, fingerprint
from rewarm.recipe.records import HarnessRecipe

__all__ = ["harness_folder", "harness_key", "near_names", "task_names"]

_NAMED = re.compile(
    rb"""^\s*(?:-\s+)?["']?(?:task|group|tag)["']?\s*:\s*["']?([^\s"'#\[{,]+)"""
    rb"""|^\s*-\s+["']?([^\s"':#\[{,]+)["']?\s*$""",
    re.MULTILINE,
)


def harness_folder() -> Path | None:
    """Return where the harness's own task files lie; None where it is not installed."""
    found = importlib.util.find_spec("lm_eval")
    places = None if found is None else found.submodule_search_locations
    return None if not places else Path(next(iter(places))) / "tasks"


def task_names(folder: Path) -> frozenset[str]:
    """Return what task files (YAML) of a folder and those within it name: tasks, groups, tags."""
    names: set[str] = set()
    for path in _yaml_files(folder):
        try:
            data = path.read_bytes()
        except OSError:
            continue
        for named, listed in _NAMED.findall(data):
            names.add((named or listed).decode("utf-8", errors="replace"))
    return frozenset(names)


def _yaml_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.yaml") if path.is_file())


def near_names(name: str, names: frozenset[str]) -> list[str]:
    """Return up to three known names that a misspelt one may have meant, nearest first."""
    return difflib.get_close_matches(name, names, n=3, cutoff=0.7)


def harness_key(wanted: HarnessRecipe, recipe_folder: Path) -> str:
    """Return what decides the texts of a recipe's tasks: names, version, a person's own files.

    The harness is not imported. Data of the hub counts as what does not change.
    """
    try:
        version = importlib.metadata.version("lm_eval")
    except importlib.metadata.PackageNotFoundError:
        version = ""
    own: dict[str, str] = {}
    if wanted.include_path is not None:
        folder = recipe_folder / wanted.include_path
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        own = {str(path.relative_to(folder)): file_sha256(path) for path in files}
    return fingerprint([wanted.model_dump(mode="json"), version, own])
