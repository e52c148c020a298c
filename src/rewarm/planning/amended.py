"""A plan's blends as its amendments have changed them: still a function of (plan, amendments).

A raised replay share governs from its step on: the phase that this step is in is dealt anew there,
by the new blend, and each later phase by its own, raised where it plans less. Within each part
every prefix keeps to its blend; sources go on counting across the edge, so that no window is lost
or shown twice by it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from rewarm.order.blend import CYCLE, quantise_weights
from rewarm.order.position import samples_in_phase
from rewarm.planning.amendments import Amendments
from rewarm.planning.plan import Plan, PlannedPhase, PlannedSource, Science
from rewarm.recipe.sources import OLD_ROLES

__all__ = ["amended", "amended_plan", "raised", "replay_share"]


def amended_plan(plan: Plan, amendments: Amendments) -> Plan:
    """Return a plan with the blends that its run is dealt to; its fingerprint remains."""
    science = amended(plan.science, amendments)
    return plan if science is plan.science else plan.model_copy(update={"science": science})


def amended(science: Science, amendments: Amendments) -> Science:
    """Return the science with its phases as amended; itself where no blend was changed."""
    if not amendments.replay_steps():
        return science
    phases = tuple(part for phase in science.phases for part in _parts(science, phase, amendments))
    if phases == science.phases:
        return science
    uncounted = science.model_copy(update={"phases": phases})
    order = uncounted.order()
    counted = tuple(
        phase.model_copy(update={"samples": tuple(int(n) for n in samples_in_phase(order, index))})
        for index, phase in enumerate(phases)
    )
    return science.model_copy(update={"phases": counted})


def _parts(science: Science, phase: PlannedPhase, amendments: Amendments) -> Iterator[PlannedPhase]:
    """Yield a phase, cut where its blend changes; where it does not, it is dealt on as it was."""
    inner = {at for at in amendments.replay_steps() if phase.start_step < at < phase.end_step}
    edges = sorted({phase.start_step, phase.end_step, *inner})
    part: PlannedPhase | None = None
    for start, end in itertools.pairwise(edges):
        share = amendments.replay_share(start)
        weights = raised(science.sources, science.phases, phase.weights, share)
        if part is not None and part.weights == weights:
            part = part.model_copy(update={"end_step": end})
            continue
        if part is not None:
            yield part
        name = phase.name if weights == phase.weights else f"{phase.name}, replay {share:.3g}"
        part = phase.model_copy(
            update={"name": name, "start_step": start, "end_step": end, "weights": weights}
        )
    assert part is not None
    yield part


def raised(
    sources: Sequence[PlannedSource],
    phases: Sequence[PlannedPhase],
    weights: Sequence[int],
    share: float,
) -> tuple[int, ...]:
    """Return a blend in which old text has at least `share`, the rest of each part in proportion.

    A blend of old text alone stays so. In one without any, old sources share as they do over all
    `phases`.
    """
    is_old = [source.role in OLD_ROLES for source in sources]
    old = sum(itertools.compress(weights, is_old))
    within = list(weights) if old else _slots(phases, len(sources))
    total = sum(itertools.compress(within, is_old))
    if old >= share * CYCLE or old == CYCLE or not total:
        return tuple(weights)
    wanted = [
        share * mine / total if known else (1 - share) * weight / (CYCLE - old)
        for weight, mine, known in zip(weights, within, is_old, strict=True)
    ]
    # What was dealt at all still is: a share below 1/65,536 could not be. What is raised to it is a
    # part of a larger sum then, and has to be one of that.
    if any(0 < value < 1 / CYCLE for value in wanted):
        least = 1 / (CYCLE - len(wanted))
        wanted = [max(value, least) if value > 0 else 0.0 for value in wanted]
    return quantise_weights(wanted)


def _slots(phases: Sequence[PlannedPhase], num_sources: int) -> list[int]:
    """Return each source's weight over all phases, by their steps."""
    return [
        sum(phase.weights[index] * (phase.end_step - phase.start_step) for phase in phases)
        for index in range(num_sources)
    ]


def replay_share(science: Science, step: int) -> float:
    """Return the share of old text in the blend of a step."""
    is_old = [source.role in OLD_ROLES for source in science.sources]
    return sum(itertools.compress(science.phase_at(step).weights, is_old)) / CYCLE
