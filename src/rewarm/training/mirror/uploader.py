"""Copies the newest verified checkpoint to the mirror while training goes on.

One at a time, always the newest: where saves are faster than the mirror, those between are left
out. Nothing here stops or delays a step. What fails is told once, tried again, and told again at
the launch's end. The thread is one that no end of the process waits for: a mirror that never
answers holds nobody up.
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

from rewarm.errors import EnvironmentFault, RewarmError, UserError
from rewarm.planning.amendments import read_amendments
from rewarm.records.run_folder import RunFolder
from rewarm.training.checkpoint import CheckpointStore, newest_first, step_of
from rewarm.training.mirror.contents import Mirror
from rewarm.training.mirror.layout import AlteredError
from rewarm.training.mirror.remote import RemoteError
from rewarm.training.sinks import Journal

__all__ = ["Uploader"]

RETRY_FIRST_S = 1.0
RETRY_MOST_S = 120.0
_LAST_RETRY_S = 1.0
_LAST_ATTEMPTS = 3
_SILENT_S = 1.0
_JOIN_S = 2.0


class _EndedError(Exception):
    """The launch has ended; what is under way is left."""


class Uploader:
    """Uploads what is submitted; the main rank's alone."""

    def __init__(
        self, mirror: Mirror, run: RunFolder, store: CheckpointStore, journal: Journal, *, keep: int
    ) -> None:
        """`keep` is how many checkpoints stay on the mirror at least."""
        self._mirror = mirror
        self._run = run
        self._store = store
        self._journal = journal
        self._keep = keep
        self._changed = threading.Condition()
        self._wanted: Path | None = None
        self._failure: str | None = None
        self._num_failures = 0
        self._retry_at = 0.0
        self._closing = False
        self._ended = False
        self._cannot_prune = False
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)

    def submit(self, path: Path) -> None:
        """Have a verified checkpoint uploaded, in place of any older one that waits."""
        with self._changed:
            self._wanted = path
            self._changed.notify_all()
            if not self._thread.is_alive() and not self._ended:
                self._thread.start()

    def finish(self, wait_s: float) -> None:
        """Wait for what is not uploaded yet, for so many seconds at most, and end.

        Fewer where the mirror has failed a few more times by then. What is missing is told.
        """
        with self._changed:
            self._closing = True
            self._num_failures = 0
            self._retry_at = min(self._retry_at, time.monotonic() + _LAST_RETRY_S)
            self._changed.notify_all()
        if not self._settled(min(_SILENT_S, wait_s)) and (path := self._wanted) is not None:
            what = f"waiting until {path.name} is mirrored, {wait_s:g} s at most"
            self._tell("mirror", path, what)
            self._settled(wait_s)
        missing, failure = self._wanted, self._failure
        self.end()
        if missing is not None:
            why = failure or f"it took longer than {wait_s:g} s"
            self._journal.event(
                "warning",
                step_of(missing),
                f"{self._mirror} does not hold {missing.name} yet ({why}); the same command "
                "uploads it",
            )

    def end(self) -> None:
        """Leave what is under way."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def _settled(self, within_s: float) -> bool:
        """Wait until all is uploaded, or is not going to be; tell whether that came in time."""

        def is_settled() -> bool:
            return self._wanted is None or self._num_failures >= _LAST_ATTEMPTS

        with self._changed:
            return self._changed.wait_for(is_settled, within_s)

    def _work(self) -> None:
        while (path := self._next()) is not None:
            started = time.monotonic()
            try:
                uploaded = self._mirror.upload(path, self._run, self._tick)
            except _EndedError:
                return
            except FileNotFoundError:
                self._drop(path)  # made room, or the run went back: a newer one follows
            except AlteredError as error:
                self._drop(path)
                self._tell("warning", path, f"{path.name} is damaged and not mirrored: {error}")
            except Exception as error:
                self._failed(path, _reason(error))
            else:
                if uploaded:
                    self._prune(path)
                self._succeeded(path, seconds=time.monotonic() - started if uploaded else None)
            finally:
                self._store.release(path)

    def _next(self) -> Path | None:
        """Wait for something to do; None at the end."""
        with self._changed:
            while not self._ended:
                wait_s = None if self._wanted is None else self._retry_at - time.monotonic()
                if self._wanted is not None and wait_s is not None and wait_s <= 0:
                    self._store.hold(self._wanted)
                    return self._wanted
                if self._wanted is None and self._closing:
                    return None
                self._changed.wait(wait_s)
        return None

    def _tick(self) -> None:
        if self._ended:
            raise _EndedError

    def _drop(self, path: Path) -> None:
        """Want a checkpoint no more, unless there is a newer one by now."""
        with self._changed:
            if self._wanted == path:
                self._wanted = None
            self._changed.notify_all()

    def _succeeded(self, path: Path, *, seconds: float | None) -> None:
        had_failed = self._failure is not None
        self._failure = None
        self._num_failures = 0
        if seconds is not None:
            self._tell("mirrored", path, f"mirrored {path.name}", seconds=round(seconds, 3))
        if had_failed:
            self._tell("mirror", path, f"{self._mirror} takes checkpoints again")
        self._drop(path)

    def _failed(self, path: Path, why: str) -> None:
        with self._changed:
            is_first = self._failure is None
            self._failure = why
            self._num_failures += 1
            delay_s = min(RETRY_FIRST_S * 2.0 ** (self._num_failures - 1), RETRY_MOST_S)
            self._retry_at = time.monotonic() + (_LAST_RETRY_S if self._closing else delay_s)
            self._changed.notify_all()
        if is_first:
            self._tell(
                "warning",
                path,
                f"{path.name} cannot be mirrored to {self._mirror} ({why}); training goes on, and "
                "it is tried again",
            )

    def _prune(self, path: Path) -> None:
        """Delete what the mirror need not hold; that this is refused is told once."""
        kept_here = {step_of(path), *map(step_of, newest_first(self._run.checkpoints))}
        try:
            amendments = read_amendments(self._run.amendments, self._mirror.plan)
            self._mirror.prune(amendments, keep=self._keep, kept_here=kept_here)
        except (RemoteError, RewarmError) as error:
            if not self._cannot_prune:
                self._cannot_prune = True
                self._tell("warning", path, f"older ones stay on {self._mirror} ({error})")

    def _tell(self, kind: str, path: Path, message: str, **details: object) -> None:
        """Put something on record, unless the launch is over: its folder may be another's then."""
        if self._ended:
            return
        with contextlib.suppress(EnvironmentFault):  # a full disk is told by who has to write there
            self._journal.event(kind, step_of(path), message, **details)


def _reason(error: Exception) -> str:
    """Return why something failed, on one line."""
    if isinstance(error, UserError):
        return "; ".join(problem.what for problem in error.problems)
    return error.what if isinstance(error, EnvironmentFault) else str(error)
