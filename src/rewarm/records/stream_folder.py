"""Where the runs of a stream lie; this file alone knows their layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rewarm.records.run_folder import RunFolder

__all__ = ["StreamFolder"]


@dataclass(frozen=True, slots=True)
class StreamFolder:
    """Paths of the runs of one stream, of corpora or of labelled examples."""

    path: Path

    def run(self, backbone: str, learner: str, seed: int) -> RunFolder:
        """Return the folder of a cell's run with a seed."""
        return RunFolder(self.path / "runs" / backbone / learner / f"seed-{seed}")

    def figures(self, backbone: str, learner: str, seed: int) -> Path:
        """Return where a run over labelled examples is written down once it is done: beside its
        folder."""
        return self.run(backbone, learner, seed).path.with_suffix(".json")

    def left(self) -> Iterator[Path]:
        """Yield what runs have left: their folders, and the figures of those that are done."""
        yield from self.path.glob("runs/*/*/seed-*")
