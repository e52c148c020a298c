"""What a run in the middle of a stream knows: named tensors, and facts that JSON can hold.

Random state is none of it: what is drawn hangs on the seed and the number of the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor

__all__ = ["STATELESS", "Resumable", "State", "part", "under"]


class State(NamedTuple):
    """Tensors by name, and facts."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


class Resumable(Protocol):
    """Something that goes on from where another one of its kind stood."""

    def state(self) -> State:
        """Return all that it knows; tensors may be its own, not copies."""

    def restore(self, state: State) -> None:
        """Know what another one knew; KeyError or ValueError for what is no such state."""


class _Stateless:
    """Knows nothing but what it was built with."""

    def state(self) -> State:
        return State({}, {})

    def restore(self, state: State) -> None:
        pass


STATELESS = _Stateless()
"""Stands for what has no state."""


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with a prefix before their names."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def part(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names have the prefix, without it."""
    head = f"{prefix}."
    return {n.removeprefix(head): tensor for n, tensor in tensors.items() if n.startswith(head)}
