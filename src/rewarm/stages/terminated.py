"""SIGTERM ends a command as a key press does: what it has started is ended in good order."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

__all__ = ["STOPPED", "TerminatedError", "sigterm_raises", "tell_stopped"]

STOPPED = 130
"""Exit code where a signal ended the command, a key press among them: by the shell's custom."""


class TerminatedError(KeyboardInterrupt):
    """SIGTERM was heard. No Exception, as a key press is none: nobody takes it for a fault."""


def tell_stopped(command: str, say: Callable[[str], None]) -> int:
    """Say that SIGTERM ended a command, and how it goes on; return its exit code."""
    say(f"stopped by SIGTERM; the same command goes on where it was: {command}")
    return STOPPED


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Raise TerminatedError where SIGTERM strikes within a block, once: what follows is the ending,
    which a second one does not cut short.

    Python delivers signals to the main thread alone: in another one nothing is heard.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        raise TerminatedError

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
