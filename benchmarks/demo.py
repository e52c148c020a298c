"""Runs the demo from nothing, times it, and puts on record what it found."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import Figure, write_results

from rewarm.records.run_folder import RunFolder
from rewarm.reporting.arms import load_arm
from rewarm.stages.demo import ARMS

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "demo.svg"
VERSUS = "the base at step 0; one seed, 2.2M parameters, 82k tokens an arm"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "rewarm", "demo", "--folder", str(folder)], check=True
        )
        figures = [Figure("demo after set-up", time.perf_counter() - started, "s", "lower", 360)]
        (work,) = folder.glob("demo-*")
        for arm in ARMS:
            view = load_arm(arm.name, arm.description, RunFolder(work / "runs" / arm.name))
            for what, change in (("old", view.old), ("new", view.new), ("answers", view.answers)):
                assert change is not None
                difference = change.last - change.first
                figures.append(
                    Figure(
                        f"{arm.name}: change on {what}",
                        difference,
                        "bits per byte",
                        "lower",
                        versus=VERSUS,
                    )
                )
        PICTURE.write_bytes((folder / "figure.svg").read_bytes())
    write_results("demo", figures)


if __name__ == "__main__":
    main()
