"""The data order against a second one, written from its description in plain integers.

It deals slot by slot without a heap, a table or a common divisor, permutes one number at a time,
and keeps counters as a sequential loader would. It shares no line with the package.
"""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rewarm.order.blend import CYCLE, deal_cycle, quantise_weights
from rewarm.order.position import (
    OrderPhase,
    OrderSpec,
    Slots,
    locate_samples,
    samples_before,
    slots_of_step,
)
from rewarm.order.shuffle import derive_key, invert, permute

Sample = tuple[int, int, int, int]


def reference_key(*parts: int | str) -> int:
    message = b""
    for part in parts:
        text = str(part).encode()
        message += (b"i" if isinstance(part, int) else b"s") + str(len(text)).encode() + b":" + text
    return int(hashlib.blake2b(message, digest_size=8, person=b"rewarm.order").hexdigest(), 16)


def splitmix(word: int) -> int:
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
    return word ^ (word >> 31)


def reference_permute(value: int, length: int, key: int) -> int:
    half = 2
    while half * half < length:
        half *= 2
    while True:
        left, right = divmod(value, half)
        for r in range(1, 9):
            round_key = splitmix((key + r * 0x9E3779B97F4A7C15) % 2**64)
            left, right = right, left ^ splitmix((right + round_key) % 2**64) % half
        value = left * half + right
        if value < length:
            return value


def reference_deal(weights: tuple[int, ...], num_slots: int) -> list[int]:
    """Return the source of each slot: of released jobs the earliest deadline, then the index."""
    total = sum(weights)
    given = [0] * len(weights)
    dealt = []
    for slot in range(num_slots):
        released = []
        for source, weight in enumerate(weights):
            if weight and given[source] * total // weight <= slot:
                released.append((-((-(given[source] + 1) * total) // weight), source))
        deadline, source = min(released)
        assert deadline > slot
        given[source] += 1
        dealt.append(source)
    return dealt


def reference_steps(spec: OrderSpec) -> list[list[Sample]]:
    counters = [0] * len(spec.source_names)
    size = spec.sequences_per_step
    steps = []
    for phase in spec.phases:
        dealt = reference_deal(phase.weights, (phase.end_step - phase.start_step) * size)
        for step in range(phase.start_step, phase.end_step):
            first = (step - phase.start_step) * size
            slots: list[Sample] = []
            for source in dealt[first : first + size]:
                epoch, place = divmod(counters[source], spec.num_windows[source])
                key = reference_key(spec.seed, "epoch", spec.source_names[source], epoch)
                window = reference_permute(place, spec.num_windows[source], key)
                slots.append((source, counters[source], epoch, window))
                counters[source] += 1
            key = reference_key(spec.seed, "slots", step)
            steps.append([slots[reference_permute(slot, size, key)] for slot in range(size)])
    return steps


def rows(slots: Slots) -> list[Sample]:
    arrays = (slots.source, slots.sample, slots.epoch, slots.window)
    return list(zip(*(array.tolist() for array in arrays), strict=True))


def blends(num_sources: int) -> st.SearchStrategy[tuple[int, ...]]:
    weight = st.one_of(st.just(0.0), st.floats(0.01, 1))
    several = st.lists(weight, min_size=num_sources, max_size=num_sources)
    return several.filter(any).map(quantise_weights)


@st.composite
def orders(draw: st.DrawFn) -> OrderSpec:
    num_sources = draw(st.integers(1, 5))
    ends = sorted(draw(st.sets(st.integers(1, 15), min_size=1, max_size=3)))
    starts = [0, *ends[:-1]]
    return OrderSpec(
        seed=draw(st.integers(-(2**70), 2**70)),
        sequences_per_step=draw(st.integers(1, 20)),
        source_names=tuple(f"Quelle ü{index}" for index in range(num_sources)),
        num_windows=tuple(draw(st.integers(1, 30)) for _ in range(num_sources)),
        phases=tuple(
            OrderPhase(start, end, draw(blends(num_sources)))
            for start, end in zip(starts, ends, strict=True)
        ),
    )


@settings(max_examples=12, deadline=None)
@given(orders())
def test_every_step_is_the_sequential_one_slot_for_slot(spec: OrderSpec) -> None:
    expected = reference_steps(spec)
    assert [rows(slots_of_step(spec, step)) for step in range(spec.num_steps)] == expected
    in_dealing_order = rows(locate_samples(spec, np.arange(spec.num_steps * len(expected[0]))))
    assert sorted(in_dealing_order) == sorted(sample for step in expected for sample in step)


@settings(max_examples=8, deadline=None)
@given(orders(), st.data())
def test_an_amendment_changes_nothing_before_it_and_goes_on_where_it_stands(
    spec: OrderSpec, data: st.DataObject
) -> None:
    from_step = data.draw(st.integers(1, spec.num_steps))
    kept = [phase for phase in spec.phases if phase.start_step < from_step]
    kept[-1] = OrderPhase(kept[-1].start_step, from_step, kept[-1].weights)
    added = OrderPhase(from_step, from_step + 5, data.draw(blends(len(spec.source_names))))
    amended = OrderSpec(
        spec.seed,
        spec.sequences_per_step,
        spec.source_names,
        spec.num_windows,
        (*kept, added),
    )
    for step in range(from_step):
        assert rows(slots_of_step(amended, step)) == rows(slots_of_step(spec, step))
    consumed = samples_before(spec, from_step)
    assert (samples_before(amended, from_step) == consumed).all()
    end = amended.num_steps * spec.sequences_per_step
    after = locate_samples(amended, np.arange(from_step * spec.sequences_per_step, end))
    for source in np.unique(after.source):
        counted = after.sample[after.source == source]
        assert (counted == consumed[source] + np.arange(len(counted))).all()


@given(st.integers(1, 2**62), st.integers(0, 2**64 - 1), st.data())
def test_the_permutation_is_the_described_one_at_any_size(
    length: int, key: int, data: st.DataObject
) -> None:
    values = data.draw(st.lists(st.integers(0, length - 1), min_size=1, max_size=5))
    moved = [reference_permute(value, length, key) for value in values]
    assert permute(np.array(values), length, key).tolist() == moved
    assert invert(np.array(moved), length, key).tolist() == values


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 2**64 - 1)), max_size=30))
def test_lengths_and_keys_of_their_own_are_each_item_alone(pairs: list[tuple[int, int]]) -> None:
    lengths = np.array([length for length, _ in pairs], dtype=np.int64)
    keys = np.array([key for _, key in pairs], dtype=np.uint64)
    alone = [reference_permute(length // 2, length, key) for length, key in pairs]
    assert permute(lengths // 2, lengths, keys).tolist() == alone


@settings(max_examples=30)
@given(st.lists(st.one_of(st.integers(), st.text(max_size=5)), max_size=5))
def test_keys_are_the_described_ones(parts: list[int | str]) -> None:
    assert derive_key(*parts) == reference_key(*parts)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 8).flatmap(blends))
def test_the_cycle_repeats_the_full_deal(weights: tuple[int, ...]) -> None:
    """The common divisor shortens the table and changes no slot."""
    cycle = deal_cycle(weights)
    num_slots = 2000
    dealt = np.resize(cycle.source_of_slot, num_slots)
    assert dealt.tolist() == reference_deal(weights, num_slots)
    assert cycle.length == CYCLE // math.gcd(*weights)


def test_a_thousand_sources_keep_the_blend_at_every_prefix() -> None:
    """|count·65,536 − share·t| < 65,536 at each of 65,536 prefixes, counted from the deal alone."""
    raw = np.random.default_rng(3).pareto(1.0, 1000) + 0.02
    weights = quantise_weights(np.maximum(raw, raw.sum() / 40_000).tolist())
    dealt = deal_cycle(weights).source_of_slot
    assert len(dealt) == CYCLE
    shares = np.array(weights)
    excess = np.zeros(1000, dtype=np.int64)  # count·65,536 − share·t
    for first in range(0, CYCLE, 1024):
        taken = dealt[first : first + 1024, None] == np.arange(1000)
        running = excess + np.cumsum(taken * CYCLE - shares, axis=0)
        assert np.abs(running).max() < CYCLE
        excess = running[-1]
    assert not excess.any()


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=200))
def test_quantised_weights_are_within_one_unit_of_the_exact_ones(weights: list[int]) -> None:
    if min(weights) * CYCLE < sum(weights):
        weights = [max(weight, 10**4) for weight in weights]
    shares = quantise_weights([float(weight) for weight in weights])
    assert sum(shares) == CYCLE
    for weight, share in zip(weights, shares, strict=True):
        assert abs(share - Fraction(weight * CYCLE, sum(weights))) < 1
