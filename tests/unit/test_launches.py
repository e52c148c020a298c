"""How many threads runs beside each other take, and how a signal ends what started them."""

from __future__ import annotations

import os
import signal

import pytest

from rewarm.stages import launches
from rewarm.stages.launches import threads_of_each
from rewarm.stages.terminated import TerminatedError, sigterm_raises


@pytest.mark.parametrize(
    ("given", "num_workers", "wanted"),
    [
        (None, 1, 8),
        (None, 3, 2),
        (None, 20, 1),
        ("1", 1, 1),
        ("4,2", 1, 4),
        ("4", 4, 2),  # cores are not promised twice
        ("", 1, 8),
        ("0", 1, 8),
        ("many", 1, 8),
    ],
)
def test_threads_are_the_cores_dealt_out_and_no_more_than_allowed(
    given: str | None, num_workers: int, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launches, "num_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert threads_of_each(num_workers) == wanted


def test_sigterm_is_raised_once_and_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    ended = []

    def end() -> None:
        with sigterm_raises():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                ended.append(True)

    with pytest.raises(TerminatedError):
        end()
    assert ended
    assert signal.getsignal(signal.SIGTERM) == before
