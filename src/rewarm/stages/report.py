"""`rewarm report`: the run folder to one HTML file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from rewarm.reporting.report import write_run_report
from rewarm.stages.job import open_run

__all__ = ["run_report"]


def run_report(path: Path, overrides: Iterable[str]) -> None:
    """Write the report and print its path."""
    _, run = open_run(path, overrides)
    sys.stdout.write(f"report: {write_run_report(run)}\n")
