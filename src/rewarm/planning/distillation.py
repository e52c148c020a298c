"""Distillation from the base, resolved: on which text, at which temperature, from what teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rewarm.planning.notes import Notes
from rewarm.planning.plan import PlannedPhase, PlannedSource
from rewarm.recipe.retention import DistillRecipe
from rewarm.recipe.schema import Recipe
from rewarm.recipe.sources import OLD_ROLES

__all__ = ["note_unknown", "resolve_distill"]

LWF = "Li and Hoiem 2017, arXiv 1606.09282"
DISTILLATION = "Hinton et al. 2015, arXiv 1503.02531"
_LWF_TEMPERATURE = 2.0


def resolve_distill(
    recipe: Recipe,
    sources: Sequence[PlannedSource],
    phases: Sequence[PlannedPhase],
    notes: Notes,
) -> DistillRecipe:
    """Return the recipe with the sources that it acts on and its temperature.

    What makes no sense is noted as a problem.
    """
    wanted = recipe.retention.distill
    assert wanted is not None
    names = _names_on(wanted, recipe)
    unknown = [name for name in names if name not in recipe.sources]
    for name in unknown:
        note_unknown("retention.distill.on", name, recipe, notes)
    shown = {source.name for source in sources}
    used = [name for name in names if name in shown]
    if phases and not unknown and not used:
        notes.problems.add(
            "retention.distill.on",
            f"no phase shows text of {_named(wanted.on)}, so there is nothing to hold to the base",
            "give such a source a weight in a phase, or choose other text",
        )
    if phases and used:
        _note_shown(wanted, names, used, sources, phases, notes)
    acts_on = [name for name in used or names if name in recipe.sources]
    is_new = all(recipe.sources[name].role not in OLD_ROLES for name in acts_on)
    temperature = wanted.temperature
    if temperature is None:
        flattened = is_new and wanted.teacher == "live"
        temperature = _LWF_TEMPERATURE if flattened else 1.0
    if wanted.teacher == "stored":
        _note_stored(recipe, used or names, temperature, notes)
    notes.because(
        "retention.distill.weight",
        f"{wanted.weight:g}",
        "T² · KL(base ‖ model) per token "
        + ("in place of the loss" if wanted.replaces_loss else "beside the loss")
        + f" on {', '.join(used or names) or 'nothing'}"
        + ("; 1 is the published CE/2 + T² KD/2 for one old task, times 2" if is_new else ""),
        LWF if is_new else DISTILLATION,
    )
    notes.because(
        "retention.distill.temperature",
        f"{temperature:g}",
        "as learning without forgetting has it"
        if temperature == _LWF_TEMPERATURE
        else "the base's own distribution"
        if temperature == 1.0
        else "as the recipe says",
        LWF if temperature == _LWF_TEMPERATURE else "recipe",
    )
    return wanted.model_copy(update={"on": used or names, "temperature": temperature})


def _note_shown(
    wanted: DistillRecipe,
    names: Sequence[str],
    used: Sequence[str],
    sources: Sequence[PlannedSource],
    phases: Sequence[PlannedPhase],
    notes: Notes,
) -> None:
    """Note where the phases leave it nothing to act on, or leave nothing to be learned."""
    for name in names:
        if name not in used and isinstance(wanted.on, list):
            notes.warnings.append(
                f"retention.distill.on names {name!r}, which no phase shows: nothing is done there"
            )
    samples = sum(
        number
        for phase in phases
        for source, number in zip(sources, phase.samples, strict=True)
        if source.name in used
    )
    if not samples:
        notes.problems.add(
            "retention.distill.on",
            f"the run is so short that it shows no sample of {', '.join(used)}",
            "give such a source a greater weight, or raise the budget",
        )
    if wanted.replaces_loss:
        _note_nothing_learned(used, sources, phases, notes)


def _note_nothing_learned(
    used: Sequence[str],
    sources: Sequence[PlannedSource],
    phases: Sequence[PlannedPhase],
    notes: Notes,
) -> None:
    """Refuse a divergence that takes the loss from all that is to be learned, or from a phase."""
    where = "retention.distill.replaces_loss"
    new = [source.name for source in sources if source.role not in OLD_ROLES]
    learned = new or [source.name for source in sources]
    if set(learned) <= set(used):
        notes.problems.add(
            where,
            f"the divergence stands in place of the loss on all that is to be learned "
            f"({', '.join(learned)}): the model would stay the base",
            "name old or sampled text in retention.distill.on, or leave replaces_loss out",
        )
        return
    for phase in phases:
        weighed = zip(sources, phase.weights, strict=True)
        if {source.name for source, weight in weighed if weight} <= set(used):
            notes.problems.add(
                where,
                f"phase {phase.name!r} shows no other text, so that its steps have no loss at all",
                "give it text that is learned, too, or leave replaces_loss out",
            )


def _names_on(wanted: DistillRecipe, recipe: Recipe) -> list[str]:
    if isinstance(wanted.on, list):
        return list(dict.fromkeys(wanted.on))
    return [
        name
        for name, source in recipe.sources.items()
        if wanted.on == "all" or (source.role in OLD_ROLES) == (wanted.on == "replay")
    ]


def _named(on: Literal["new", "replay", "all"] | list[str]) -> str:
    return ", ".join(map(repr, on)) if isinstance(on, list) else f"on = {on!r}"


def _note_stored(recipe: Recipe, names: Sequence[str], temperature: float, notes: Notes) -> None:
    """Refuse stored distributions where none are stored, or at a temperature they do not have."""
    for name in names:
        source = recipe.sources.get(name)
        if source is None:
            continue
        if source.rehearse is None or not source.rehearse.top_k_logits:
            notes.problems.add(
                "retention.distill.teacher",
                f"the base's distribution is not stored beside {name!r}"
                + ("" if source.rehearse else ", which is text of files"),
                f"set sources.{name}.rehearse.top_k_logits, e.g. to 32"
                if source.rehearse
                else 'use teacher = "live", or name sampled sources in retention.distill.on',
            )
    if not recipe.batch.mask_documents:
        notes.warnings.append(
            "batch.mask_documents = false: the model sees the documents before a sampled text, "
            "which the base did not when its distribution was stored; keep documents apart, or "
            'use retention.distill.teacher = "live"'
        )
    if temperature != 1.0:
        notes.problems.add(
            "retention.distill.temperature",
            f"{temperature:g}, but what is stored is the base's distribution at 1, of which only "
            "the likeliest tokens are known: it cannot be flattened",
            'leave temperature out, or use teacher = "live"',
        )


def note_unknown(where: str, name: str, recipe: Recipe, notes: Notes) -> None:
    """Note that a key names a source that is not there."""
    notes.problems.add(
        where,
        f"no source is called {name!r}",
        f"name one of: {', '.join(sorted(recipe.sources))}; or add a source of this name",
    )
