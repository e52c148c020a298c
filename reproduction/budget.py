"""What experiments cost by estimate, and the table of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from rewarm.units import format_duration

__all__ = ["BYTES_PER_TOKEN", "NUM_CORES", "TOKENS_PER_CORE_SECOND", "Cost", "budget_table"]

NUM_CORES = 2
TOKENS_PER_CORE_SECOND = 9_000
"""Trained on, of the bases' size on one core; 9,200 were measured on two, side by side."""
_START_S = 3.0
"""What begins and ends a run of a language model, on one core."""
BYTES_PER_TOKEN = 3.0
_FORWARD = 1 / 3  # of a training step's time


@dataclass(frozen=True, slots=True)
class Cost:
    """What is done by an experiment, or before it, by estimate.

    `trained` is gone through forward and back, `evaluated` forward alone, both in tokens or in
    rows, of which a core trains on `per_core_second`.
    """

    name: str
    num_runs: int
    trained: float
    evaluated: float = 0.0
    per_core_second: float = TOKENS_PER_CORE_SECOND
    start_s: float = _START_S

    @property
    def core_seconds(self) -> float:
        """Seconds of one core; what is prepared, once for all seeds, is not counted."""
        work = self.trained + self.evaluated * _FORWARD
        return work / self.per_core_second + self.num_runs * self.start_s


def budget_table(costs: Sequence[Cost], *, of: str, cores_each: int, total_s: float) -> Table:
    """Return what each costs with so many cores to itself, and how long all of it takes.

    `of` names what is trained on.
    """
    table = Table(box=None, header_style="bold")
    table.add_column("experiment")
    cores = "one core" if cores_each == 1 else f"{cores_each} cores"
    for heading in ("runs", of, f"time on {cores}"):
        table.add_column(heading, justify="right")
    for cost in costs:
        took = format_duration(cost.core_seconds / cores_each)
        table.add_row(cost.name, f"{cost.num_runs}", f"{cost.trained / 1e6:.2f}M", took)
    table.add_row("all", "", "", f"{format_duration(total_s)} on {NUM_CORES} cores")
    return table
