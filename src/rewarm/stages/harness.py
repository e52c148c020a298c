"""Tasks of lm-evaluation-harness of a plan, loaded where there are any."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

from rewarm.artifacts import file_sha256, fingerprint
from rewarm.model.load import quiet_transformers
from rewarm.planning.plan import Plan
from rewarm.recipe.records import HarnessRecipe

if TYPE_CHECKING:
    from rewarm.evaluation.harness import HarnessTasks

__all__ = ["harness_key", "harness_of", "harness_texts"]

_NAME = "lm_eval"


def harness_of(plan: Plan) -> HarnessTasks | None:
    """Return a plan's tasks of lm-evaluation-harness with their data; None where it has none.

    The harness takes seconds to import and is nobody's who names no task of it. Raises RecipeError
    for names that it does not know, EnvironmentFault where data cannot be loaded.
    """
    wanted = plan.conduct.evaluation.harness
    if not wanted.tasks:
        return None
    from transformers import AutoTokenizer

    from rewarm.evaluation.harness import open_harness

    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(plan.conduct.base_folder)
    return open_harness(
        wanted,
        recipe_folder=Path(plan.conduct.recipe_folder),
        tokenizer=tokenizer,
        max_length=plan.conduct.model.max_positions,
    )


def harness_texts(wanted: HarnessRecipe, recipe_folder: Path) -> dict[str, list[str]]:
    """Return the texts of a recipe's tasks of lm-evaluation-harness, by name; raises RecipeError
    and EnvironmentFault as `harness_of` does."""
    from rewarm.evaluation.harness import read_texts

    return read_texts(wanted, recipe_folder)


def harness_key(wanted: HarnessRecipe, recipe_folder: Path) -> str:
    """Return what decides those texts: names, the harness's version, and a person's own files.

    The harness is not imported. Data of the hub counts as what does not change.
    """
    try:
        version = importlib.metadata.version(_NAME)
    except importlib.metadata.PackageNotFoundError:
        version = ""
    own: dict[str, str] = {}
    if wanted.include_path is not None:
        folder = recipe_folder / wanted.include_path
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        own = {str(path.relative_to(folder)): file_sha256(path) for path in files}
    return fingerprint([wanted.model_dump(mode="json"), version, own])
