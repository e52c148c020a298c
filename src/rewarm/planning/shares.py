"""Shares of every phase: as the recipe gives them, or by a rule from what the sources hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rewarm.order.blend import CYCLE, count_before, deal_cycle, quantise_weights
from rewarm.planning.blends import groups_of, size_of_subset
from rewarm.planning.mixture import by_temperature, deal_evenly, parts_of_caps, units_within
from rewarm.planning.notes import TEMPERATURE, UNIMAX, Notes
from rewarm.planning.phases import PhaseSpan
from rewarm.planning.plan import PlannedSource
from rewarm.planning.size import Size
from rewarm.recipe.phases import PhaseRecipe
from rewarm.recipe.schema import Recipe
from rewarm.recipe.sources import SourceRecipe
from rewarm.records.facts import CorpusFacts
from rewarm.units import format_count

__all__ = ["phase_shares"]

_MOST_NAMED = 5


def phase_shares(
    recipe: Recipe,
    corpora: Mapping[str, CorpusFacts],
    sources: Sequence[PlannedSource],
    spans: Sequence[PhaseSpan],
    size: Size,
    shown_before: Mapping[str, int],
    notes: Notes,
) -> list[tuple[int, ...]] | None:
    """Return each phase's shares in 1/65,536, a number for each of the sources.

    What does not depend on caps is dealt first; what is dealt as evenly as caps allow has what
    that leaves of them, wherever in the run it stands, and what was shown before the run by one
    that it goes on with (`shown_before`, in samples). None, with problems noted, where caps cannot
    fill a phase, or a share is too small to be dealt.
    """
    before = len(notes.problems)
    found: dict[int, tuple[int, ...]] = {}
    for index, phase in enumerate(recipe.phases):
        if phase.rule != "unimax":
            _explain(phase, notes)
            weights = _weights_of(phase, recipe, corpora)
            shares = _quantised(phase, index, weights, sources, notes)
            if shares is not None:
                found[index] = shares
    if len(notes.problems) == before and len(found) < len(recipe.phases):
        found |= _even_shares(recipe, sources, spans, size, found, shown_before, notes)
    if len(notes.problems) > before:
        return None
    return [found[index] for index in range(len(recipe.phases))]


def _weights_of(
    phase: PhaseRecipe, recipe: Recipe, corpora: Mapping[str, CorpusFacts]
) -> dict[str, float]:
    """Return a phase's weight of each source, where it does not depend on caps."""
    if isinstance(phase.weights, dict) and phase.weights:
        return phase.weights
    weights: dict[str, float] = {}
    for group in groups_of(phase, recipe):
        tokens = [corpora[name].num_tokens for name in group.members]
        sizes = by_temperature(tokens, phase.temperature or 1.0)
        total = sum(sizes)
        for name, size in zip(group.members, sizes, strict=True):
            weights[name] = group.share * size / total
    return weights


def _quantised(
    phase: PhaseRecipe,
    index: int,
    weights: Mapping[str, float],
    sources: Sequence[PlannedSource],
    notes: Notes,
) -> tuple[int, ...] | None:
    """Return shares in 1/65,536; None, with a problem noted, where one is less than that."""
    total = math.fsum(weights.values())
    # Weights of the recipe's own were held against it where they were read.
    tiny = [name for name, weight in weights.items() if 0 < weight / total < 1 / CYCLE]
    if tiny:
        _note_tiny(phase, index, tiny, notes)
        return None
    return quantise_weights([weights.get(source.name, 0.0) for source in sources])


def _note_tiny(phase: PhaseRecipe, index: int, names: Sequence[str], notes: Notes) -> None:
    what = f"the share of {_listed(names)} is below 1/65,536, the finest that the blend deals out"
    fix = "join it with another source, or leave it out with among"
    if phase.rule == "tokens":
        fix += ', or deal more evenly: weights = "unimax"'
    notes.problems.add(f"phases[{index}].weights", what, fix)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_MOST_NAMED])
    return shown + (f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else "")


# As evenly as caps allow


@dataclass(frozen=True, slots=True)
class _Demand:
    """A part of a phase that is dealt as evenly as caps allow: so many of its 65,536 units."""

    phase: int
    members: tuple[str, ...]
    units: int
    num_slots: int

    @property
    def num_samples(self) -> int:
        return -(-self.units * self.num_slots // CYCLE)


def _even_shares(
    recipe: Recipe,
    sources: Sequence[PlannedSource],
    spans: Sequence[PhaseSpan],
    size: Size,
    fixed: Mapping[int, tuple[int, ...]],
    shown_before: Mapping[str, int],
    notes: Notes,
) -> dict[int, tuple[int, ...]]:
    """Return the shares of the phases that are dealt as evenly as caps allow."""
    slots = [(span.end_step - span.start_step) * size.sequences_per_step for span in spans]
    caps = _caps_left(recipe, sources, size, slots, fixed, shown_before)
    demands = _demands(recipe, slots)
    parts = parts_of_caps(caps, [(demand.num_samples, demand.members) for demand in demands])
    units: dict[int, dict[str, int]] = {demand.phase: {} for demand in demands}
    for demand, part in zip(demands, parts, strict=True):
        limits = [units_within(part[name], demand.num_slots) for name in demand.members]
        dealt = deal_evenly(demand.units, limits)
        units[demand.phase].update(zip(demand.members, dealt.units, strict=True))
        if dealt.num_short:
            _note_shortfall(
                recipe, sources, demand, part, dealt.num_short, size, shown_before, notes
            )
        _explain_even(recipe, demand, dealt.units, limits, notes)
    return {
        phase: tuple(by_name.get(source.name, 0) for source in sources)
        for phase, by_name in units.items()
    }


def _demands(recipe: Recipe, slots: Sequence[int]) -> list[_Demand]:
    found = []
    for index, phase in enumerate(recipe.phases):
        if phase.rule == "unimax":
            groups = groups_of(phase, recipe)
            units = quantise_weights([group.share for group in groups])
            found += [
                _Demand(index, group.members, dealt, slots[index])
                for group, dealt in zip(groups, units, strict=True)
                if dealt
            ]
    return found


def _caps_left(
    recipe: Recipe,
    sources: Sequence[PlannedSource],
    size: Size,
    slots: Sequence[int],
    fixed: Mapping[int, tuple[int, ...]],
    shown_before: Mapping[str, int],
) -> dict[str, int]:
    """Return by source the samples that its cap allows beside those that are dealt already."""
    taken = sum(
        (count_before(deal_cycle(fixed[index]), slots[index]) for index in fixed),
        start=np.zeros(len(sources), dtype=np.int64),
    )
    return {
        source.name: max(
            0,
            _cap_of(source, recipe.sources[source.name], size)
            - int(taken[index])
            - shown_before.get(source.name, 0),
        )
        for index, source in enumerate(sources)
    }


def _cap_of(source: PlannedSource, wanted: SourceRecipe, size: Size) -> int:
    """Return how many samples of a source its cap on epochs allows over the whole run."""
    drawn_from = source.num_windows
    subset = wanted.subset
    # A subset by epochs grows with what the run shows, up to all of the source.
    if subset is not None and subset.epochs is None and not subset.redraw:
        drawn_from = min(
            size_of_subset(subset, source.num_windows, size.sequence_length), drawn_from
        )
    cap = math.floor(wanted.max_epochs * drawn_from)
    while cap and cap / drawn_from > wanted.max_epochs:
        cap -= 1
    return cap


def _note_shortfall(
    recipe: Recipe,
    sources: Sequence[PlannedSource],
    demand: _Demand,
    part: Mapping[str, int],
    num_short: int,
    size: Size,
    shown_before: Mapping[str, int],
    notes: Notes,
) -> None:
    """Say how many tokens find no place, which caps bind, and what would change it."""
    phase = recipe.phases[demand.phase]
    length = size.sequence_length
    wanted = demand.num_samples * length
    # Of a share's samples a unit rounds away; what is left is the sum of whole units.
    allowed = (demand.units - num_short) * demand.num_slots // CYCLE * length
    by_name = {source.name: source for source in sources}
    told = [
        f"{name} ({recipe.sources[name].max_epochs:g} epochs of "
        f"{format_count(by_name[name].num_windows * length)} allow "
        f"{format_count(part[name] * length)}{_beside(shown_before.get(name, 0) * length)})"
        for name in demand.members[:_MOST_NAMED]
    ]
    more = len(demand.members) - len(told)
    notes.problems.add(
        f"phases[{demand.phase}].weights",
        f"{phase.name!r} shows {format_count(wanted)} tokens of these sources, and their caps on "
        f"epochs allow {format_count(allowed)}, {format_count(wanted - allowed)} short: "
        + ", ".join(told)
        + (f" and {more} more" if more > 0 else ""),
        f"make the phase no longer than {allowed / wanted:.3f} of what it is (its until, or "
        "budget.tokens), add text, or raise max_epochs (above 4 with a max_epochs_reason)",
    )


def _beside(num_tokens: int) -> str:
    """Say what of a cap the run that this one goes on from took."""
    if not num_tokens:
        return ""
    return f" beside {format_count(num_tokens)} that the run it goes on from showed"


def _explain(phase: PhaseRecipe, notes: Notes) -> None:
    """Say by which rule a phase's shares came to be, where one is named."""
    where = f"phases.{phase.name}.weights"
    if phase.weights == "temperature":
        notes.because(
            where,
            f"temperature {phase.temperature:g}",
            "shares as tokens^(1/temperature): smaller sources have more than by their tokens",
            TEMPERATURE,
        )
    elif phase.weights == "tokens":
        notes.because(where, "tokens", "each source has the share of its tokens")


def _explain_even(
    recipe: Recipe,
    demand: _Demand,
    units: Sequence[int],
    limits: Sequence[int],
    notes: Notes,
) -> None:
    """Say which caps bind in a part of a phase, and note shares too small to be dealt."""
    phase = recipe.phases[demand.phase]
    dealt = list(zip(demand.members, units, limits, strict=True))
    tiny = [name for name, share, _ in dealt if not share]
    if tiny:
        _note_tiny(phase, demand.phase, tiny, notes)
    bound = [name for name, share, limit in dealt if share == limit < max(units)]
    largest = max(units) / CYCLE
    notes.because(
        f"phases.{phase.name}.weights",
        "unimax",
        f"as evenly as caps on epochs allow: {largest:.2%} each of {len(dealt)} sources"
        + (f", less of those at their cap ({_listed(bound)})" if bound else ""),
        UNIMAX,
    )
