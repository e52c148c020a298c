"""What of retention a launch holds beside the state, from step to step."""

from __future__ import annotations

from dataclasses import dataclass

from rewarm.batches.loader import Batches
from rewarm.retention.distill import Distillation

__all__ = ["Retention"]


@dataclass(frozen=True, slots=True, eq=False)
class Retention:
    """A teacher and its objective, and A-GEM's memory; by default nothing.

    What belongs to a state (the weights that are pulled to, the average) is in the state.
    """

    distillation: Distillation | None = None
    memory: Batches | None = None
