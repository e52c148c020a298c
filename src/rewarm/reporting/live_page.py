"""A run's report as it grows: rendered anew where the run's folder changed, and only then."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from rewarm.artifacts import fingerprint
from rewarm.errors import UserError
from rewarm.records.run_folder import RunFolder
from rewarm.reporting.report import render_run_report, render_waiting

__all__ = ["LivePage"]

_LEAST_INTERVAL_S = 1.0
_MOST_SHARE = 0.05
"""Of one core's time that goes into rendering, however long the run's logs are."""


class LivePage:
    """The page of one run; any number of threads may ask for it."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._version = ""
        self._page = b""
        self._next_look = 0.0

    def current(self) -> tuple[str, bytes]:
        """Return the page's version and the page, UTF-8.

        It is at most as old as the last look at the folder, which is so seldom that rendering takes
        5 % of a core's time at most.
        """
        with self._lock:
            if time.monotonic() >= self._next_look:
                self._look()
            return self._version, self._page

    def _look(self) -> None:
        started = time.monotonic()
        version = self._stamp()
        if version != self._version:
            self._page = self._render().encode()
            self._version = version
        spent = time.monotonic() - started
        self._next_look = started + max(_LEAST_INTERVAL_S, spent / _MOST_SHARE)

    def _stamp(self) -> str:
        """Return what tells one state of the run's records from another."""
        paths = (*self._run.facts, self._run.merge_sweep)
        return fingerprint([_size_and_time(path) for path in paths])[:16]

    def _render(self) -> str:
        name = self._run.path.name
        if not self._run.plan.exists():
            return render_waiting(name, "The run has no plan yet.")
        try:
            return render_run_report(self._run, live=True)
        except UserError as error:
            told = "; ".join(f"{problem.where}: {problem.what}" for problem in error.problems)
            return render_waiting(name, f"The run cannot be shown: {told}.")


def _size_and_time(path: Path) -> list[int]:
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]
