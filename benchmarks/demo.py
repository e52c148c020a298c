"""Puts on record what a finished demo found: `python benchmarks/demo.py demo-run`."""

from __future__ import annotations

import sys
from pathlib import Path

from record import Figure, write_results

from rewarm.records.run_folder import RunFolder
from rewarm.reporting.arms import load_arm
from rewarm.stages.demo import ARMS


def main() -> None:
    (work,) = Path(sys.argv[1]).glob("demo-*")
    figures = []
    for arm in ARMS:
        view = load_arm(arm.name, arm.description, RunFolder(work / "runs" / arm.name))
        for what, change in (("old", view.old), ("new", view.new), ("answers", view.answers)):
            assert change is not None
            figures.append(
                Figure(
                    f"{arm.name}: change on {what}",
                    change.last - change.first,
                    "bits per byte",
                    "lower",
                    versus="the base at step 0; one seed, 2.2M parameters, 82k tokens an arm",
                )
            )
    write_results("demo", figures)


if __name__ == "__main__":
    main()
