"""Finds the base checkpoint: a local folder as it is, a hub id through the hub's own client."""

from __future__ import annotations

import os
import re
from pathlib import Path

from rewarm.errors import BaseModelError, EnvironmentFault
from rewarm.recipe.schema import BaseRecipe

__all__ = ["find_base", "looks_like_hub_id"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Weights as safetensors only, no code, no pickles.
_HUB_FILES = [
    *("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "vocab.txt", "merges.txt"),
    *("README.md", "LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*"),
]


def looks_like_hub_id(path: str) -> bool:
    """Tell whether a base that is no folder here may be on the hub: owner/model."""
    return not path.startswith((".", "/", "~")) and _HUB_ID.fullmatch(path) is not None


def find_base(base: BaseRecipe, recipe_folder: Path) -> Path:
    """Return the local folder of the base, downloading a hub id where needed.

    Raises BaseModelError where nothing is there, access is refused or the revision is unknown, and
    EnvironmentFault where the hub cannot be reached.
    """
    path = Path(os.path.expanduser(base.path))
    local = path if path.is_absolute() else recipe_folder / path
    # os.path, unlike Path, answers False where a name is too long.
    if os.path.isdir(local):
        return local.resolve()
    if os.path.exists(local):
        raise BaseModelError.one(
            "base.path", f"{local} is a file", "give the folder that holds config.json"
        )
    if not looks_like_hub_id(base.path):
        raise BaseModelError.one(
            "base.path",
            f"there is no folder {local}",
            "give a folder in Hugging Face format, or a hub id such as org/model",
        )
    return _download(base.path, base.revision, local)


def _download(hub_id: str, revision: str | None, local: Path) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=_HUB_FILES))
    except GatedRepoError as error:
        raise BaseModelError.one(
            "base.path",
            f"{hub_id} is gated: its owner grants access by request",
            f"ask for access at its page on the hub, then set HF_TOKEN in the environment "
            f"(never in the recipe); revision {revision or 'main'}",
        ) from error
    except RevisionNotFoundError as error:
        raise BaseModelError.one(
            "base.revision",
            f"{hub_id} has no revision {revision!r}",
            "name a branch, tag or commit",
        ) from error
    except RepositoryNotFoundError as error:
        raise BaseModelError.one(
            "base.path",
            f"neither a folder {local} nor a model {hub_id!r} on the hub was found",
            "check the spelling; for a private model set HF_TOKEN in the environment",
        ) from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise EnvironmentFault(
            f"there is no folder {local}, and the hub cannot be reached for {hub_id!r} "
            f"({type(error).__name__})",
            "check the network, or download the model elsewhere and give its folder as base.path",
        ) from error
