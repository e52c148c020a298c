"""Tells each run of a comparison which one it is part of, so that its own report can say so."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rewarm.artifacts import write_json
from rewarm.records.comparison import ComparisonResult, Membership, Registration
from rewarm.records.curves import DomainCurve
from rewarm.stages.compared_runs import PlannedRun

__all__ = ["note_memberships"]


def note_memberships(
    runs: Sequence[PlannedRun],
    registration: Registration,
    page: Path,
    result: ComparisonResult | None = None,
) -> None:
    """Write each run's part in the comparison into its folder, with what came of it where known."""
    for run in runs:
        folder = run.job.run.path
        if not folder.exists():
            continue
        told = Membership(
            name=registration.claims["name"],
            hypothesis=registration.claims["hypothesis"],
            arm=run.arm.name,
            description=run.arm.description,
            kind=run.arm.kind,
            seed=run.seed,
            control=registration.claims["control"],
            page=Path(os.path.relpath(page, folder)).as_posix(),
        )
        if result is not None:
            told = told.model_copy(update=_outcome(run, result))
        write_json(run.job.run.membership, told.model_dump(mode="json"))


def _outcome(run: PlannedRun, result: ComparisonResult) -> dict[str, object]:
    name = run.arm.name
    effects = tuple(e for e in result.primary if name in (e.arm, e.against))
    return {
        "verdict": result.verdict,
        "effects": effects,
        "control_curves": _curves_of_control(run, result),
    }


def _curves_of_control(run: PlannedRun, result: ComparisonResult) -> tuple[DomainCurve, ...]:
    """Return the curves of the control's run with this seed, where this run is not that one."""
    if run.arm.kind == "control":
        return ()
    return next(
        (c.curves for c in result.curves if (c.arm, c.seed) == (result.control, run.seed)), ()
    )
