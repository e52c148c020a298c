"""What a process takes of the device that trains: the peak of its memory, and power."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from pathlib import Path

import torch

from rewarm.planning.machine import available_bytes

__all__ = ["MemoryMeter", "PowerMeter", "process_age_s"]

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_STAT = Path("/proc/self/stat")
_RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")


class MemoryMeter:
    """The peak of what this process takes: on a CPU its own pages, on a GPU what torch allocated.

    Pages of files (libraries, a base that is mapped) can be dropped and are not counted, where the
    kernel tells them apart (Linux).
    """

    def __init__(self, device: str) -> None:
        self._on_gpu = device == "cuda"
        self.process_bytes = self._now()

    def limit_bytes(self) -> int:
        """Return what this process may take in all."""
        if self._on_gpu:
            return int(torch.cuda.get_device_properties(0).total_memory)
        available = available_bytes()
        return sys.maxsize if available is None else available + self.process_bytes

    def take_peak(self) -> int:
        """Return the peak since it was last taken, and count anew from what is there now."""
        peak = self._peak()
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats()
        else:
            with contextlib.suppress(OSError):
                _RESET.write_text("5", encoding="ascii")
        return peak

    def _peak(self) -> int:
        if self._on_gpu:
            return torch.cuda.max_memory_reserved()
        found = _status()
        if found is None:
            unit = 1 if sys.platform == "darwin" else 1024
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return found["VmHWM"] - found["RssFile"] - found["RssShmem"]

    def _now(self) -> int:
        if self._on_gpu:
            return 0
        found = _status()
        return 0 if found is None else found["RssAnon"]


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


def _status() -> dict[str, int] | None:
    """Return what the kernel says of this process's memory, in bytes; None where it does not."""
    with contextlib.suppress(OSError):
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        words = (line.split() for line in lines if line.endswith("kB"))
        return {word[0].rstrip(":"): int(word[1]) * 1024 for word in words}
    return None
