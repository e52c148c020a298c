"""Which weights a backbone of a stream begins from: a folder's, or those of a commit of the hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from transformers.utils.hub import cached_file, extract_commit_hash

from rewarm.artifacts import file_entries, fingerprint
from rewarm.errors import BaseModelError, CorpusError, remedy_of
from rewarm.model.load import quiet_transformers
from rewarm.stream.experiment import WrittenStream
from rewarm.stream.inputs import NO_MODEL
from rewarm.stream.sections import BackboneRecipe

__all__ = ["FoundBackbone", "find_backbone", "folder_content"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")  # old ones have no owner
_COMMIT = re.compile(r"[0-9a-f]{40}")


class FoundBackbone(NamedTuple):
    """A recipe that leads to the same weights whenever it is followed, and what they are."""

    recipe: BackboneRecipe
    identity: str | None


def find_backbone(written: WrittenStream, name: str) -> FoundBackbone:
    """Return what a backbone begins from; the hub says which commit a branch or tag is now.

    Raises BaseModelError where there is neither a folder nor such a model of the hub, in its cache
    or within reach.
    """
    recipe, where = written.backbone(name), f"backbones.{name}"
    if recipe.path is None:
        return FoundBackbone(recipe, None)
    folder = written.path.resolve().parent / Path(recipe.path).expanduser()
    if folder.is_dir():
        if recipe.revision is not None:
            what = f"{folder} is a folder, and only models of the hub have revisions"
            raise BaseModelError.one(f"{where}.revision", what, "leave it out")
        return FoundBackbone(recipe, folder_content(folder))
    if folder.exists():
        fix = "give the folder that holds config.json"
        raise BaseModelError.one(f"{where}.path", f"{folder} is a file", fix)
    if _HUB_ID.fullmatch(recipe.path) is None:
        raise BaseModelError.one(f"{where}.path", f"there is no folder {folder}", NO_MODEL)
    commit = _commit(recipe.path, recipe.revision, folder, where)
    pinned = recipe.model_copy(update={"revision": commit})
    return FoundBackbone(pinned, f"{recipe.path}@{commit}")


def folder_content(folder: Path) -> str:
    """Return a digest of all files of a folder; raises CorpusError for one that cannot be read."""
    names = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
    try:
        return fingerprint(file_entries(folder, names))
    except OSError as error:
        what = f"it cannot be read ({error.strerror or error})"
        raise CorpusError.one(str(error.filename or folder), what, remedy_of(error)) from error


def _commit(hub_id: str, revision: str | None, folder: Path, where: str) -> str:
    if revision is not None and _COMMIT.fullmatch(revision) is not None:
        return revision
    try:
        with quiet_transformers():
            file = cached_file(hub_id, "config.json", revision=revision)
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        at = "" if revision is None else f" at {revision!r}"
        what = f"there is no folder {folder}, and no model {hub_id!r}{at} was found ({reason})"
        raise BaseModelError.one(f"{where}.path", what, NO_MODEL) from error
    commit: str | None = extract_commit_hash(file, None)
    return commit or revision or "main"
