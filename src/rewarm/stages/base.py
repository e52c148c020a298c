"""Finds the base checkpoint: a local folder as it is, a hub id through the hub's own client."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from rewarm.errors import BaseModelError, EnvironmentFault
from rewarm.recipe.base import BaseRecipe

__all__ = ["find_base", "find_model", "looks_like_hub_id"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Weights as safetensors only, no code, no pickles.
_WEIGHTS = "*.safetensors"
_HUB_FILES = [
    *("*.json", "*.jinja", "tokenizer.model", "vocab.txt", "merges.txt"),
    *("README.md", "LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*"),
]


def looks_like_hub_id(path: str) -> bool:
    """Tell whether a base that is no folder here may be on the hub: owner/model."""
    return not path.startswith((".", "/", "~")) and _HUB_ID.fullmatch(path) is not None


def find_base(base: BaseRecipe, recipe_folder: Path) -> Path:
    """Return the local folder of the base, downloading a hub id where needed; see `find_model`."""
    return find_model(base.path, base.revision, recipe_folder, where="base")


def find_model(
    path: str, revision: str | None, folder: Path, *, where: str, with_weights: bool = True
) -> Path:
    """Return the local folder of a model: as it is, relative to `folder`, or from the hub.

    `where` is the section or option that named it. Without weights, only what says their shape is
    downloaded. Raises BaseModelError where nothing is there, access is refused or the revision is
    unknown, and EnvironmentFault where the hub cannot be reached.
    """
    expanded = Path(os.path.expanduser(path))
    local = expanded if expanded.is_absolute() else folder / expanded
    field = _Field(where)
    # os.path, unlike Path, answers False where a name is too long.
    if os.path.isdir(local):
        return local.resolve()
    if os.path.exists(local):
        raise BaseModelError.one(
            field.path, f"{local} is a file", "give the folder that holds config.json"
        )
    if not looks_like_hub_id(path):
        raise BaseModelError.one(
            field.path,
            f"there is no folder {local}",
            "give a folder in Hugging Face format, or a hub id such as org/model",
        )
    files = [*_HUB_FILES, *([_WEIGHTS] if with_weights else [])]
    return _download(path, revision, local, field, files)


@dataclass(frozen=True, slots=True)
class _Field:
    """Where a model was named: a section of the recipe or, with dots, a field of it (one that ends
    in `.path` has a revision beside it), or an option (`--base`) or argument (`BASE`) of the
    command line."""

    where: str

    @property
    def path(self) -> str:
        """What holds its path."""
        return self._key("path")

    @property
    def revision(self) -> str:
        """What holds its revision."""
        return self._key("revision")

    def _key(self, key: str) -> str:
        if self.where.endswith(".path"):
            return f"{self.where.removesuffix('path')}{key}"
        is_given_itself = self.where.startswith("-") or self.where.isupper() or "." in self.where
        return self.where if is_given_itself else f"{self.where}.{key}"


def _download(
    hub_id: str, revision: str | None, local: Path, field: _Field, files: list[str]
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=files))
    except GatedRepoError as error:
        raise BaseModelError.one(
            field.path,
            f"{hub_id} is gated: its owner grants access by request",
            f"ask for access at its page on the hub, then set HF_TOKEN in the environment "
            f"(never in the recipe); revision {revision or 'main'}",
        ) from error
    except RevisionNotFoundError as error:
        raise BaseModelError.one(
            field.revision,
            f"{hub_id} has no revision {revision!r}",
            "name a branch, tag or commit",
        ) from error
    except RepositoryNotFoundError as error:
        raise BaseModelError.one(
            field.path,
            f"neither a folder {local} nor a model {hub_id!r} on the hub was found",
            "check the spelling; for a private model set HF_TOKEN in the environment",
        ) from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise EnvironmentFault(
            f"there is no folder {local}, and the hub cannot be reached for {hub_id!r} "
            f"({type(error).__name__})",
            f"check the network, or download the model elsewhere and give its folder as "
            f"{field.path}",
        ) from error
