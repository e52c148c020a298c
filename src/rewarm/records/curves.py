"""How a domain's figure moved from step to step, for pages of other runs than the one it is of."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rewarm.records.facts import Metric, Record, Role

__all__ = ["DomainCurve"]


class DomainCurve(Record):
    """A domain's figure against step 0 in one run, at each evaluation of the same items.

    For drawing: six decimals are kept. The evaluations themselves have the rest.
    """

    domain: str
    role: Role | Literal["task"]
    metric: Metric
    steps: tuple[int, ...] = Field(description="updates, ascending; the first is 0")
    changes: tuple[float, ...] = Field(
        description="the figure less that of step 0, in the metric's unit"
    )
    noise: tuple[float | None, ...] = Field(
        description="how far the 95 % interval of a change reaches to either side: of these items"
    )
