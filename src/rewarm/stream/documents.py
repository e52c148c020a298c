"""A bounded memory of documents: which of those that a run has shown are kept, by a rule.

Nothing of it is a run's state. What a task shows follows from the plan (seed, blend, windows), and
what a memory keeps of that from the seed and the task: so the memory of every task is known before
the first step, is written down beside the runs, and a run that goes on reads what it has read.

A memory is filled at the ends of tasks: in a task the run replays what the tasks before it left.
A document counts once, at the first of its tokens that was shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from rewarm.order.position import OrderSpec, locate_samples
from rewarm.stream.memory import Memory

__all__ = ["DocumentMemory", "KeptDocument", "shown_documents"]

_MEMORY = 4  # what a number is drawn for, beside those of a scenario
_SLOTS_AT_ONCE = 65_536


class KeptDocument(NamedTuple):
    """A training document by its corpus and its place among those of it."""

    corpus: str
    number: int


def shown_documents(
    order: OrderSpec, phase: int, source: str, documents_of: Callable[[int], Sequence[int]]
) -> list[int]:
    """Return the documents of a source that a phase shows, each once, as they first come.

    `documents_of` gives the documents that a window holds tokens of, in their order. Within a step
    slots count as they are dealt.
    """
    span, index = order.phases[phase], order.source_names.index(source)
    first, last = (step * order.sequences_per_step for step in (span.start_step, span.end_step))
    found: dict[int, None] = {}
    for start in range(first, last, _SLOTS_AT_ONCE):
        slots = locate_samples(order, np.arange(start, min(start + _SLOTS_AT_ONCE, last)))
        for window in slots.window[slots.source == index].tolist():
            found.update(dict.fromkeys(documents_of(window)))
    return list(found)


@dataclass(slots=True)
class DocumentMemory:
    """Offers what tasks show to a memory of numbers, and knows which document a number is."""

    memory: Memory
    seed: int
    _documents: list[KeptDocument] = field(default_factory=list)

    def offer(self, task: int, corpus: str, shown: Sequence[int]) -> None:
        """Offer the documents that a task has shown of its corpus, in their order."""
        generator = np.random.default_rng((self.seed, _MEMORY, task))
        for number in shown:
            self._documents.append(KeptDocument(corpus, number))
            self.memory.offer(len(self._documents) - 1, task, generator)

    def kept(self) -> list[KeptDocument]:
        """Return what is kept, in the order in which it was shown."""
        return [self._documents[number] for number in sorted(self.memory.kept().tolist())]
