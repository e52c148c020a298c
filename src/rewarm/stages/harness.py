"""Tasks of lm-evaluation-harness of a plan, loaded where there are any."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rewarm.errors import EnvironmentFault
from rewarm.model.load import quiet_transformers
from rewarm.planning.plan import Plan
from rewarm.recipe.records import HarnessRecipe

if TYPE_CHECKING:
    from rewarm.evaluation.harness import HarnessTasks

__all__ = ["harness_of", "harness_texts"]


def harness_of(plan: Plan) -> HarnessTasks | None:
    """Return a plan's tasks of lm-evaluation-harness with their data; None where it has none.

    The harness takes seconds to import and is nobody's who names no task of it. Raises RecipeError
    for names that it does not know, EnvironmentFault where it or data cannot be loaded.
    """
    wanted = plan.conduct.evaluation.harness
    if not wanted.tasks:
        return None
    with _said_where_it_is_missing():
        from rewarm.evaluation.harness import open_harness
    from transformers import AutoTokenizer

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
    with _said_where_it_is_missing():
        from rewarm.evaluation.harness import read_texts
    return read_texts(wanted, recipe_folder)


@contextlib.contextmanager
def _said_where_it_is_missing() -> Iterator[None]:
    """Tell a person that the harness cannot be imported: a plan may be of another machine."""
    try:
        yield
    except ImportError as error:
        raise EnvironmentFault(
            f"the run has tasks of lm-evaluation-harness, which cannot be imported ({error})",
            "pip install 'rewarm[tasks]'",
        ) from error
