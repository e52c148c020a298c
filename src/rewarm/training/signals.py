"""Signals ask; the loop answers between steps.

SIGTERM and SIGINT: finish the step, checkpoint, leave. A second SIGINT: leave at once. SIGUSR1:
checkpoint and go on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

__all__ = ["SignalRequests", "listen_to_signals"]


class SignalRequests:
    """What has been asked for so far."""

    def __init__(self) -> None:
        self._stop_signal: signal.Signals | None = None
        self._save = False
        self._interrupted = False

    @property
    def stop_signal(self) -> str | None:
        """Name of the signal that asked for the end, e.g. "SIGTERM"; None while none did."""
        return self._stop_signal.name if self._stop_signal is not None else None

    def take_save_request(self) -> bool:
        """Tell whether a checkpoint was asked for since the last call."""
        requested, self._save = self._save, False
        return requested

    def request_stop(self, number: int, frame: FrameType | None = None) -> None:
        """Note SIGTERM or SIGINT. A second SIGINT raises KeyboardInterrupt where it strikes."""
        if number == signal.SIGINT:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True
        if self._stop_signal is None:
            self._stop_signal = signal.Signals(number)
            _say_at_once(
                f"{self._stop_signal.name}: finishing the step, then a checkpoint"
                + (" (Ctrl-C again: leave at once)" if number == signal.SIGINT else "")
            )

    def request_save(self, number: int, frame: FrameType | None = None) -> None:
        """Note SIGUSR1."""
        self._save = True


@contextlib.contextmanager
def listen_to_signals() -> Iterator[SignalRequests]:
    """Take the signals for the length of a block, then give them back to who had them.

    Python delivers signals to the main thread alone: in another one nothing is ever requested.
    """
    requests = SignalRequests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {
        signal.SIGTERM: requests.request_stop,
        signal.SIGINT: requests.request_stop,
        signal.SIGUSR1: requests.request_save,
    }
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield requests
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _say_at_once(message: str) -> None:
    """Write a line to standard error from within a signal handler, past every buffer and lock."""
    with contextlib.suppress(OSError):
        os.write(2, f"rewarm: {message}\n".encode())
