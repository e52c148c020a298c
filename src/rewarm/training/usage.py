"""What a process takes of the device that trains: the peak of its memory, and power."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from rewarm.planning.machine import available_bytes
from rewarm.records.memory import LaunchMemory

__all__ = ["MemoryMeter", "Peak", "PowerMeter", "StepMemory", "process_age_s"]

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_FIELDS = frozenset({"VmHWM", "RssAnon", "RssFile", "RssShmem"})
_STAT = Path("/proc/self/stat")
_RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")


class Peak(NamedTuple):
    """The most that was taken in some time, in bytes; on a CPU both are one."""

    used_bytes: int = 0
    """On a GPU of tensors."""
    held_bytes: int = 0
    """On a GPU with what torch's allocator keeps for the next ones: what has to fit."""

    def or_more(self, other: Peak) -> Peak:
        """Return the greater of each."""
        return Peak(*map(max, self, other))


class MemoryMeter:
    """The peak of what this process takes: on a CPU its own pages, on a GPU what torch allocated.

    Pages of files (libraries, a base that is mapped) can be dropped and are not counted, where the
    kernel tells them apart (Linux).
    """

    def __init__(self, device: str) -> None:
        self._on_gpu = device == "cuda"
        if not self._on_gpu:
            _give_back_freed()
        self.process_bytes = self._now()
        self.counts_anew = self._on_gpu or _status() is not None
        """False where the system has one peak for the whole life of the process."""

    def limit_bytes(self) -> int:
        """Return what this process may take in all."""
        if self._on_gpu:
            return int(torch.cuda.get_device_properties(0).total_memory)
        available = available_bytes()
        return sys.maxsize if available is None else available + self.process_bytes

    def take_peak(self) -> Peak:
        """Return the peak since it was last taken, and count anew from what is there now.

        Waits for no device: on a GPU the figures are the allocator's own.
        """
        peak = self._peak()
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats()
        elif self.counts_anew:
            # What the allocator keeps of the time before would count as taken in the next.
            _give_back_freed()
            try:
                _RESET.write_text("5", encoding="ascii")
            except OSError:
                self.counts_anew = False
        return peak

    def _peak(self) -> Peak:
        if self._on_gpu:
            return Peak(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())
        found = _status()
        if found is None:
            unit = 1 if sys.platform == "darwin" else 1024
            whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        else:
            whole = found["VmHWM"] - found["RssFile"] - found["RssShmem"]
        return Peak(whole, whole)

    def _now(self) -> int:
        if self._on_gpu:
            return 0
        found = _status()
        return 0 if found is None else found["RssAnon"]


class StepMemory:
    """The peak of a launch's steps, apart from what goes on around them.

    The peak is read where steps begin and end, never in between: a step pays nothing for it.
    """

    def __init__(self, meter: MemoryMeter) -> None:
        """`meter` was made before there was a model: what is there then is no step's."""
        self._meter = meter
        self._in_steps = False
        self._steps = self._other = Peak()

    def begin_steps(self) -> None:
        """Note that steps are taken from now on."""
        self._turn_to(in_steps=True)

    def end_steps(self) -> None:
        """Note that what follows is no step's."""
        self._turn_to(in_steps=False)

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Keep what is done within out of the steps' peak; where there are steps, they go on."""
        was_in_steps = self._in_steps
        self.end_steps()
        try:
            yield
        finally:
            self._turn_to(in_steps=was_in_steps)

    def found(self, *, profiled: bool = False) -> LaunchMemory:
        """Return what this process's launch has taken until now; `profiled` says what is in it."""
        self._turn_to(in_steps=self._in_steps)
        return LaunchMemory(
            process_bytes=self._meter.process_bytes,
            peak_bytes=self._steps.used_bytes,
            held_bytes=self._steps.held_bytes,
            other_bytes=self._other.held_bytes,
            told_apart=self._meter.counts_anew,
            profiled=profiled,
        )

    def _turn_to(self, *, in_steps: bool) -> None:
        peak = self._meter.take_peak()
        if self._in_steps:
            self._steps = self._steps.or_more(peak)
        else:
            self._other = self._other.or_more(peak)
        self._in_steps = in_steps


class PowerMeter:
    """Mean power of the device while it is watched; None where nothing tells it."""

    def __init__(self, device: str) -> None:
        self._on_gpu = device == "cuda"
        self._began: tuple[float, float] | None = None
        self.mean_watts: float | None = None

    def begin(self) -> None:
        """Begin to watch."""
        with contextlib.suppress(OSError, ValueError):
            if not self._on_gpu:
                self._began = time.perf_counter(), float(_RAPL.read_text(encoding="ascii"))

    def end(self) -> None:
        """Note the mean since the beginning; of a GPU the driver's own over its last moments."""
        if self._on_gpu:
            with contextlib.suppress(Exception):  # pynvml may be missing, or the driver mute
                self.mean_watts = torch.cuda.power_draw() / 1000
        elif self._began is not None:
            with contextlib.suppress(OSError, ValueError):
                at, joules = self._began[0], float(_RAPL.read_text(encoding="ascii")) / 1e6
                spent = joules - self._began[1] / 1e6
                # The counter starts again from zero now and then.
                if spent > 0:
                    self.mean_watts = spent / (time.perf_counter() - at)


def process_age_s() -> float:
    """Return how long ago this process began; where the kernel does not say, its work's time."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # The name, in brackets, may hold anything.
        fields = _STAT.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        began = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began)
    return time.process_time()


def _give_back_freed() -> None:
    """Have the C library give freed memory back to the system, where it is one that keeps it."""
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has the call
        ctypes.CDLL(None).malloc_trim(0)


def _status() -> dict[str, int] | None:
    """Return what the kernel says of this process's memory, in bytes; None where it does not.

    Linux before 4.5 and gVisor have the file, and not each of the fields.
    """
    with contextlib.suppress(OSError):
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
        words = (line.split() for line in lines if line.endswith("kB"))
        found = {word[0].rstrip(":"): int(word[1]) * 1024 for word in words}
        return found if found.keys() >= _FIELDS else None
    return None
