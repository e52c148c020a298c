"""What a run decides for what follows it: what trains, how large subsets are, caps over both.

And what its amendments do: which of its checkpoints can be gone on from, what it has shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from rewarm.errors import PlanError, Problems, RunFolderError
from rewarm.order.position import samples_before
from rewarm.planning.amendments import Amendments
from rewarm.planning.exposure import note_exposure
from rewarm.planning.notes import Notes
from rewarm.planning.plan import Plan, PlannedSource, Reason, Science
from rewarm.planning.selection import EXPLAINED, explain_stages
from rewarm.recipe.records import EvaluationRecipe
from rewarm.recipe.schema import Recipe
from rewarm.recipe.sources import OLD_ROLES, SourceRecipe, SubsetRecipe
from rewarm.records.run_folder import RunFolder
from rewarm.training.saved import read_saved_state

__all__ = [
    "check_start",
    "check_what_trains",
    "counting_from",
    "notes_of_the_whole",
    "reason_of_the_rule",
    "rule_that_can_act",
    "shown_before",
    "sized_as_before",
]

_OF_A_BEGINNING = ("base.optimizer_state",)
"""Fields of a plan that are about how a run begins from its base."""


def check_start(checkpoint: Path, run: RunFolder, amendments: Amendments) -> None:
    """Raise RunFolderError where a checkpoint is not of its run as it is amended now.

    What its steps were dealt could not be told.
    """
    saved = read_saved_state(checkpoint)
    why = amendments.why_outdated(saved.amendments_head, saved.step)
    if why is not None:
        raise RunFolderError.one(
            str(checkpoint),
            why,
            f"restore {run.amendments.name} as it was beside it, or choose another (--at-step)",
        )


def shown_before(trunk: Science, step: int) -> dict[str, int]:
    """Return how many samples of each source a run's steps before `step` show.

    `trunk` is as its amendments have made it.
    """
    samples = samples_before(trunk.order(), step)
    return {source.name: int(num) for source, num in zip(trunk.sources, samples, strict=True)}


def rule_that_can_act(recipe: Recipe, weights: Mapping[str, float]) -> EvaluationRecipe:
    """Return what a run's own recipe measures, its rule on forgetting fit for another blend.

    Where that holds no old text, or as much as is allowed, replay cannot be raised: it warns.
    """
    rule = recipe.evaluation.on_forgetting
    old = sum(w for name, w in weights.items() if recipe.sources[name].role in OLD_ROLES)
    share = old / sum(weights.values())
    if rule.action != "replay" or 0 < share < rule.ceiling:
        return recipe.evaluation
    update = {"on_forgetting": rule.model_copy(update={"action": "warn"})}
    return recipe.evaluation.model_copy(update=update)


def reason_of_the_rule(trunk: Plan, more: Plan) -> Iterator[Reason]:
    """Yield why what follows only warns where the run itself raises its replay, if so."""
    before, after = (plan.conduct.evaluation.on_forgetting.action for plan in (trunk, more))
    if (before, after) == ("replay", "warn"):
        yield Reason(
            field="evaluation.on_forgetting",
            value="warn",
            reason="the blend of what follows holds no old text, or as much as the run's ceiling "
            "allows: no share is left to be raised",
            source="the run's recipe",
        )


def counting_from(evaluation: EvaluationRecipe, at_step: int) -> EvaluationRecipe:
    """Return what is measured, with a rule on forgetting that looks at what follows alone.

    Text and blend may be others there: what was measured before says nothing of them, and a first
    jump passes by itself again.
    """
    rule = evaluation.on_forgetting
    later = rule.model_copy(update={"after_steps": at_step + rule.after_steps})
    return evaluation.model_copy(update={"on_forgetting": later})


def check_what_trains(recipe: Recipe, trunk: Science) -> None:
    """Raise PlanError where a recipe wants another part of the model to train, or otherwise."""
    problems = Problems()
    for key in ("parameters", "freezing", "retention"):
        wanted = getattr(recipe, key)
        if wanted not in (getattr(trunk, key), type(wanted)()):
            problems.add(
                key,
                "what trains, and how, is the run's that is gone on with, and this recipe says "
                "otherwise",
                "leave it out, or as that run has it",
            )
    problems.raise_as(PlanError)


def sized_as_before(sources: dict[str, SourceRecipe], trunk: Science) -> dict[str, SourceRecipe]:
    """Return sources with subsets that were sized by the trunk's length as large as they were."""
    known = {source.name: source for source in trunk.sources}
    return {
        name: source.model_copy(update={"subset": _same_subset(known[name], source.subset, trunk)})
        if name in known and source.subset is not None and source.subset.epochs is not None
        else source
        for name, source in sources.items()
    }


def _same_subset(
    planned: PlannedSource, subset: SubsetRecipe, trunk: Science
) -> SubsetRecipe | None:
    if planned.num_stored is None:
        return None  # it was no smaller than the source
    return SubsetRecipe(tokens=planned.num_windows * trunk.sequence_length, redraw=subset.redraw)


def notes_of_the_whole(science: Science, more: Plan, recipe: Recipe) -> Notes:
    """Return what a plan of its own says of what follows, told of the whole run where that counts.

    Raises PlanError where the two together show a source more often than it may be.
    """
    notes = Notes(problems=Problems())
    notes.reasons = [
        reason for reason in more.reasons if reason.field not in (*EXPLAINED, *_OF_A_BEGINNING)
    ]
    explain_stages(recipe, more.conduct.model, science.stages, science.num_steps, notes)
    shown = {source.name for source in more.science.sources}
    kept = [index for index, source in enumerate(science.sources) if source.name in shown]
    exposed = note_exposure(
        [science.sources[index] for index in kept],
        [
            phase.model_copy(update={"samples": tuple(phase.samples[index] for index in kept)})
            for phase in science.phases
        ],
        recipe.sources,
        more.conduct.corpora,
        sequence_length=science.sequence_length,
        asked_by="the run and what follows it",
        problems=notes.problems,
    )
    notes.warnings = [*more.warnings, *(told for told in exposed if told not in more.warnings)]
    notes.problems.raise_as(PlanError)
    return notes
