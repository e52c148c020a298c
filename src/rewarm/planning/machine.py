"""What of the machine at hand may be known without torch: bf16 units, memory, a GPU."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["available_bytes", "cpu_multiplies_bf16", "total_bytes"]

_CPU, _MEMORY = Path("/proc/cpuinfo"), Path("/proc/meminfo")
_GROUP, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# Of cgroups' versions 2 and 1: limit, use, and what of the use are pages that could be dropped.
_GROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
_NO_LIMIT = 2**60
_UNITS = frozenset({"avx512_bf16", "amx_bf16"})


def cpu_multiplies_bf16() -> bool:
    """Tell whether the processor says that it multiplies bf16; False where it says nothing."""
    with contextlib.suppress(OSError):
        for line in _CPU.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("flags"):
                return bool(_UNITS & set(line.split()))
    return False


def total_bytes() -> int | None:
    """Return the memory that a process may ever have, by machine and container; None: not told.

    The same at each launch, whatever else runs: by it a run is laid.
    """
    found = [size for size in (_of_machine(), *(limit for limit, _ in _groups())) if size]
    return min(found, default=None)


def available_bytes() -> int | None:
    """Return the memory that a process may still take, by kernel and container; None: not told."""
    left = (limit - used for limit, used in _groups() if used is not None)
    found = [size for size in (_free_of_machine(), *left) if size is not None]
    return min(found, default=None)


def _of_machine() -> int | None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _free_of_machine() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in _MEMORY.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _groups() -> Iterator[tuple[int, int | None]]:
    """Yield the limits of memory that cgroups set, and what is used of each; None: not told.

    As the container sees its own group, of version 2 or 1 (there "no limit" is a number above all
    machines'), and the groups that this process is in and those above, where they are seen.
    """
    for group in _folders_of_groups():
        for limit_name, used_name, cached in _GROUP_FILES:
            with contextlib.suppress(OSError, ValueError):
                limit = int((group / limit_name).read_text(encoding="ascii"))  # "max": ValueError
                if limit < _NO_LIMIT:
                    yield limit, _used_of(group, used_name, cached)


def _folders_of_groups() -> Iterator[Path]:
    yield _GROUP
    yield _GROUP / "memory"
    with contextlib.suppress(OSError):
        for line in _OWN_GROUPS.read_text(encoding="utf-8", errors="replace").splitlines():
            number, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if number == "0" or "memory" in controllers.split(","):
                root = _GROUP if number == "0" else _GROUP / "memory"
                own = root / path.strip("/")
                yield from (group for group in (own, *own.parents) if root in group.parents)


def _used_of(group: Path, name: str, cached: str) -> int | None:
    """Return what is used of a group's memory; pages of files that could be dropped are free."""
    with contextlib.suppress(OSError, ValueError):
        used = int((group / name).read_text(encoding="ascii"))
        stat = (group / "memory.stat").read_text(encoding="ascii").split()
        of_files = dict(zip(stat[::2], stat[1::2], strict=False)).get(cached, "0")
        return used - int(of_files)
    return None
