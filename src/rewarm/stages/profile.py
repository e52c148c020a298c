"""`rewarm train --profile`: a launch some of whose steps are watched, and the page of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from rewarm.distributed.world import launched_world
from rewarm.reporting.profile_page import write_profile_page
from rewarm.stages.job import open_run
from rewarm.stages.train import run_train
from rewarm.training.profiling import WARM_UP_STEPS

__all__ = ["run_profiled_train"]


def run_profiled_train(
    path: Path, overrides: Iterable[str], *, until_step: int | None, sinks: tuple[str, ...]
) -> int:
    """Train as `run_train` does, write the page of the steps that were watched; same exit codes."""
    overrides = list(overrides)
    code = run_train(path, overrides, until_step=until_step, sinks=sinks, watches=True)
    _, run = open_run(path, () if path.is_dir() else overrides)
    if not launched_world().is_main:
        return code
    if run.profile.exists():
        sys.stdout.write(f"profile: {write_profile_page(run)}\n")
    else:
        sys.stdout.write(
            f"nothing was profiled: that begins after {WARM_UP_STEPS} steps of a launch\n"
        )
    return code
