"""Saves states as checkpoints, in the background where that is wanted.

A step waits for the copy of the state into the host's memory alone; writing, hashing and reading
back go on beside the following steps, over a process group of their own. One save at a time: the
next one waits for it. What failed in the background is raised by the next call, on all ranks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from rewarm.distributed.world import World
from rewarm.planning.plan import Science
from rewarm.training.checkpoint import CheckpointStore
from rewarm.training.lock import RunLock
from rewarm.training.sinks import Journal
from rewarm.training.state import Snapshot, TrainState, take_snapshot, write_snapshot

__all__ = ["CheckpointSaver"]


class CheckpointSaver:
    """Saves the states of one run; its thread ends with the block that it is entered for."""

    def __init__(
        self,
        science: Science,
        store: CheckpointStore,
        journal: Journal,
        lock: RunLock | None,
        *,
        training: World,
        saving: World,
        background: bool,
        saved: Callable[[Path], None] = lambda path: None,
    ) -> None:
        """`lock` is the main rank's; `saving` the ranks of `training` on a group of its own;
        `saved` is told of every checkpoint once it is verified."""
        self._science = science
        self._store = store
        self._journal = journal
        self._lock = lock
        self._training = training
        self._saving = saving
        self._background = background
        self._saved = saved
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After an error too: the other ranks are writing their parts, and nobody can finish it once
        # this one has left the group. If one is gone, it fails within the timeout.
        self._executor.shutdown(wait=True)

    def save(self, state: TrainState, /) -> None:
        """Save a state, or begin to; collective."""
        started = time.perf_counter()
        self.finish()
        self._training.ranks.on_main(self._vouch)
        snapshot = take_snapshot(state, self._science, copy=self._background)
        if self._background:
            blocked_s = time.perf_counter() - started
            self._pending = self._executor.submit(self._write, snapshot, started, blocked_s)
        else:
            self._write(snapshot, started, None)

    def finish(self) -> None:
        """Wait for the save that is under way; collective."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    @property
    def has_failed(self) -> bool:
        """Tell whether the save that was under way has failed on this rank."""
        pending = self._pending
        return pending is not None and pending.done() and pending.exception() is not None

    def _vouch(self) -> None:
        """See that this launch may still write, and that what a checkpoint vouches for is there."""
        assert self._lock is not None, "the main rank holds the lock"
        self._lock.check()
        self._journal.run.flush_records()

    def _write(self, snapshot: Snapshot, started: float, blocked_s: float | None) -> None:
        step = snapshot.saved.step
        path = self._store.save(step, lambda folder: write_snapshot(folder, snapshot, self._saving))
        seconds = time.perf_counter() - started
        self._journal.event(
            "checkpoint",
            step,
            f"saved {path.name}",
            seconds=round(seconds, 3),
            blocked_s=round(seconds if blocked_s is None else blocked_s, 3),
        )
        self._saved(path)
