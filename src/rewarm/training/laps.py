"""How long the parts of a launch take before its first step."""

from __future__ import annotations

import time

__all__ = ["Laps"]


class Laps:
    """Seconds by part, in the order in which they came; each part ends where the next begins."""

    def __init__(self, before: dict[str, float] | None = None) -> None:
        """`before` is what was taken before anything could count."""
        self._before = dict(before or {})
        self._parts: dict[str, float] = {}
        self._began = self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Note that a part has ended; one that comes again is added to."""
        now = time.perf_counter()
        self._parts[name] = self._parts.get(name, 0.0) + now - self._last
        self._last = now

    def rounded(self) -> list[tuple[str, float]]:
        """Return all parts so far with their seconds, for a record: mappings lose their order."""
        whole = {**self._before, **self._parts}
        return [(name, round(seconds, 4)) for name, seconds in whole.items()]

    @property
    def elapsed_s(self) -> float:
        """Seconds since the launch was asked for."""
        return sum(self._before.values()) + time.perf_counter() - self._began
