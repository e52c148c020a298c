"""The data order against naive references: exact fractions, sequential simulation, whole epochs."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewarm.order.blend import CYCLE, count_before, deal_cycle, locate, quantise_weights
from rewarm.order.position import (
    OrderPhase,
    OrderSpec,
    Slots,
    locate_samples,
    samples_before,
    samples_in_phase,
    slots_of_rank,
    slots_of_step,
)
from rewarm.order.shuffle import derive_key, invert, permute

raw_weights = st.lists(st.one_of(st.just(0.0), st.floats(0.01, 100)), min_size=1, max_size=12)
weight_lists = raw_weights.filter(lambda weights: sum(weights) > 0)


# --- shuffle ---


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_every_epoch_is_a_bijection(length: int, key: int) -> None:
    index = np.arange(length)
    moved = permute(index, length, key)
    assert sorted(moved.tolist()) == index.tolist()
    assert (invert(moved, length, key) == index).all()


@given(st.integers(1, 2**62), st.integers(0, 2**64 - 1), st.data())
def test_huge_domains_invert(length: int, key: int, data: st.DataObject) -> None:
    index = np.array(data.draw(st.lists(st.integers(0, length - 1), min_size=1, max_size=20)))
    moved = permute(index, length, key)
    assert ((moved >= 0) & (moved < length)).all()
    assert (invert(moved, length, key) == index).all()


def test_the_permutation_never_changes_between_releases() -> None:
    assert permute(np.arange(10), 10, 0).tolist() == GOLDEN_TEN
    assert permute(np.array([0, 1, 10**15]), 10**16, 12345).tolist() == GOLDEN_HUGE
    assert derive_key(7, "epoch", "web", 3) == GOLDEN_KEY


def test_keys_of_different_parts_differ() -> None:
    keys = {
        derive_key("a", "bc"),
        derive_key("ab", "c"),
        derive_key("abc"),
        derive_key(1),
        derive_key("1"),
        derive_key(1, 1),
        derive_key(11),
    }
    assert len(keys) == 7


def test_neighbours_lose_their_parity() -> None:
    """An affine map sends neighbours a constant apart: here the parities are like coin tosses."""
    for length in (10_000, 65_536, 99_991):
        moved = permute(np.arange(length), length, derive_key(length))
        same = np.mean(np.diff(moved) % 2 == 0)
        assert abs(same - 0.5) < 4 * 0.5 / math.sqrt(length)
        assert len(np.unique(np.diff(moved))) > length // 4


def test_places_are_uniform_over_keys() -> None:
    """Where item 0 of 8 lands over 4,000 keys: chi-square, 7 degrees, below 29.9 (p = 1e-4)."""
    landed = [int(permute(np.array([0]), 8, derive_key("k", key))[0]) for key in range(4000)]
    counts = np.bincount(landed, minlength=8)
    assert ((counts - 500) ** 2 / 500).sum() < 29.9


def test_what_cannot_be_permuted_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot permute 0 positions"):
        permute(np.arange(0), 0, 1)
    for bad in ([-1], [5]):
        with pytest.raises(ValueError, match=r"outside of \[0, 5\)"):
            permute(np.array(bad), 5, 1)


# --- blend ---


@given(weight_lists)
def test_shares_sum_and_stay_near(weights: list[float]) -> None:
    shares = quantise_weights(weights)
    assert sum(shares) == CYCLE
    for weight, share in zip(weights, shares, strict=True):
        assert (share == 0) == (weight == 0)
        assert abs(share - weight / sum(weights) * CYCLE) < 1 + 1e-6


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ([1.0, -0.1], "must be finite and not negative"),
        ([1.0, math.nan], "must be finite and not negative"),
        ([0.0, 0.0], "at least one weight must be above zero"),
        ([1.0, 1e-6], "of source 1 is below 1/65536"),
    ],
)
def test_bad_weights_are_refused(weights: list[float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        quantise_weights(weights)


def largest_deviation(shares: tuple[int, ...]) -> Fraction:
    """Return max over prefixes t and sources of |count − share·t/Σ|, in exact arithmetic."""
    cycle = deal_cycle(shares)
    total = sum(shares)
    worst = Fraction(0)
    counts = [0] * len(shares)
    for t, source in enumerate(cycle.source_of_slot.tolist(), start=1):
        counts[source] += 1
        # Only the source that was dealt and those longest without can be extreme; check all anyway.
        for index, share in enumerate(shares):
            worst = max(worst, abs(counts[index] - Fraction(share * t, total)))
    return worst


@settings(max_examples=25)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=8).filter(lambda s: sum(s) > 0))
def test_every_prefix_keeps_the_blend_to_within_one_sample(shares: list[int]) -> None:
    assert largest_deviation(tuple(shares)) < 1


@settings(max_examples=4, deadline=None)
@given(st.integers(100, 1000), st.integers(0, 2**32 - 1))
def test_a_thousand_sources_keep_the_blend(num_sources: int, seed: int) -> None:
    weights = np.random.default_rng(seed).pareto(1.0, num_sources) + 0.01
    shares = np.array(quantise_weights(np.maximum(weights, weights.sum() / 50_000).tolist()))
    cycle = deal_cycle(tuple(int(share) for share in shares))
    # A source's deviation is extreme just before and just after each of its own slots.
    slots = np.arange(cycle.length)
    own = np.asarray(cycle.shares)[cycle.source_of_slot]
    rank = cycle.rank_of_slot.astype(np.int64)
    before = rank * cycle.length - own * slots
    after = (rank + 1) * cycle.length - own * (slots + 1)
    assert np.abs(before).max() < cycle.length
    assert np.abs(after).max() < cycle.length


@settings(max_examples=15, deadline=None)
@given(weight_lists, st.integers(0, 200_000))
def test_counts_are_those_of_the_slots(weights: list[float], position: int) -> None:
    cycle = deal_cycle(quantise_weights(weights))
    sources, ranks = locate(cycle, np.arange(position))
    counts = np.bincount(sources, minlength=len(weights))
    assert (count_before(cycle, position) == counts).all()
    for source in range(len(weights)):
        assert (ranks[sources == source] == np.arange(counts[source])).all()


def test_counts_go_on_at_any_size() -> None:
    cycle = deal_cycle(quantise_weights([1.0, 2.0, 0.0]))
    far = 10**15
    counts = count_before(cycle, far)
    assert counts.sum() == far
    assert (counts - count_before(cycle, far % cycle.length)).tolist() == [
        share * (far // cycle.length) for share in cycle.shares
    ]


# --- position ---


@st.composite
def specs(draw: st.DrawFn) -> OrderSpec:
    num_sources = draw(st.integers(1, 4))
    lengths = draw(st.lists(st.integers(1, 12), min_size=1, max_size=3))
    phases: list[OrderPhase] = []
    start = 0
    for length in lengths:
        weights = draw(
            st.lists(
                st.one_of(st.just(0.0), st.floats(0.05, 1)),
                min_size=num_sources,
                max_size=num_sources,
            ).filter(lambda found: sum(found) > 0)
        )
        phases.append(OrderPhase(start, start + length, quantise_weights(weights)))
        start += length
    return OrderSpec(
        seed=draw(st.integers(0, 2**63 - 1)),
        sequences_per_step=draw(st.sampled_from((1, 2, 6, 12, 30))),
        source_names=tuple(f"s{index}" for index in range(num_sources)),
        num_windows=tuple(draw(st.integers(1, 40)) for _ in range(num_sources)),
        phases=tuple(phases),
    )


def samples(slots: Slots) -> list[tuple[int, int, int, int]]:
    arrays = (slots.source, slots.sample, slots.epoch, slots.window)
    return list(zip(*(array.tolist() for array in arrays), strict=True))


@settings(max_examples=20, deadline=None)
@given(specs())
def test_random_access_equals_going_through(spec: OrderSpec) -> None:
    """A sequential dealer that knows only the blend's cycle and its own counters."""
    counters = Counter[int]()
    for phase in spec.phases:
        dealt = deal_cycle(phase.weights).source_of_slot
        slot = 0
        for step in range(phase.start_step, phase.end_step):
            assert samples_before(spec, step).tolist() == [
                counters[index] for index in range(len(spec.source_names))
            ]
            expected = []
            for _ in range(spec.sequences_per_step):
                source = int(dealt[slot % len(dealt)])
                expected.append((source, counters[source]))
                counters[source] += 1
                slot += 1
            found = samples(slots_of_step(spec, step))
            assert sorted((source, sample) for source, sample, _, _ in found) == sorted(expected)
            for source, sample, epoch, _ in found:
                assert epoch == sample // spec.num_windows[source]
    assert samples_before(spec, spec.num_steps).tolist() == [
        counters[index] for index in range(len(spec.source_names))
    ]


@settings(max_examples=20, deadline=None)
@given(specs())
def test_every_epoch_shows_every_window_once(spec: OrderSpec) -> None:
    everything = locate_samples(spec, np.arange(spec.num_steps * spec.sequences_per_step))
    seen = Counter((source, epoch, window) for source, _, epoch, window in samples(everything))
    assert set(seen.values()) <= {1}
    for source, total in enumerate(samples_before(spec, spec.num_steps).tolist()):
        for epoch in range(total // spec.num_windows[source]):
            windows = {window for s, e, window in seen if (s, e) == (source, epoch)}
            assert windows == set(range(spec.num_windows[source]))


@settings(max_examples=20, deadline=None)
@given(specs(), st.data())
def test_every_world_size_sees_the_same_step(spec: OrderSpec, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, spec.num_steps - 1))
    whole = samples(slots_of_step(spec, step))
    for num_ranks in range(1, spec.sequences_per_step + 3):
        parts = [samples(slots_of_rank(spec, step, r, num_ranks)) for r in range(num_ranks)]
        assert list(itertools.chain.from_iterable(parts)) == whole
        assert max(map(len, parts)) == -(-spec.sequences_per_step // num_ranks)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    with pytest.raises(ValueError, match="is not one of"):
        slots_of_rank(spec, step, 1, 1)


@settings(max_examples=20, deadline=None)
@given(specs())
def test_phases_are_exact_and_counters_go_on(spec: OrderSpec) -> None:
    for index, phase in enumerate(spec.phases):
        counts = samples_in_phase(spec, index)
        before = samples_before(spec, phase.start_step)
        assert (samples_before(spec, phase.end_step) - before == counts).all()
        size = (phase.end_step - phase.start_step) * spec.sequences_per_step
        assert counts.sum() == size
        for weight, count in zip(phase.weights, counts.tolist(), strict=True):
            assert abs(count - Fraction(weight * size, CYCLE)) < 1


def test_no_source_falls_onto_one_rank_only() -> None:
    """Two sources by halves alternate slots; unpermuted, each of two ranks would see both, but
    four sequences over two ranks would give rank 0 the same pattern at every step."""
    spec = OrderSpec(1, 4, ("a", "b"), (100, 100), (OrderPhase(0, 400, (32_768, 32_768)),))
    on_rank_0 = [int(slots_of_rank(spec, step, 0, 2).source.sum()) for step in range(400)]
    assert set(on_rank_0) == {0, 1, 2}


def test_an_unfinished_thought_is_refused() -> None:
    half = (32_768, 32_768)
    for change, told in [
        ({"sequences_per_step": 0}, "at least one sequence"),
        ({"num_windows": (1,)}, "needs a number of windows"),
        ({"num_windows": (1, 0)}, "source 'b' has weight 32768 and 0 windows"),
        ({"source_names": ("a", "a")}, "source names repeat"),
        ({"phases": (OrderPhase(1, 2, half),)}, "follow each other"),
        ({"phases": (OrderPhase(0, 2, (1, 2)),)}, "summing to 65536"),
    ]:
        values: dict[str, object] = {
            "seed": 1,
            "sequences_per_step": 2,
            "source_names": ("a", "b"),
            "num_windows": (1, 1),
            "phases": (OrderPhase(0, 2, half),),
        }
        values.update(change)  # type: ignore[call-overload]
        with pytest.raises(ValueError, match=told):
            OrderSpec(**values)  # type: ignore[arg-type]
    spec = OrderSpec(1, 2, ("a", "b"), (1, 1), (OrderPhase(0, 2, half),))
    for step in (-1, 2):
        with pytest.raises(ValueError, match=r"outside of the order \[0, 2\)"):
            slots_of_step(spec, step)
    with pytest.raises(ValueError, match="a position is outside"):
        locate_samples(spec, np.array([4]))
    with pytest.raises(ValueError, match="outside of the order"):
        samples_before(spec, 3)


def test_far_positions_are_as_exact_as_near_ones() -> None:
    """At 10^13 the counters equal whole cycles plus the near position's counters."""
    weights = quantise_weights([0.7, 0.2, 0.1])
    per_step = 1024
    phase = OrderPhase(0, 2 * 10**13 // per_step, weights)
    spec = OrderSpec(3, per_step, ("a", "b", "c"), (10**9, 10**6, 7), (phase,))
    cycle = deal_cycle(weights)
    cycles = 10**13 // cycle.length
    near = np.random.default_rng(0).integers(0, cycle.length, 4096)
    far = locate_samples(spec, near + cycles * cycle.length)
    close = locate_samples(spec, near)
    assert (far.source == close.source).all()
    shares = np.asarray(cycle.shares)
    assert (far.sample - close.sample == cycles * shares[close.source]).all()
    assert (far.window < np.asarray(spec.num_windows)[far.source]).all()


GOLDEN_TEN = [2, 0, 8, 1, 9, 7, 4, 5, 6, 3]
GOLDEN_HUGE = [9622101332168591, 7025957368429292, 7797234449925349]
GOLDEN_KEY = 18132422143685862974
