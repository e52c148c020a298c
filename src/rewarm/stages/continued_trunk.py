"""What a run decides for what follows it: what trains, how large subsets are, caps over both."""

from __future__ import annotations

from rewarm.errors import PlanError, Problems
from rewarm.planning.exposure import note_exposure
from rewarm.planning.notes import Notes
from rewarm.planning.plan import Plan, PlannedSource, Science
from rewarm.planning.selection import EXPLAINED, explain_stages
from rewarm.recipe.schema import Recipe
from rewarm.recipe.sources import SourceRecipe, SubsetRecipe

__all__ = ["check_what_trains", "notes_of_the_whole", "sized_as_before"]

_OF_A_BEGINNING = ("base.optimizer_state",)
"""Fields of a plan that are about how a run begins from its base."""


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
