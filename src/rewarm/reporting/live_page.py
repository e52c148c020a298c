"""A page as it grows: rendered anew where the records that it shows changed, and only then."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from rewarm.artifacts import fingerprint
from rewarm.errors import UserError
from rewarm.records.reading import size_and_time
from rewarm.records.run_folder import RunFolder
from rewarm.reporting.report import render_run_report, render_waiting

__all__ = ["LivePage", "LiveRun", "RunSite", "Site", "Subject"]

_LEAST_INTERVAL_S = 1.0
_MOST_SHARE = 0.05
"""Of one core's time that goes into rendering, however long the logs are."""


class Subject(Protocol):
    """What a live page shows."""

    def stamp(self) -> str:
        """Return what tells one state of the records from another."""

    def render(self) -> str:
        """Return the page as the records are now."""


class LiveRun:
    """The report of one run; `up` is the page of the experiment that it is shown in."""

    def __init__(self, run: RunFolder, up: str = "") -> None:
        self._run = run
        self._up = up

    def stamp(self) -> str:
        """Return what tells one state of the run's records from another."""
        run = self._run
        others = (run.merge_sweep, run.membership, run.against, run.weight_change)
        return fingerprint([size_and_time(path) for path in (*run.facts, *others)])[:16]

    def render(self) -> str:
        """Return the run's report, or why there is none."""
        name = self._run.path.name
        if not self._run.plan.exists():
            return render_waiting(name, "The run has no plan yet.")
        try:
            return render_run_report(self._run, live=True, up=self._up)
        except UserError as error:
            told = "; ".join(f"{problem.where}: {problem.what}" for problem in error.problems)
            return render_waiting(name, f"The run cannot be shown: {told}.")


class LivePage:
    """A page that is kept up to date; any number of threads may ask for it."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._lock = threading.Lock()
        self._version = ""
        self._page = b""
        self._next_look = 0.0

    def current(self) -> tuple[str, bytes]:
        """Return the page's version and the page, UTF-8.

        It is at most as old as the last look at the records, which is so seldom that rendering
        takes 5 % of a core's time at most.
        """
        with self._lock:
            if time.monotonic() >= self._next_look:
                self._look()
            return self._version, self._page

    def _look(self) -> None:
        started = time.monotonic()
        version = self._subject.stamp()
        if version != self._version:
            self._page = self._subject.render().encode()
            self._version = version
        spent = time.monotonic() - started
        self._next_look = started + max(_LEAST_INTERVAL_S, spent / _MOST_SHARE)


class Site(Protocol):
    """The pages that a server shows."""

    def page_at(self, path: str) -> LivePage | None:
        """Return the page of exactly this path; None where there is none."""


class RunSite:
    """One run's page."""

    def __init__(self, page: LivePage) -> None:
        self._page = page

    def page_at(self, path: str) -> LivePage | None:
        """Return the page of the path `/`."""
        return self._page if path == "/" else None
