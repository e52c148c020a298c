"""Which weights a backbone of a stream begins from: a folder's, or those of a commit of the hub.

A branch moves. The commit that one stands for when an experiment first runs is written down, in
`commits.json` of its folder, and held to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rewarm.artifacts import file_entries, fingerprint, read_json, write_json
from rewarm.errors import BaseModelError, CorpusError, PlanError, remedy_of
from rewarm.stages.base import find_model
from rewarm.stream.experiment import WrittenStream
from rewarm.stream.sections import BackboneRecipe

__all__ = ["Backbones", "folder_content"]

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(slots=True)
class Backbones:
    """The backbones of an experiment, found once."""

    written: WrittenStream
    _identities: dict[str, str | None] = field(default_factory=dict)
    _found: dict[str, str] = field(default_factory=dict)  # commits by what stands in the recipe
    _folders: dict[tuple[str, bool], Path] = field(default_factory=dict)

    @property
    def commits(self) -> Path:
        """Where the commits that branches and tags stood for are written down."""
        return self.written.folder / "commits.json"

    def identity(self, name: str) -> str | None:
        """Return what a backbone's weights are known by; None where all are drawn.

        The hub is asked for a branch or tag that is not written down yet, and for nothing else.
        Raises as `find_model` does, BaseModelError for a folder with a revision.
        """
        if name not in self._identities:
            self._identities[name] = self._identity(name)
        return self._identities[name]

    def recipe(self, name: str, *, with_weights: bool) -> BackboneRecipe:
        """Return the recipe of a backbone with the folder that it is in as its path.

        Raises as `find_model` does.
        """
        recipe = self._recipe(name)
        if recipe.path is None:
            return recipe
        revision = None if self._is_folder(name, recipe) else self._commit(name, recipe)
        key = (name, with_weights and not recipe.from_scratch)
        if key not in self._folders:  # the hub is asked whenever a model is found there
            self._folders[key] = self._find(name, revision, key[1])
        return recipe.model_copy(update={"path": str(self._folders[key]), "revision": None})

    def hold(self) -> list[str]:
        """Write down the commits that were asked for; return a sentence on each that is held to."""
        held = self._held()
        commits = {**self._found, **held}
        if commits.keys() - held.keys():
            write_json(self.commits, commits)
        return [
            f"backbones.{name}: {_named(recipe)} is commit {commits[_named(recipe)]}, by "
            f"{self.commits}; delete that line to take what the hub has now, and make its runs "
            "again"
            for name, recipe in self.written.experiment.backbones.items()
            if _named(recipe) in commits
        ]

    def _identity(self, name: str) -> str | None:
        recipe = self._recipe(name)
        if recipe.path is None:
            return None
        if self._is_folder(name, recipe):
            return folder_content(self._find(name, None, True))
        return f"{recipe.path}@{self._commit(name, recipe)}"

    def _commit(self, name: str, recipe: BackboneRecipe) -> str:
        if recipe.revision is not None and _COMMIT.fullmatch(recipe.revision) is not None:
            return recipe.revision
        key = _named(recipe)
        known = self._held().get(key) or self._found.get(key)
        if known is None:
            # A snapshot of the hub's cache is called by its commit.
            known = self._found[key] = self._find(name, recipe.revision, False).name
        return known

    def _find(self, name: str, revision: str | None, with_weights: bool) -> Path:
        path, beside = self._recipe(name).path, self.written.path.resolve().parent
        assert path is not None
        where = f"backbones.{name}.path"
        return find_model(path, revision, beside, where=where, with_weights=with_weights)

    def _recipe(self, name: str) -> BackboneRecipe:
        return self.written.experiment.backbones[name]

    def _is_folder(self, name: str, recipe: BackboneRecipe) -> bool:
        """Tell whether a model is a folder here; raises BaseModelError for one with a revision."""
        local = self.written.path.resolve().parent / os.path.expanduser(str(recipe.path))
        if not os.path.isdir(local):
            return False
        if recipe.revision is not None:
            what = f"{local} is a folder, and only models of the hub have revisions"
            raise BaseModelError.one(f"backbones.{name}.revision", what, "leave it out")
        return True

    def _held(self) -> Mapping[str, str]:
        """Return the commits that are written down; raises PlanError where that file is damaged."""
        if not self.commits.exists():
            return {}
        held = read_json(self.commits, what="the commits of backbones", error=PlanError)
        if not isinstance(held, dict) or not all(isinstance(one, str) for one in held.values()):
            fix = "restore it, or delete it to take what the hub has now"
            raise PlanError.one(str(self.commits), "it holds no commits by model", fix)
        return held


def _named(recipe: BackboneRecipe) -> str:
    """Return what of the hub a recipe names: `org/model`, or `org/model@v1`."""
    return str(recipe.path) if recipe.revision is None else f"{recipe.path}@{recipe.revision}"


def folder_content(folder: Path) -> str:
    """Return a digest of all files of a folder; raises CorpusError for one that cannot be read."""
    names = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
    try:
        return fingerprint(file_entries(folder, names))
    except OSError as error:
        what = f"it cannot be read ({error.strerror or error})"
        raise CorpusError.one(str(error.filename or folder), what, remedy_of(error)) from error
