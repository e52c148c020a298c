"""The shuffle looks like chance: orders, neighbours and epochs, each against a map that fails."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from rewarm.order.shuffle import derive_key, permute

Integers = NDArray[np.int64]


def chi_square(counts: Integers) -> float:
    expected = counts.mean()
    return float(((counts - expected) ** 2).sum() / expected)


def some_keys(seed: int, num_keys: int) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, 2**64, (num_keys, 1), dtype=np.uint64)


def orders_over_keys(length: int, num_keys: int) -> Integers:
    """Return how often each of the n! orders came."""
    places = np.broadcast_to(np.arange(length), (num_keys, length))
    found = Counter(map(tuple, permute(places, length, some_keys(length, num_keys)).tolist()))
    return np.array([found[order] for order in itertools.permutations(range(length))])


def same_parity(moved: Integers) -> float:
    """Return how far the neighbours of equal parity are from a half, in standard errors."""
    same = float(np.mean(np.diff(moved) % 2 == 0))
    return abs(same - 0.5) * 2 * math.sqrt(len(moved) - 1)


# Upper 1e-6 points of chi-square with n! − 1 degrees of freedom; the keys are fixed, so no luck.
@pytest.mark.parametrize(("length", "limit"), [(2, 24.0), (3, 35.9), (4, 71.0)])
def test_every_order_of_a_few_items_comes_equally_often(length: int, limit: float) -> None:
    num_orders = math.factorial(length)
    counts = orders_over_keys(length, 100 * num_orders)
    assert len(counts) == num_orders
    assert chi_square(counts) < limit


def test_the_orders_of_five_items_are_as_uneven_as_is_told() -> None:
    """A tenth, root mean square, is what any network of 16 points has; no order is missing."""
    num_keys = 60_000
    counts = orders_over_keys(5, num_keys)
    assert counts.min() > 0.6 * num_keys / 120
    excess = (chi_square(counts) - 119) / num_keys
    assert 0.07 < math.sqrt(excess) < 0.13


@pytest.mark.parametrize("length", [17, 40, 65])
def test_two_items_take_every_pair_of_places_equally_often(length: int) -> None:
    """Chi-square over n(n − 1) pairs, within five standard deviations of its mean."""
    num_pairs = length * (length - 1)
    num_keys = 100_000
    items = np.broadcast_to(np.array([0, 1]), (num_keys, 2))
    first, second = permute(items, length, some_keys(length, num_keys)).T
    counts = np.bincount(first * length + second, minlength=length**2).reshape(length, length)
    assert not counts.diagonal().any()
    apart = counts[~np.eye(length, dtype=bool)]
    assert chi_square(apart) < num_pairs - 1 + 5 * math.sqrt(2 * (num_pairs - 1))


@pytest.mark.parametrize("length", [10_007, 65_536])
def test_neighbours_forget_their_parity_where_an_affine_map_keeps_it(length: int) -> None:
    index = np.arange(length)
    affine = (index * 4_099 + 17) % length
    assert len(np.unique(affine)) == length
    assert same_parity(affine) > 15
    assert same_parity(permute(index, length, derive_key("parity", length))) < 4


def test_two_epochs_share_no_more_places_or_successors_than_chance() -> None:
    """Expected: one fixed point and about one common pair of neighbours, Poisson distributed."""
    length = 20_000
    index = np.arange(length)
    first, second = (permute(index, length, derive_key(1, "epoch", "web", e)) for e in (0, 1))
    assert int((first == second).sum()) < 8
    pairs = set(zip(first[:-1].tolist(), first[1:].tolist(), strict=True))
    assert len(pairs & set(zip(second[:-1].tolist(), second[1:].tolist(), strict=True))) < 8


def test_places_and_windows_are_uncorrelated() -> None:
    """|r|·√n of ranks stays below 4 within one key and between keys that differ by one bit."""
    length = 50_000
    index = np.arange(length)
    moved = permute(index, length, 1 << 20)
    neighbour_key = permute(index, length, (1 << 20) + 1)
    for a, b in ((index, moved), (moved, neighbour_key), (moved[:-1], moved[1:])):
        assert abs(float(np.corrcoef(a, b)[0, 1])) * math.sqrt(length) < 4
