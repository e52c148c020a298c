"""What of the machine at hand may be known without torch: bf16 units, free memory."""

from __future__ import annotations

import contextlib
from pathlib import Path

__all__ = ["available_bytes", "cpu_multiplies_bf16"]

_CPU, _MEMORY = Path("/proc/cpuinfo"), Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")
_UNITS = frozenset({"avx512_bf16", "amx_bf16"})


def cpu_multiplies_bf16() -> bool:
    """Tell whether the processor says that it multiplies bf16; False where it says nothing."""
    with contextlib.suppress(OSError):
        for line in _CPU.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("flags"):
                return bool(_UNITS & set(line.split()))
    return False


def available_bytes() -> int | None:
    """Return the memory that a process may still take, by kernel and container; None: not told."""
    found = [size for size in (_free_of_machine(), _free_of_group()) if size is not None]
    return min(found, default=None)


def _free_of_machine() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in _MEMORY.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _free_of_group() -> int | None:
    """Return what the container's limit leaves; pages of files that could be dropped are free."""
    with contextlib.suppress(OSError, ValueError):
        limit = (_GROUP / "memory.max").read_text(encoding="ascii").strip()
        if limit == "max":
            return None
        used = int((_GROUP / "memory.current").read_text(encoding="ascii"))
        stat = (_GROUP / "memory.stat").read_text(encoding="ascii").split()
        of_files = dict(zip(stat[::2], stat[1::2], strict=False)).get("inactive_file", "0")
        return int(limit) - used + int(of_files)
    return None
