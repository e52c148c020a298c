"""Where everything of a comparison lies; this file alone knows its layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rewarm.records.run_folder import RunFolder

__all__ = ["ComparisonFolder"]


@dataclass(frozen=True, slots=True)
class ComparisonFolder:
    """Paths of one comparison."""

    path: Path

    @property
    def registration(self) -> Path:
        """What was claimed before the first run, a `Registration`."""
        return self.path / "experiment.json"

    @property
    def result(self) -> Path:
        """What the comparison came to, a `ComparisonResult`."""
        return self.path / "result.json"

    @property
    def page(self) -> Path:
        """The self-contained HTML page."""
        return self.path / "report.html"

    @property
    def lock(self) -> Path:
        """Who carries it out now."""
        return self.path / "lock.json"

    def run(self, arm: str, seed: int) -> RunFolder:
        """Return the folder of an arm's run with a seed."""
        return RunFolder(self.path / "runs" / arm / f"seed-{seed}")

    def runs(self) -> Iterator[RunFolder]:
        """Yield the folders of all runs that are there, of arms and seeds that are no more too."""
        for path in sorted(self.path.glob("runs/*/seed-*")):
            yield RunFolder(path)
