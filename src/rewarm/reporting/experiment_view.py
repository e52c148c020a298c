"""How far the runs of an experiment are, as its folder tells it; read anew where that changed."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rewarm.artifacts import fingerprint
from rewarm.errors import UserError
from rewarm.evaluation.curves import domain_curves
from rewarm.planning.plan import load_plan
from rewarm.records.comparison import ComparisonResult, Membership, Primary, Registration
from rewarm.records.comparison_folder import ComparisonFolder
from rewarm.records.curves import DomainCurve
from rewarm.records.reading import record_or_none, size_and_time
from rewarm.records.run_folder import RunFolder
from rewarm.training.lock import seems_held

__all__ = ["ExperimentReader", "ExperimentView", "RunProgress"]

Standing = Literal["waiting", "running", "stopped", "done", "failed"]
"""Stopped: it has begun, is not done, and nobody is at it."""


@dataclass(frozen=True, slots=True)
class RunProgress:
    """One arm with one seed, as far as it is."""

    arm: str
    seed: int
    run: RunFolder
    standing: Standing
    num_taken: int
    num_steps: int | None
    loss: float | None
    tokens_per_s: float | None
    tokens_per_step: int | None
    curves: tuple[DomainCurve, ...]
    why: str

    @property
    def name(self) -> str:
        """What the run is called."""
        return f"{self.arm}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class ExperimentView:
    """An experiment as its folder tells it; `result` is None while runs are younger than it."""

    registration: Registration
    runs: tuple[RunProgress, ...]
    descriptions: dict[str, str]
    result: ComparisonResult | None

    @property
    def arms(self) -> list[str]:
        """The arms, in the order in which they were written down."""
        return list(dict.fromkeys(run.arm for run in self.runs))

    def runs_of(self, arm: str) -> list[RunProgress]:
        """Return an arm's runs in order of the seeds."""
        return [run for run in self.runs if run.arm == arm]


class ExperimentReader:
    """Reads an experiment's folder; what did not change is not read again."""

    def __init__(self, folder: ComparisonFolder) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._known: dict[Path, tuple[str, RunProgress]] = {}

    def runs(self) -> list[tuple[str, int, RunFolder]]:
        """Return arm, seed and folder of every run that was written down; none before that."""
        known = _registered(self._folder)
        return [] if known is None else _runs(known, self._folder)

    def stamp(self) -> str:
        """Return what tells one state of the folder from another."""
        own = [size_and_time(path) for path in (self._folder.registration, self._folder.result)]
        runs = [[_stamp(run), seems_held(run.lock)] for _, _, run in self.runs()]
        return fingerprint([own, runs])[:16]

    def read(self) -> ExperimentView | None:
        """Return how the experiment stands; None where nothing is written down of it."""
        registration = _registered(self._folder)
        if registration is None:
            return None
        runs = tuple(self._progress(*each) for each in _runs(registration, self._folder))
        members = [record_or_none(run.run.membership, Membership) for run in runs]
        return ExperimentView(
            registration=registration,
            runs=runs,
            descriptions={m.arm: m.description for m in members if m is not None},
            result=self._result(runs),
        )

    def _result(self, runs: Sequence[RunProgress]) -> ComparisonResult | None:
        """Return what the comparison came to, unless a run has gone on since."""
        written = size_and_time(self._folder.result)
        logs = [size_and_time(run.run.steps_log) for run in runs]
        is_old = any(log and written and log[1] > written[1] for log in logs)
        going = any(run.standing == "running" for run in runs)
        return None if is_old or going else record_or_none(self._folder.result, ComparisonResult)

    def _progress(self, arm: str, seed: int, run: RunFolder) -> RunProgress:
        stamp = _stamp(run)
        with self._lock:
            known = self._known.get(run.path)
        if known is None or known[0] != stamp:
            known = (stamp, _progress(arm, seed, run))
            with self._lock:
                self._known[run.path] = known
        progress = known[1]
        # A lock says nothing of a run that has ended, and comes and goes without another record.
        if progress.standing != "done":
            if seems_held(run.lock):
                return replace(progress, standing="running", why="")
            if progress.standing == "running":
                return replace(progress, standing="stopped")
        return progress


def _registered(folder: ComparisonFolder) -> Registration | None:
    """Return what was written down; None where it is not there, or lacks what is shown of it."""
    known = record_or_none(folder.registration, Registration)
    if known is None:
        return None
    try:
        _runs(known, folder)
        for entry in known.claims["primary"]:
            Primary.model_validate(entry)
        is_text = all(isinstance(known.claims[key], str) for key in ("name", "hypothesis"))
    except (KeyError, TypeError, ValueError):
        return None
    return known if is_text else None


def _runs(registration: Registration, folder: ComparisonFolder) -> list[tuple[str, int, RunFolder]]:
    return [
        (arm, seed, folder.run(arm, seed))
        for arm in _arms(registration.claims)
        for seed in registration.claims["seeds"]
    ]


def _arms(claims: Mapping[str, Any]) -> list[str]:
    """Return the control, then the arms as the contrasts name them, then all others."""
    named = [name for arm, against, _ in claims["contrasts"] for name in (against, arm)]
    return list(dict.fromkeys([claims["control"], *named, *claims["arms"]]))


def _progress(arm: str, seed: int, run: RunFolder) -> RunProgress:
    num_steps, tokens_per_step = _planned(run)
    steps = run.newest_steps()
    standing: Standing = "waiting"
    if num_steps is not None:
        standing = run.state_after(num_steps)
    spent_s = sum(record.step_s for record in steps)
    is_known = spent_s > 0 and tokens_per_step is not None
    return RunProgress(
        arm=arm,
        seed=seed,
        run=run,
        standing=standing,
        num_taken=steps[-1].step + 1 if steps else 0,
        num_steps=num_steps,
        loss=steps[-1].loss if steps else None,
        tokens_per_s=len(steps) * (tokens_per_step or 0) / spent_s if is_known else None,
        tokens_per_step=tokens_per_step,
        curves=domain_curves(run.evals()),
        why=run.last_lines() if standing == "failed" else "",
    )


def _planned(run: RunFolder) -> tuple[int | None, int | None]:
    if not run.plan.exists():
        return None, None
    try:
        science = load_plan(run.plan).science
    except UserError:
        return None, None
    return science.num_steps, science.tokens_per_step


def _stamp(run: RunFolder) -> str:
    paths = (run.plan, run.steps_log, run.evals_log, run.exit_code, run.membership)
    return fingerprint([size_and_time(path) for path in paths])
