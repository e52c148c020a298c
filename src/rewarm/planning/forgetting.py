"""Whether what a recipe wants done about forgetting can be done at all, told before a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rewarm.errors import Problems
from rewarm.order.blend import CYCLE
from rewarm.planning.amended import raised
from rewarm.planning.plan import PlannedPhase, PlannedSource
from rewarm.recipe.schema import Recipe
from rewarm.recipe.sources import OLD_ROLES
from rewarm.records.facts import CorpusFacts

__all__ = ["note_forgetting", "warn_of_patience"]

_WHERE = "evaluation.on_forgetting"


def note_forgetting(
    recipe: Recipe,
    sources: Sequence[PlannedSource],
    phases: Sequence[PlannedPhase],
    corpora: Mapping[str, CorpusFacts],
    *,
    sequences_per_step: int,
    problems: Problems,
) -> None:
    """Note a rule that could never act, and one whose replay would go beyond what text there is."""
    rule = recipe.evaluation.on_forgetting
    if rule.action == "off" or not phases:
        return
    measured = [c.name for c in corpora.values() if c.role in OLD_ROLES and c.held_out_documents]
    if not measured:
        problems.add(
            f"{_WHERE}.action",
            "no text of the old domain is held out, so nothing would show what is forgotten",
            "add a source of role general, quality or replay, or set its held_out",
        )
    if rule.action != "replay":
        return
    if not any(source.role in OLD_ROLES for source in sources):
        problems.add(
            f"{_WHERE}.action",
            "no phase shows text of the old domain, so there is no share to raise",
            "give such a source a weight in some phase, however small, or choose warn or stop",
        )
        return
    blends = [raised(sources, phases, phase.weights, rule.ceiling) for phase in phases]
    if all(blend == phase.weights for blend, phase in zip(blends, phases, strict=True)):
        problems.add(
            f"{_WHERE}.ceiling",
            f"every phase plans {rule.ceiling:g} of old text or more: no share would be raised",
            "raise the ceiling, or choose warn or stop",
        )
    _note_caps(recipe, sources, phases, blends, sequences_per_step, problems)


def warn_of_patience(recipe: Recipe, steps: Sequence[int]) -> list[str]:
    """Return a warning where a run has too few evaluations for the rule ever to act."""
    rule = recipe.evaluation.on_forgetting
    counting = sum(step > rule.after_steps for step in steps)
    if rule.action == "off" or counting >= rule.patience:
        return []
    return [
        f"{_WHERE}: it acts after {rule.patience} evaluations in a row, and only {counting} of the "
        "run count: lower patience or after_steps, or evaluate more often"
    ]


def _note_caps(
    recipe: Recipe,
    sources: Sequence[PlannedSource],
    phases: Sequence[PlannedPhase],
    blends: Sequence[Sequence[int]],
    sequences_per_step: int,
    problems: Problems,
) -> None:
    """Note old sources that would exceed their cap, were the share at its ceiling from step 0."""
    for index, source in enumerate(sources):
        num_samples = sum(
            blend[index] / CYCLE * (phase.end_step - phase.start_step) * sequences_per_step
            for blend, phase in zip(blends, phases, strict=True)
        )
        epochs, cap = source.epochs(round(num_samples)), recipe.sources[source.name].max_epochs
        if source.role in OLD_ROLES and epochs > cap:
            problems.add(
                f"{_WHERE}.ceiling",
                f"at this share from the beginning {source.name!r} would be shown for {epochs:.2f} "
                f"epochs, above its cap of {cap:g}",
                "lower the ceiling, add old text, or raise "
                f"sources.{source.name}.max_epochs with a max_epochs_reason",
            )
