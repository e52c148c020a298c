"""Which sources a phase is dealt to, and how much of each is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rewarm.planning.notes import GAP, Notes
from rewarm.planning.plan import PlannedPhase, PlannedSource
from rewarm.recipe.phases import PhaseRecipe
from rewarm.recipe.schema import Recipe
from rewarm.recipe.sources import OLD_ROLES, SourceRecipe, SubsetRecipe
from rewarm.records.facts import CorpusFacts
from rewarm.records.packing import Packing, PackingFacts
from rewarm.units import format_count

__all__ = [
    "Group",
    "groups_of",
    "planned_source",
    "size_of_subset",
    "used_sources",
    "with_subsets",
]


def used_sources(recipe: Recipe) -> list[str]:
    """Return the sources that some phase shows, in the recipe's order; others are evaluated."""
    shown: set[str] = set()
    for phase in recipe.phases:
        for group in groups_of(phase, recipe):
            shown.update(group.members if group.share > 0 else ())
    return [name for name in recipe.sources if name in shown]


@dataclass(frozen=True, slots=True)
class Group:
    """Sources that share a part of a phase between them, and which part of it."""

    share: float
    members: tuple[str, ...]


def groups_of(phase: PhaseRecipe, recipe: Recipe) -> list[Group]:
    """Return what a phase is dealt to: each source by its own weight, a role's sources, or all."""
    if isinstance(phase.weights, dict) and phase.weights:
        return [Group(share, (name,)) for name, share in phase.weights.items()]
    named = recipe.sources if phase.among is None else phase.among
    if not phase.roles:
        return [Group(1.0, tuple(name for name in recipe.sources if name in named))]
    return [
        Group(
            share,
            tuple(
                name
                for name, source in recipe.sources.items()
                if name in named and _takes_in(role, source)
            ),
        )
        for role, share in phase.roles.items()
    ]


def _takes_in(role: str, source: SourceRecipe) -> bool:
    return source.role == role or (role == "old" and source.role in OLD_ROLES)


def planned_source(
    corpus: CorpusFacts, packed: PackingFacts | None, packing: Packing, sequence_length: int
) -> PlannedSource:
    """Return a source in windows of `sequence_length` (0: not known, none), each of them shown.

    Estimated facts do not say how well documents fit: best-fit windows are then as many as without
    any padding.
    """
    bins = None
    if sequence_length == 0:
        num_windows = 0
    elif packing == "contiguous":
        num_windows = corpus.num_windows(sequence_length)
    elif packed is not None:
        num_windows, bins = packed.best_fit.num_windows, packed.fingerprint
    else:
        assert not corpus.measured, f"{corpus.name} is not packed"
        num_windows = -(-max(0, corpus.num_tokens - 1) // sequence_length)
    return PlannedSource(
        name=corpus.name,
        role=corpus.role,
        key=corpus.tokens if corpus.measured else corpus.key,
        num_windows=num_windows,
        bins=bins,
    )


def with_subsets(
    sources: Sequence[PlannedSource],
    phases: Sequence[PlannedPhase],
    recipe: Recipe,
    *,
    sequence_length: int,
    notes: Notes,
) -> tuple[PlannedSource, ...]:
    """Return the sources as their recipes have them shown: a subset, in stored order, or all."""
    shown: list[PlannedSource] = []
    for index, source in enumerate(sources):
        wanted = recipe.sources[source.name]
        if wanted.order == "stored":
            source = source.model_copy(update={"in_stored_order": True})
            notes.because(
                f"sources.{source.name}.order", "stored", "its windows come as they lie, unshuffled"
            )
        if wanted.subset is not None:
            num_samples = sum(phase.samples[index] for phase in phases)
            source = _subset(source, wanted, num_samples, sequence_length, notes)
        shown.append(source)
    return tuple(shown)


def _subset(
    source: PlannedSource,
    wanted: SourceRecipe,
    num_samples: int,
    sequence_length: int,
    notes: Notes,
) -> PlannedSource:
    subset = wanted.subset
    assert subset is not None
    stored = source.num_windows
    if subset.epochs is None:
        size = size_of_subset(subset, stored, sequence_length)
        asked = f"{subset.share:g} of it" if subset.share else f"{_count_of(subset)} tokens"
    else:
        size = max(1, math.ceil(num_samples / subset.epochs))
        asked = f"what the run then shows {subset.epochs:g} times"
    if size >= stored:
        notes.warnings.append(
            f"source {source.name!r}: the subset ({asked}) is no smaller than the source, so all "
            f"of it is shown"
        )
        return source
    how = "another part for each pass" if subset.redraw else "one part, the same in each pass"
    notes.because(
        f"sources.{source.name}.subset",
        f"{format_count(size * sequence_length)} of "
        f"{format_count(stored * sequence_length)} tokens",
        f"{asked}; {how}",
        GAP,
    )
    return source.model_copy(
        update={"num_windows": size, "num_stored": stored, "redrawn": subset.redraw}
    )


def size_of_subset(subset: SubsetRecipe, num_stored: int, sequence_length: int) -> int:
    """Return the windows of a subset that is given by its share or its tokens."""
    if subset.share is not None:
        return math.ceil(subset.share * num_stored)
    assert subset.tokens is not None
    return -(-subset.tokens // sequence_length)


def _count_of(subset: SubsetRecipe) -> str:
    assert subset.tokens is not None
    return format_count(subset.tokens)
