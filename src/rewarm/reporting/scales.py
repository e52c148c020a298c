"""Where a value stands between the ends of an axis, and which values deserve a tick.

kind     transform     for
linear   v             differences, shares
log      log10 v       positive values over decades
steps    log(1 + v)    updates: 0 is shown, 1, 2, 4, 8 stand apart, and 10^5 still fits
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["Kind", "Scale"]

Kind = Literal["linear", "log", "steps"]


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high`; for `log`, low is positive.

    `whole` is for counts: a linear axis then has ticks at whole numbers alone.
    """

    kind: Kind
    low: float
    high: float
    whole: bool = False

    @classmethod
    def covering(
        cls,
        kind: Kind,
        values: Iterable[float],
        *,
        margin: float = 0.06,
        floor: float | None = None,
        whole: bool = False,
    ) -> Scale:
        """Return the scale that shows all finite values with a margin of the range at both ends.

        `floor` is an end of the axis by nature (0 for a rate): there is no margin below it. A
        `steps` axis begins at 0 and ends at the last step without margins. Values that a `log`
        axis cannot show are left out.
        """
        shown = [value for value in values if math.isfinite(value) and (kind != "log" or value > 0)]
        if kind == "steps":
            return cls(kind, 0.0, max([1.0, *shown]))
        if not shown:
            return cls(kind, 1.0, 10.0) if kind == "log" else cls(kind, 0.0, 1.0, whole)
        if kind == "log":
            pad = max(margin * math.log10(max(shown) / min(shown)), 0.05)
            return cls(kind, min(shown) / 10**pad, max(shown) * 10**pad)
        low, high = min(shown), max(shown)
        pad = margin * (high - low) if high > low else 0.1 * abs(high) or 1.0
        return cls(kind, low - pad if floor is None else min(floor, low), high + pad, whole)

    def fraction(self, value: float) -> float:
        """Return where a value stands: 0 at `low`, 1 at `high`."""
        low = self._forward(self.low)
        return (self._forward(value) - low) / (self._forward(self.high) - low)

    def ticks(self, least_gap: float) -> list[float]:
        """Return round values in [low, high], ascending, at least `least_gap` of the axis apart."""
        if self.kind == "linear":
            return self._linear_ticks(least_gap)
        chosen: list[float] = []
        for value in self._candidates():
            place = self.fraction(value)
            if all(abs(place - self.fraction(other)) >= least_gap for other in chosen):
                chosen.append(value)
        return sorted(chosen)

    def _forward(self, value: float) -> float:
        if self.kind == "linear":
            return value
        return math.log1p(value) if self.kind == "steps" else math.log10(value)

    def _linear_ticks(self, least_gap: float) -> list[float]:
        least = least_gap * (self.high - self.low)
        least = max(least, 1.0) if self.whole else least
        exponent = math.floor(math.log10(least))
        gap = next(m * 10.0**exponent for m in (1, 2, 5, 10) if m * 10.0**exponent >= least * 0.999)
        first = math.ceil(self.low / gap - 1e-9)
        last = math.floor(self.high / gap + 1e-9)
        return [round(k * gap, 12) for k in range(first, last + 1)]

    def _candidates(self) -> Iterator[float]:
        """Yield round values in the order in which they deserve a tick: 0, decades, 5s, 2s.

        A logarithmic axis shorter than that may hold none of these, so evenly spaced ones follow.
        """
        if self.kind == "steps":
            yield 0.0
        lowest = 0 if self.kind == "steps" else math.floor(math.log10(self.low))
        highest = math.ceil(math.log10(self.high))
        for mantissa in (1, 5, 2):
            for exponent in range(lowest, highest + 1):
                value = mantissa * 10.0**exponent
                if self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9):
                    yield value
        if self.kind == "log" and self.high < 5 * self.low:
            yield from self._linear_ticks(0.3)
