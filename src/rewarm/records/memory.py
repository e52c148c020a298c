"""How much memory a launch took of the device that trains."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from rewarm.records.facts import Record

__all__ = ["LaunchMemory", "greatest"]

_MARKS = ("told_apart", "profiled")


class LaunchMemory(Record):
    """Peaks of one launch; of many ranks the greatest of each.

    On a GPU what torch has allocated, on a CPU the process's own pages.
    """

    process_bytes: int = Field(description="taken before there was a model; 0 on a GPU")
    peak_bytes: int = Field(description="in steps, on a GPU of tensors alone")
    held_bytes: int = Field(description="in steps, with what a GPU's allocator keeps at hand")
    other_bytes: int = Field(
        description="around steps, as `held_bytes`: loading, evaluations, saves"
    )
    told_apart: bool = Field(
        description="False: the system has one peak for all of it, as on macOS"
    )
    profiled: bool = Field(
        False, description="a profiler watched some steps, and kept its events beside them"
    )

    @property
    def steps_bytes(self) -> int:
        """What steps took at most, model and optimizer with them, beside the process's own."""
        return max(0, self.peak_bytes - self.process_bytes)


def greatest(of_ranks: Sequence[LaunchMemory]) -> LaunchMemory:
    """Return the greatest of each figure, over the ranks of one launch."""
    sizes = [name for name in LaunchMemory.model_fields if name not in _MARKS]
    return LaunchMemory(
        **{name: max(getattr(memory, name) for memory in of_ranks) for name in sizes},
        told_apart=all(memory.told_apart for memory in of_ranks),
        profiled=any(memory.profiled for memory in of_ranks),
    )
