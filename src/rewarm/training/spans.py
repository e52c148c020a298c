"""Parts of a step by name, in a trace and, where they are watched, on a clock."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch
from torch.profiler import record_function

__all__ = ["Spans"]


class Spans:
    """Names the parts of steps; costs some microseconds each, and changes no number.

    On a GPU a part is only timed right where the device is waited for, so that is done while it is
    watched, and at no other time.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.were_watched = False
        self._watches = False
        self._waits = False

    def watch(self, device: torch.device) -> None:
        """Begin to add up the seconds of each part from nothing."""
        self.seconds = {}
        self._watches = self.were_watched = True
        self._waits = device.type == "cuda"

    def rest(self) -> None:
        """Watch no more."""
        self._watches = False

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Return the context of a part."""
        started = self._now() if self._watches else 0.0
        with record_function(name):
            yield
        if self._watches:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - started

    def _now(self) -> float:
        if self._waits:
            torch.cuda.synchronize()
        return time.perf_counter()
