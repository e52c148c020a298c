"""From a step to its samples: (plan, step) → (source, epoch, window), with no iterator state.

A run consumes global positions 0, 1, 2, …, `sequences_per_step` of them a step. A phase deals its
positions to the sources by its blend; a source counts its own samples over all phases, so that a
second phase goes on where the first one left it. Sample j of a source with n windows is in epoch
j div n, and which window it is follows from a permutation keyed by (seed, source, epoch).

A source may show a subset: n of its N stored windows, those at which a second permutation (of N,
keyed by the source alone) has places below n. Keyed by the epoch as well, it is drawn anew for each
epoch. A source in stored order has no permutation: its windows come as they lie.
"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rewarm.order.blend import CYCLE, count_before, deal_cycle, locate
from rewarm.order.shuffle import derive_key, permute

__all__ = [
    "Drawing",
    "OrderPhase",
    "OrderSpec",
    "Slots",
    "locate_samples",
    "samples_before",
    "samples_in_phase",
    "slots_of_rank",
    "slots_of_step",
]

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class OrderPhase:
    """Steps [start_step, end_step) with quantised weights that sum to 65,536."""

    start_step: int
    end_step: int
    weights: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Drawing:
    """How the windows of a source are drawn: which of its stored ones, and in which order.

    `num_stored` is how many there are (None: as many as an epoch shows); `redrawn` draws the subset
    anew for each epoch; `in_stored_order` shows windows as they lie. Raises ValueError where the
    two last are asked for together: a subset in stored order is its first windows.
    """

    num_stored: int | None = None
    redrawn: bool = False
    in_stored_order: bool = False

    def __post_init__(self) -> None:
        if self.redrawn and self.in_stored_order:
            raise ValueError("a source in stored order is not drawn anew")


_ALL_SHUFFLED = Drawing()


@dataclass(frozen=True, slots=True)
class OrderSpec:
    """All that the data order depends on. Raises ValueError where its parts do not fit.

    `num_windows` are the windows that an epoch of each source shows, `drawings` how they are drawn
    (empty: all of them, shuffled).
    """

    seed: int
    sequences_per_step: int
    source_names: tuple[str, ...]
    num_windows: tuple[int, ...]
    phases: tuple[OrderPhase, ...]
    drawings: tuple[Drawing, ...] = ()

    def __post_init__(self) -> None:
        self._check_sources()
        self._check_phases()

    def _check_sources(self) -> None:
        if self.sequences_per_step < 1:
            raise ValueError("a step needs at least one sequence")
        if len(self.num_windows) != len(self.source_names) or not self.source_names:
            raise ValueError("every source needs a number of windows")
        if len(set(self.source_names)) != len(self.source_names):
            raise ValueError(f"source names repeat: {self.source_names}")
        if self.drawings and len(self.drawings) != len(self.source_names):
            raise ValueError("every source needs its drawing, or none has one")
        for name, shown, drawing in zip(
            self.source_names, self.num_windows, self.drawings, strict=False
        ):
            if drawing.num_stored is not None and drawing.num_stored < shown:
                raise ValueError(
                    f"source {name!r} shows {shown} windows of {drawing.num_stored} stored ones"
                )

    def _check_phases(self) -> None:
        expected = 0
        for phase in self.phases:
            if phase.start_step != expected or phase.end_step <= phase.start_step:
                raise ValueError(f"phases must follow each other from step 0: {self.phases}")
            expected = phase.end_step
            if len(phase.weights) != len(self.source_names) or sum(phase.weights) != CYCLE:
                raise ValueError(f"a phase needs one weight a source, summing to {CYCLE}")
            for name, weight, windows in zip(
                self.source_names, phase.weights, self.num_windows, strict=True
            ):
                if weight < 0 or (weight > 0 and windows < 1):
                    raise ValueError(f"source {name!r} has weight {weight} and {windows} windows")

    def drawing(self, source: int) -> Drawing:
        """Return how a source's windows are drawn."""
        return self.drawings[source] if self.drawings else _ALL_SHUFFLED

    @property
    def num_steps(self) -> int:
        """Steps of all phases together."""
        return self.phases[-1].end_step if self.phases else 0


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """Samples by slot; four int64 arrays of one shape.

    `source` indexes the order's sources; `sample` counts that source's samples from the start of
    the run; `epoch` and `window` say which pass over which window that is.
    """

    source: Integers
    sample: Integers
    epoch: Integers
    window: Integers


def slots_of_step(spec: OrderSpec, step: int) -> Slots:
    """Return the samples of a step, each array of shape [sequences_per_step].

    The slots are permuted within the step (keyed by seed and step), so that no source falls onto
    one rank again and again. Raises ValueError for a step outside of the phases.
    """
    return locate_samples(spec, _positions_of_step(spec, step))


def slots_of_rank(spec: OrderSpec, step: int, rank: int, num_ranks: int) -> Slots:
    """Return one rank's share of a step: a contiguous part of `slots_of_step`.

    The samples of a step are the same for every number of ranks. Where it does not divide the
    sequences per step, some ranks have one more than others (or, of too many, one instead of none).
    A rank outside is a ValueError.
    """
    if not 0 <= rank < num_ranks:
        raise ValueError(f"rank {rank} is not one of {num_ranks}")
    start, end = (spec.sequences_per_step * edge // num_ranks for edge in (rank, rank + 1))
    return locate_samples(spec, _positions_of_step(spec, step)[start:end])


def _positions_of_step(spec: OrderSpec, step: int) -> Integers:
    if not 0 <= step < spec.num_steps:
        raise ValueError(f"step {step} is outside of the order [0, {spec.num_steps})")
    size = spec.sequences_per_step
    # A step may be a numpy integer; in 32 bits the product would wrap.
    first = operator.index(step) * size
    return permute(np.arange(size), size, derive_key(spec.seed, "slots", step)) + first


def locate_samples(spec: OrderSpec, positions: NDArray[np.integer]) -> Slots:
    """Return the samples at global positions (step · sequences_per_step + slot), any shape.

    Slots count in the order in which they were dealt; `slots_of_step` permutes them afterwards.
    Pure arithmetic: the cost does not depend on how far into the run a position lies. Raises
    ValueError for a position outside of the phases.
    """
    flat = np.asarray(positions, dtype=np.int64).reshape(-1)
    ends = np.array([p.end_step * spec.sequences_per_step for p in spec.phases], dtype=np.int64)
    end = spec.num_steps * spec.sequences_per_step
    if flat.size and (flat.min() < 0 or flat.max() >= end):
        raise ValueError(f"a position is outside of the order [0, {end})")
    phase_of = np.searchsorted(ends, flat, side="right")
    source = np.empty_like(flat)
    sample = np.empty_like(flat)
    for index in np.unique(phase_of):
        phase = spec.phases[index]
        chosen = phase_of == index
        inside = flat[chosen] - phase.start_step * spec.sequences_per_step
        sources, ranks = locate(deal_cycle(phase.weights), inside)
        source[chosen] = sources
        sample[chosen] = ranks + _before_phase(spec, int(index))[sources]
    epoch, window = _shuffled(spec, source, sample)
    shape = np.shape(positions)
    return Slots(*(array.reshape(shape) for array in (source, sample, epoch, window)))


def _shuffled(spec: OrderSpec, source: Integers, sample: Integers) -> tuple[Integers, Integers]:
    """Return epoch and window of samples: each (source, epoch) has a permutation of its own."""
    num_windows = np.asarray(spec.num_windows, dtype=np.int64)[source]
    epoch, place = np.divmod(sample, num_windows)
    pairs = zip(source.tolist(), epoch.tolist(), strict=True)
    keys = np.fromiter(
        (_epoch_key(spec.seed, spec.source_names[s], e) for s, e in pairs), np.uint64, len(source)
    )
    window = permute(place, num_windows, keys)
    for index in np.unique(source) if spec.drawings else ():
        drawing = spec.drawings[index]
        own = source == index
        if drawing.in_stored_order:
            window[own] = place[own]
        elif drawing.num_stored is not None and drawing.num_stored > spec.num_windows[index]:
            window[own] = _drawn(spec, int(index), drawing, window[own], epoch[own])
    return epoch, window


def _drawn(
    spec: OrderSpec, source: int, drawing: Drawing, place: Integers, epoch: Integers
) -> Integers:
    """Return which stored windows stand at places of a source's subset."""
    assert drawing.num_stored is not None
    of_epoch = epoch.tolist() if drawing.redrawn else [0] * len(epoch)
    name = spec.source_names[source]
    keys = np.fromiter((_subset_key(spec.seed, name, e) for e in of_epoch), np.uint64, len(epoch))
    return permute(place, drawing.num_stored, keys)


@functools.lru_cache(maxsize=16_384)
def _epoch_key(seed: int, source_name: str, epoch: int) -> int:
    return derive_key(seed, "epoch", source_name, epoch)


@functools.lru_cache(maxsize=16_384)
def _subset_key(seed: int, source_name: str, epoch: int) -> int:
    return derive_key(seed, "subset", source_name, epoch)


def samples_in_phase(spec: OrderSpec, index: int) -> Integers:
    """Return the exact number of samples of each source in a phase, shape [sources]."""
    phase = spec.phases[index]
    num_slots = (phase.end_step - phase.start_step) * spec.sequences_per_step
    return _whole_phase(phase.weights, num_slots).copy()


@functools.lru_cache(maxsize=1024)
def _whole_phase(weights: tuple[int, ...], num_slots: int) -> Integers:
    # A run with more blends than `deal_cycle` keeps would deal them all again for every question.
    counts = count_before(deal_cycle(weights), num_slots)
    counts.flags.writeable = False
    return counts


def samples_before(spec: OrderSpec, step: int) -> Integers:
    """Return how many samples of each source the steps before `step` consume, shape [sources].

    `step` may be the number of steps; anything outside is a ValueError.
    """
    if not 0 <= step <= spec.num_steps:
        raise ValueError(f"step {step} is outside of the order [0, {spec.num_steps}]")
    counts = np.zeros(len(spec.source_names), dtype=np.int64)
    for index, phase in enumerate(spec.phases):
        if step >= phase.end_step:
            counts += samples_in_phase(spec, index)
        elif step > phase.start_step:
            num_slots = (operator.index(step) - phase.start_step) * spec.sequences_per_step
            counts += count_before(deal_cycle(phase.weights), num_slots)
    return counts


@functools.lru_cache(maxsize=256)
def _before_phase(spec: OrderSpec, index: int) -> Integers:
    counts = samples_before(spec, spec.phases[index].start_step)
    counts.flags.writeable = False
    return counts
