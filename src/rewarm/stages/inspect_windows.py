"""Which windows of a source are looked at: one by its number, a phase's first ones, or some."""

from __future__ import annotations

import difflib
from typing import NamedTuple

import numpy as np

from rewarm.errors import CorpusError, PlanError
from rewarm.order.position import samples_in_phase, slots_of_step
from rewarm.planning.plan import Plan, Science

__all__ = ["Picked", "picked_windows"]


class Picked(NamedTuple):
    """A window by its number, and when a plan shows it, where that was asked."""

    window: int
    step: int | None = None
    epoch: int | None = None


def picked_windows(
    source: str,
    num_windows: int,
    *,
    window: int | None,
    plan: Plan | None,
    phase: str | None,
    number: int,
    seed: int,
) -> list[Picked]:
    """Return the windows to look at.

    Raises CorpusError for a window that is not there, PlanError for a phase that the plan does not
    have or that does not show the source.
    """
    if not num_windows:
        raise CorpusError.one(
            f"sources.{source}", "its text does not fill one window", "ask for a shorter --length"
        )
    if plan is not None and phase is not None:
        return _of_phase(plan.science, phase, source, number)
    if window is None:
        drawn = np.random.default_rng(seed).choice(
            num_windows, size=min(number, num_windows), replace=False
        )
        return [Picked(one) for one in sorted(drawn.tolist())]
    if not 0 <= window < num_windows:
        raise CorpusError.one(
            "--window",
            f"source {source!r} has no window {window}",
            f"give one from 0 to {num_windows - 1}",
        )
    return [Picked(window)]


def _of_phase(science: Science, name: str, source: str, number: int) -> list[Picked]:
    names = [phase.name for phase in science.phases]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        raise PlanError.one(
            "--phase",
            f"there is no phase {name!r}",
            f"did you mean {near[0]!r}?" if near else f"its phases are {', '.join(names)}",
        )
    index, order = names.index(name), science.order()
    place = order.source_names.index(source) if source in order.source_names else -1
    there = int(samples_in_phase(order, index)[place]) if place >= 0 else 0
    if not there:
        raise PlanError.one(
            "--phase",
            f"phase {name!r} does not show source {source!r}",
            "name a phase that does, or leave --phase out",
        )
    found: list[Picked] = []
    phase = science.phases[index]
    for step in range(phase.start_step, phase.end_step):
        slots = slots_of_step(order, step)
        for slot in np.flatnonzero(slots.source == place):
            found.append(Picked(int(slots.window[slot]), step, int(slots.epoch[slot])))
            if len(found) == min(number, there):
                return found
    return found
