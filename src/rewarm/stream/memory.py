"""Bounded memories: which examples of the stream are kept, by their number in the source.

A memory holds no random state: whoever offers an example hands in what draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["ClassBalanced", "Memory", "Reservoir", "draw"]

Indices = NDArray[np.int64]


class Memory(Protocol):
    """Keeps examples."""

    def offer(self, index: int, label: int, generator: np.random.Generator) -> None:
        """Show the next example of the stream; it is kept or not."""

    def kept(self) -> Indices:
        """Return the numbers of what is kept."""

    def state(self) -> dict[str, Any]:
        """Return all that it knows, as JSON can hold it."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Know what another one knew; ValueError for what is no such state."""


class Reservoir:
    """Keeps each of the n examples offered so far with the same probability, size/n.

    Vitter's algorithm R: the n-th takes the place of a kept one with probability size/n.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._num_offered = 0
        self._kept: list[int] = []

    def offer(self, index: int, label: int, generator: np.random.Generator) -> None:
        """Show the next example."""
        self._num_offered += 1
        if len(self._kept) < self._size:
            self._kept.append(index)
            return
        place = int(generator.integers(self._num_offered))
        if place < self._size:
            self._kept[place] = index

    def kept(self) -> Indices:
        """Return the numbers of what is kept."""
        return np.asarray(self._kept, dtype=np.int64)

    def state(self) -> dict[str, Any]:
        """Return what is kept, and of how many."""
        return {"kept": list(self._kept), "num_offered": self._num_offered}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Keep what another one kept."""
        self._kept = [int(index) for index in state["kept"]]
        self._num_offered = int(state["num_offered"])


class ClassBalanced:
    """Keeps as many of each class as there is room for (GDumb's greedy sampler).

    A full memory takes an example of a class that has fewer than the largest has, and gives up a
    random one of a largest class for it.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._by_class: dict[int, list[int]] = {}

    def offer(self, index: int, label: int, generator: np.random.Generator) -> None:
        """Show the next example."""
        own = self._by_class.get(label, [])
        counts = {known: len(items) for known, items in self._by_class.items()}
        if sum(counts.values()) >= self._size:
            most = max(counts.values())
            if len(own) >= most:
                return
            largest = [known for known, count in counts.items() if count == most]
            given_up = self._by_class[largest[int(generator.integers(len(largest)))]]
            given_up.pop(int(generator.integers(len(given_up))))
        self._by_class.setdefault(label, []).append(index)

    def kept(self) -> Indices:
        """Return the numbers of what is kept, class after class."""
        return np.asarray([i for items in self._by_class.values() for i in items], dtype=np.int64)

    def state(self) -> dict[str, Any]:
        """Return what is kept of each class, in the order in which classes came."""
        return {"classes": [[label, list(items)] for label, items in self._by_class.items()]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Keep what another one kept."""
        self._by_class = {
            int(label): [int(index) for index in items] for label, items in state["classes"]
        }


def draw(memory: Memory, count: int, generator: np.random.Generator) -> Indices:
    """Return up to `count` different kept examples, drawn at random."""
    kept = memory.kept()
    return generator.choice(kept, size=min(count, len(kept)), replace=False)
