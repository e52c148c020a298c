"""What the data order refuses, what it accepts from numpy, and what it computes only once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rewarm.order.blend import count_before, deal_cycle, locate, quantise_weights
from rewarm.order.position import (
    OrderPhase,
    OrderSpec,
    locate_samples,
    samples_before,
    samples_in_phase,
    slots_of_step,
)
from rewarm.order.shuffle import derive_key, permute


def order(num_steps: int, sequences_per_step: int = 4) -> OrderSpec:
    phase = OrderPhase(0, num_steps, (49_152, 16_384))
    return OrderSpec(1, sequences_per_step, ("a", "b"), (10, 10), (phase,))


@pytest.mark.parametrize("weights", [[], [0.0], [1e308, 1e308]])
def test_weights_without_a_finite_sum_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one weight must be above zero"):
        quantise_weights(weights)


def test_the_smallest_share_that_can_be_dealt_is_dealt() -> None:
    assert quantise_weights([0.1] * 65_536) == (1,) * 65_536
    assert quantise_weights([65_535.0, 1.0, 0.0]) == (65_535, 1, 0)
    with pytest.raises(ValueError, match=r"^share 1\.53e-05 of source 1 is below 1/65536$"):
        quantise_weights([65_536.0, 1.0])


def test_positions_before_a_phase_are_refused() -> None:
    cycle = deal_cycle((3, 1))
    with pytest.raises(ValueError, match=r"^position -1 lies before the phase$"):
        count_before(cycle, -1)
    with pytest.raises(ValueError, match=r"^position -7 lies before the phase$"):
        locate(cycle, np.array([2, -7]))


@pytest.mark.parametrize("length", [-1, 0, 2**62 + 1, 2**63, 2**64])
def test_lengths_beyond_the_domain_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"^cannot permute {length} positions"):
        permute(np.arange(2), length, 0)


def test_an_order_without_phases_has_no_positions() -> None:
    spec = OrderSpec(1, 1, ("a",), (1,), ())
    with pytest.raises(ValueError, match=r"^a position is outside of the order \[0, 0\)$"):
        locate_samples(spec, np.array([0]))


@pytest.mark.parametrize("kind", [np.int32, np.uint32, np.int64, np.uint64])
def test_integers_of_any_kind_ask_the_same_question(kind: Any) -> None:
    spec = order(2**30)
    step = 2**30 - 1  # times four sequences, this wraps in 32 bits
    assert derive_key("k", kind(step)) == derive_key("k", step)
    assert (slots_of_step(spec, kind(step)).sample == slots_of_step(spec, step).sample).all()
    assert (samples_before(spec, kind(step)) == samples_before(spec, step)).all()
    source, rank = locate(deal_cycle((3, 1)), np.array([7], dtype=kind))
    assert source.dtype == rank.dtype == np.dtype(np.int64)
    # Three to one is dealt 0, 0, 0, 1: slot 7 is the second one of source 1.
    assert (source.tolist(), rank.tolist()) == ([1], [1])


def test_a_key_is_made_of_integers_and_texts_only() -> None:
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        derive_key("k", 1.5)  # type: ignore[arg-type]


def test_no_positions_have_no_samples_and_shapes_are_kept() -> None:
    spec = order(100)
    assert locate_samples(spec, np.zeros((0, 3), dtype=np.int64)).window.shape == (0, 3)
    grid = np.arange(60).reshape(3, 4, 5)
    found = locate_samples(spec, grid)
    assert found.window.shape == grid.shape
    assert (found.window.ravel() == locate_samples(spec, grid.ravel()).window).all()


def test_each_blend_is_dealt_once_however_many_there_are() -> None:
    """More phases than cycles are kept: a second question must not deal them all again."""
    blends = [(1024 * i, 1024 * j, 1024 * (64 - i - j)) for i in range(1, 13) for j in range(1, 13)]
    phases = tuple(OrderPhase(s, s + 1, blend) for s, blend in enumerate(blends))
    spec = OrderSpec(1, 7, ("a", "b", "c"), (5, 5, 5), phases)
    assert len(blends) > 2 * (deal_cycle.cache_info().maxsize or 0)
    expected = samples_before(spec, spec.num_steps)
    dealt_before = deal_cycle.cache_info().misses
    assert (samples_before(spec, spec.num_steps) == expected).all()
    assert deal_cycle.cache_info().misses == dealt_before


def test_counts_belong_to_the_caller() -> None:
    spec = order(1)
    samples_in_phase(spec, 0)[:] = 99
    assert samples_in_phase(spec, 0).tolist() == [3, 1]
