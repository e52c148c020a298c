"""The names of lm-evaluation-harness's tasks, from its files, without importing it.

Its own index parses all of its files (docs/decisions/0027 has the times); looking for the lines
that name tasks, groups and tags is quicker, and a plan needs no more. What a line only seems to
name is told when tasks are loaded.
"""

from __future__ import annotations

import difflib
import glob
import importlib.metadata
import importlib.util
import os
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

_SCALAR = re.compile(r"""["]([^"]+)["]|[']([^']+)[']|([^\s"'\[\]{},]+)""")
_OF_FOLDERS = re.compile(r"""\b(?:data_dir|dataset_path)["']?\s*:""")


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
    """Return what decides the texts of a recipe's tasks: names, version, a person's own files, and
    the files that these name elsewhere.

    The harness is not imported. Data of the hub counts as what does not change, and what the code
    of a task reads by itself is not known.
    """
    try:
        version = importlib.metadata.version("lm_eval")
    except importlib.metadata.PackageNotFoundError:
        version = ""
    own: dict[str, str] = {}
    if wanted.include_path is not None:
        folder = recipe_folder / wanted.include_path
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        own = {os.path.relpath(path, folder): file_sha256(path) for path in files}
        named = _named_elsewhere(folder)
        own |= {os.path.relpath(path, folder): file_sha256(path) for path in named}
    return fingerprint([wanted.model_dump(mode="json"), version, own])


def _named_elsewhere(folder: Path) -> list[Path]:
    """Return the files that task files of a folder name and that lie outside it: data, and what
    they include, with what that names in turn. Names are relative to the folder."""
    found: set[Path] = set()
    unread = list(_yaml_files(folder))
    while unread:
        text = unread.pop().read_text(encoding="utf-8", errors="replace")
        for path in {Path(os.path.abspath(path)) for path in _named_in(text, folder)} - found:
            if not path.is_relative_to(os.path.abspath(folder)):
                found.add(path)
                if path.suffix == ".yaml":
                    unread.append(path)
    return sorted(found)


def _named_in(text: str, folder: Path) -> Iterator[Path]:
    for line in text.splitlines():
        may_be_folder = _OF_FOLDERS.search(line) is not None
        for name in (next(filter(None, groups)) for groups in _SCALAR.findall(line)):
            pattern = os.path.join(folder, name)
            for path in map(Path, glob.glob(pattern, recursive="/**/" in name)):
                if path.is_file():
                    yield path
                elif may_be_folder:
                    yield from (file for file in path.rglob("*") if file.is_file())
