"""Subsets and stored order, against sets that are counted out."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewarm.order.position import Drawing, OrderPhase, OrderSpec, locate_samples

STORED = 1000


def order_of(shown: int, drawing: Drawing, *, seed: int = 1, num_steps: int = 400) -> OrderSpec:
    return OrderSpec(
        seed=seed,
        sequences_per_step=10,
        source_names=("web",),
        num_windows=(shown,),
        phases=(OrderPhase(0, num_steps, (65_536,)),),
        drawings=(drawing,),
    )


def epochs_of(order: OrderSpec, shown: int, num_epochs: int) -> list[list[int]]:
    slots = locate_samples(order, np.arange(shown * num_epochs))
    assert slots.epoch.tolist() == [e for e in range(num_epochs) for _ in range(shown)]
    return [part.tolist() for part in slots.window.reshape(num_epochs, shown)]


@given(st.integers(1, 400), st.integers(0, 2**32))
def test_a_subset_shows_the_same_windows_in_every_epoch(shown: int, seed: int) -> None:
    order = order_of(shown, Drawing(STORED), seed=seed)
    first, *others = epochs_of(order, shown, 3)
    assert len(set(first)) == shown
    assert set(first) <= set(range(STORED))
    assert all(set(other) == set(first) for other in others)
    if shown > 20:
        assert all(other != first for other in others), "each epoch has an order of its own"


def test_a_subset_is_a_fair_draw() -> None:
    """A tenth of 1,000 windows over 300 seeds: each is drawn 30 times, σ = √(300·0.09) = 5.2."""
    drawn = Counter[int]()
    for seed in range(300):
        drawn.update(epochs_of(order_of(100, Drawing(STORED), seed=seed), 100, 1)[0])
    counts = np.array([drawn[window] for window in range(STORED)])
    assert counts.mean() == 30
    assert 4.4 < counts.std() < 6.0
    assert counts.max() < 30 + 5 * 5.2


def test_a_redrawn_subset_differs_from_epoch_to_epoch() -> None:
    epochs = epochs_of(order_of(100, Drawing(STORED, redrawn=True)), 100, 20)
    assert all(len(set(epoch)) == 100 for epoch in epochs)
    overlaps = [len(set(one) & set(two)) for one, two in itertools.pairwise(epochs)]
    # Of two independent tenths a tenth of one is in the other: 10, σ = 2.8.
    assert np.mean(overlaps) == pytest.approx(10, abs=2.5)
    # 20 draws of a tenth leave 0.9^20 = 12 % of the windows unseen.
    assert len({w for epoch in epochs for w in epoch}) == pytest.approx(878, abs=40)


def test_stored_order_shows_windows_as_they_lie() -> None:
    assert epochs_of(order_of(7, Drawing(in_stored_order=True)), 7, 2) == [list(range(7))] * 2
    subset = order_of(7, Drawing(STORED, in_stored_order=True))
    assert epochs_of(subset, 7, 2) == [list(range(7))] * 2


def test_a_drawing_of_all_is_the_plain_order() -> None:
    """Runs that draw no subset keep the order that they always had."""
    plain = OrderSpec(1, 10, ("web",), (50,), (OrderPhase(0, 40, (65_536,)),))
    drawn = order_of(50, Drawing(50, redrawn=True), num_steps=40)
    positions = np.arange(400)
    assert (
        locate_samples(plain, positions).window == locate_samples(drawn, positions).window
    ).all()


def test_other_sources_keep_their_order_beside_a_subset() -> None:
    phases = (OrderPhase(0, 40, (32_768, 32_768)),)
    plain = OrderSpec(1, 10, ("a", "b"), (50, 60), phases)
    mixed = OrderSpec(1, 10, ("a", "b"), (50, 60), phases, (Drawing(), Drawing(600)))
    one, other = (locate_samples(order, np.arange(400)) for order in (plain, mixed))
    is_a = one.source == 0
    assert (one.window[is_a] == other.window[is_a]).all()
    assert other.window[~is_a].max() > 60 > one.window[~is_a].max()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="not drawn anew"):
        Drawing(redrawn=True, in_stored_order=True)
    with pytest.raises(ValueError, match="shows 8 windows of 7"):
        order_of(8, Drawing(7))
    with pytest.raises(ValueError, match="its drawing, or none"):
        OrderSpec(1, 1, ("a",), (5,), (OrderPhase(0, 1, (65_536,)),), (Drawing(), Drawing()))
