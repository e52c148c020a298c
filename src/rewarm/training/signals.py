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

import torch

from rewarm.distributed.world import World
from rewarm.records.facts import StepRecord
from rewarm.training.state import TrainState

__all__ = ["AgreedRequests", "SignalRequests", "listen_to_signals"]

_STOPPING = (signal.SIGTERM, signal.SIGINT)


class SignalRequests:
    """What has been asked for so far."""

    def __init__(self, *, speaks: bool = True) -> None:
        """`speaks` tells people at once that a signal was heard."""
        self._speaks = speaks
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
            if not self._speaks:
                return
            _say_at_once(
                f"{self._stop_signal.name}: finishing the step, then a checkpoint"
                + (" (Ctrl-C again: leave at once)" if number == signal.SIGINT else "")
            )

    def request_save(self, number: int, frame: FrameType | None = None) -> None:
        """Note SIGUSR1."""
        self._save = True


class AgreedRequests:
    """The requests that any rank got, known to all of them after the same step. A hook.

    torchrun hands a signal to every process, but not between the same two steps of each; one that
    left earlier than the others would leave them waiting.
    """

    def __init__(
        self, requests: SignalRequests, world: World, save_failed: Callable[[], bool]
    ) -> None:
        """`save_failed` tells whether a save in the background has failed on this rank."""
        self._requests = requests
        self._world = world
        self._save_failed = save_failed
        self.stop_signal: str | None = None
        self.save_failed = False
        self._save = False

    def take_save_request(self) -> bool:
        """Tell whether a checkpoint was asked for since the last call."""
        requested, self._save = self._save, False
        return requested

    def before_train(self, state: TrainState, /) -> None:
        """Agree on what was asked for while the run was set up."""
        self._agree()

    def after_step(self, state: TrainState, record: StepRecord | None, /) -> None:
        """Agree on what was asked for during the step and what followed it."""
        self._agree()

    def on_stop(self, state: TrainState, /) -> None:
        """It is agreed already."""

    def _agree(self) -> None:
        names = [number.name for number in _STOPPING]
        mine = [self._requests.stop_signal == name for name in names]
        mine += [self._requests.take_save_request(), self._save_failed()]
        *stops, save, failed = self._world.sum(torch.tensor(mine, dtype=torch.int64)).tolist()
        if self.stop_signal is None:
            asked = (name for name, count in zip(names, stops, strict=True) if count)
            self.stop_signal = next(asked, None)
        self._save = self._save or bool(save)
        self.save_failed = self.save_failed or bool(failed)


@contextlib.contextmanager
def listen_to_signals(*, speaks: bool = True) -> Iterator[SignalRequests]:
    """Take the signals for the length of a block, then give them back to who had them.

    Python delivers signals to the main thread alone: in another one nothing is ever requested.
    """
    requests = SignalRequests(speaks=speaks)
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {
        **dict.fromkeys(_STOPPING, requests.request_stop),
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
