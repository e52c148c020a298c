"""Short runs that answer a question about a recipe before it is carried out.

Each is a run as any other, in a folder under the recipe's own: planned, trained, measured, resumed
by the same command. Once it is measured its weights are not needed, and go.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from rewarm.artifacts import fingerprint, write_json
from rewarm.planning.plan import Plan
from rewarm.recipe.parameters import FreezingRecipe
from rewarm.recipe.phases import PhaseRecipe
from rewarm.recipe.records import CheckpointRecipe, ForgettingRecipe, HarnessRecipe
from rewarm.recipe.schedule import ScheduleRecipe
from rewarm.recipe.schema import Recipe
from rewarm.recipe.sources import SourceRecipe
from rewarm.recipe.steps import BudgetRecipe, GuardRecipe
from rewarm.records.facts import EvalRecord
from rewarm.records.run_folder import RunFolder
from rewarm.stages.job import Job, keep_plan
from rewarm.stages.plan import plan_job
from rewarm.stages.train import FINISHED, train_plan
from rewarm.training.lock import hold_lock
from rewarm.training.step import NonFiniteStep

__all__ = ["ShortRun", "plan_short_run", "short_recipe", "train_short_run"]


@dataclass(frozen=True, slots=True)
class ShortRun:
    """A short run as planned; its job's run folder is its own."""

    plan: Plan
    job: Job

    @property
    def folder(self) -> RunFolder:
        """Where its records are."""
        return self.job.run

    @property
    def mark_of_divergence(self) -> Path:
        """The file that says, where it is there, that the run diverged: it is not tried again."""
        return self.folder.path / "diverged.json"

    @property
    def has_diverged(self) -> bool:
        """Whether a loss or gradient was not finite."""
        return self.mark_of_divergence.exists()

    def is_done(self) -> bool:
        """Tell whether nothing is left to train: what the base was measured by, so was the end."""
        return self.has_diverged or self.folder.is_measured_after(self.plan.science.num_steps)

    def records(self) -> list[EvalRecord]:
        """Return what was measured; nothing of a run that diverged."""
        return [] if self.has_diverged else self.folder.evals()


def short_recipe(
    recipe: Recipe,
    *,
    name: str,
    num_tokens: int,
    schedule: ScheduleRecipe,
    phases: Sequence[PhaseRecipe],
) -> Recipe:
    """Return a recipe of `num_tokens` with these phases, measured by its losses alone.

    Base, text, batch, optimizer, trained parameters and seed are the recipe's, so that short runs
    of one length see the same data in the same order where they have the same blend. Layers do not
    freeze, as that is laid out over the whole run.
    """
    num_steps = max(1, num_tokens // recipe.batch.tokens)
    return recipe.model_copy(
        update={
            "name": name,
            "sources": {name: _whole(source) for name, source in recipe.sources.items()},
            "phases": list(phases),
            "schedule": schedule,
            "freezing": FreezingRecipe(),
            "preset": None,
            "budget": BudgetRecipe(tokens=num_tokens),
            "guard": GuardRecipe(),
            "evaluation": recipe.evaluation.model_copy(
                update={
                    "tasks": {},
                    "harness": HarnessRecipe(),
                    "matched_continuation_items": 0,
                    # A share of the whole run; three evaluations are much of a short one.
                    "max_share": None,
                    # What is forgotten is looked for here: nothing is to be done about it.
                    "on_forgetting": ForgettingRecipe(),
                }
            ),
            "checkpoints": CheckpointRecipe(
                every_steps=math.ceil(num_steps / 4),
                keep=1,
                background=recipe.checkpoints.background,
            ),
        }
    )


def _whole(source: SourceRecipe) -> SourceRecipe:
    """Return the source without a subset that is sized to be seen several times in a whole run."""
    if source.subset is None or source.subset.epochs is None:
        return source
    return source.model_copy(update={"subset": None})


def plan_short_run(job: Job, recipe: Recipe, place: str) -> ShortRun:
    """Return a short run of `recipe` in the run folder of `job`: `place` and a key of its settings.

    It is measured at the base, half-way and at the end. Raises PlanError as `plan` does.
    """
    plan = plan_job(replace(job, recipe=recipe), estimates_allowed=False)
    last = plan.science.num_steps
    conduct = plan.conduct.model_copy(update={"evaluation_steps": (0, last // 2, last)})
    plan = plan.model_copy(update={"conduct": conduct})
    # What is compared must be measured alike: other settings are other runs.
    key = fingerprint(
        [
            plan.fingerprint,
            plan.conduct.evaluation.model_dump(mode="json"),
            {name: corpus.key for name, corpus in plan.conduct.corpora.items()},
        ]
    )
    folder = job.run.path / "tune" / f"{place}-{key[:8]}"
    return ShortRun(plan, replace(job, recipe=recipe, run=RunFolder(folder)))


def train_short_run(short: ShortRun, *, command: str, console: Console) -> int:
    """Train a short run from wherever it stands, and return the exit code of training.

    A loss or gradient that is not finite ends it, on record: that is an answer too.
    """
    code = FINISHED
    if not short.is_done():
        keep_plan(short.plan, short.job)
        try:
            code = train_plan(short.plan, short.folder, command=command, console=console)
        except NonFiniteStep as error:
            write_json(short.mark_of_divergence, {"why": str(error)})
    if code == FINISHED and short.folder.checkpoints.exists():
        with hold_lock(short.folder.lock, lambda message: None):
            shutil.rmtree(short.folder.checkpoints)
    return code
