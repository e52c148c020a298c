"""An experiment as its runs go on: how far each is, and the curves so far.

While runs go on, nothing is said of what the experiment claims: whoever looks at a difference again
and again while it grows finds one too often.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from rewarm.records.comparison import Primary
from rewarm.records.comparison_folder import ComparisonFolder
from rewarm.reporting import numbers
from rewarm.reporting.arm_curves import ArmCurves, arm_curves, arm_legend
from rewarm.reporting.comparison_page import render_comparison_page
from rewarm.reporting.comparison_sections import primaries_table
from rewarm.reporting.effects import written_down
from rewarm.reporting.experiment_view import (
    ExperimentReader,
    ExperimentView,
    RunProgress,
    Standing,
)
from rewarm.reporting.figures import color_class
from rewarm.reporting.live_page import LivePage, LiveRun
from rewarm.reporting.page import render_page
from rewarm.reporting.report import render_waiting
from rewarm.reporting.tables import Mood
from rewarm.units import format_count, format_duration

__all__ = ["ExperimentSite", "LiveExperiment", "render_progress"]

Paths = dict[tuple[str, int], str]
"""Of the pages of runs, by arm and seed."""

_MOODS: dict[Standing, Mood] = {
    "done": "good",
    "failed": "bad",
    "stopped": "bad",
    "running": "",
    "waiting": "open",
}


class _Fact(NamedTuple):
    name: str
    value: str
    note: str = ""


class _RunShown(NamedTuple):
    """A run in the list: `num_taken` of `num_steps` fill its bar."""

    name: str
    class_: str
    link: str
    num_taken: int
    num_steps: int
    place: str
    speed: str
    standing: str
    mood: Mood
    why: str


class LiveExperiment:
    """The page of an experiment."""

    def __init__(self, folder: ComparisonFolder) -> None:
        self._folder = folder
        self._reader = ExperimentReader(folder)

    def paths(self) -> Paths:
        """Return where the page of each run is: by its number, in the order of the claims."""
        runs = self._reader.runs()
        return {(arm, seed): f"/run/{k}/" for k, (arm, seed, _) in enumerate(runs, start=1)}

    def stamp(self) -> str:
        """Return what tells one state of the experiment's records from another."""
        return self._reader.stamp()

    def render(self) -> str:
        """Return the page: the runs while they go on, the comparison once it is concluded."""
        view = self._reader.read()
        if view is None:
            return render_waiting(self._folder.path.name, "The experiment has not begun.")
        if view.result is not None:
            return render_comparison_page(view.result, live=self.paths())
        return render_progress(view, self.paths())


class ExperimentSite:
    """The page of an experiment at `/`, and those of its runs at `/run/1/` and so on."""

    def __init__(self, folder: ComparisonFolder) -> None:
        self._folder = folder
        self._subject = LiveExperiment(folder)
        self._page = LivePage(self._subject)
        self._lock = threading.Lock()
        self._runs: dict[str, LivePage] = {}

    def page_at(self, path: str) -> LivePage | None:
        """Return the page of exactly this path; None where there is none."""
        if path == "/":
            return self._page
        run = next((place for place, known in self._subject.paths().items() if known == path), None)
        if run is None:
            return None
        with self._lock:
            subject = LiveRun(self._folder.run(*run), up="/")
            return self._runs.setdefault(path, LivePage(subject))


def render_progress(view: ExperimentView, paths: Paths) -> str:
    """Return the page of an experiment whose runs go on."""
    claims = view.registration.claims
    primaries = [Primary.model_validate(entry) for entry in claims["primary"]]
    num_done = sum(run.standing == "done" for run in view.runs)
    return render_page(
        "progress.html",
        live=True,
        title=claims["name"],
        sections=(("runs", "Runs"), ("curves", "Curves"), ("claim", "Claim")),
        state=f"{num_done} of {len(view.runs)} runs are done",
        facts=_facts(view),
        runs=[_run(run, view.arms.index(run.arm), paths) for run in view.runs],
        descriptions=[(arm, view.descriptions.get(arm, "")) for arm in view.arms],
        legend=arm_legend(view.arms),
        curves=arm_curves([_curves(view, arm) for arm in view.arms]),
        hypothesis=claims["hypothesis"],
        registered=written_down(view.registration),
        primaries=primaries_table(primaries),
    )


def _facts(view: ExperimentView) -> list[_Fact]:
    claims = view.registration.claims
    count = {standing: sum(run.standing == standing for run in view.runs) for standing in _MOODS}
    others = ", ".join(f"{count[s]} {s}" for s in ("stopped", "failed", "waiting") if count[s])
    going = [run for run in view.runs if run.standing == "running" and run.tokens_per_s]
    speed = sum(run.tokens_per_s or 0.0 for run in going)
    return [
        _Fact("arms", str(len(view.arms)), f"against {claims['control']}"),
        _Fact("seeds", str(len(claims["seeds"])), ", ".join(map(str, claims["seeds"]))),
        _Fact("done", f"{count['done']} of {len(view.runs)}", others),
        _Fact("running", str(count["running"]), _speed(speed) if speed else ""),
        _Fact("time left", _time_left(view, speed), "of steps, at this speed" if speed else ""),
    ]


def _time_left(view: ExperimentView, tokens_per_s: float) -> str:
    """Return how long the steps that are missing will take; a dash where nothing is running.

    A run without a plan counts as long as the longest.
    """
    known = [run for run in view.runs if run.num_steps is not None and run.tokens_per_step]
    if not tokens_per_s or not known:
        return numbers.MISSING
    most = max((run.num_steps or 0) * (run.tokens_per_step or 0) for run in known)
    left = sum(
        ((run.num_steps or 0) - run.num_taken) * (run.tokens_per_step or 0)
        if run in known
        else most
        for run in view.runs
        if run.standing != "done"
    )
    return format_duration(left / tokens_per_s)


def _speed(tokens_per_s: float) -> str:
    return f"{format_count(tokens_per_s)} tokens/s"


def _run(run: RunProgress, arm: int, paths: Paths) -> _RunShown:
    total = run.num_steps or 0
    taken = total if run.standing == "done" else run.num_taken
    is_going = run.standing == "running" and run.tokens_per_s is not None
    told = [f"loss {numbers.plain(run.loss)}" if run.loss is not None else ""]
    told += [_speed(run.tokens_per_s or 0.0) if is_going else ""]
    return _RunShown(
        name=run.name,
        class_=color_class(arm),
        link=paths[run.arm, run.seed] if run.num_steps is not None else "",
        num_taken=taken,
        num_steps=total,
        place=f"{taken:,} of {total:,}" if total else "no plan yet",
        speed=", ".join(filter(None, told)),
        standing=run.standing,
        mood=_MOODS[run.standing],
        why=run.why,
    )


def _curves(view: ExperimentView, arm: str) -> ArmCurves:
    runs = view.runs_of(arm)
    return ArmCurves(
        arm,
        tuple(run.curves for run in runs if run.standing == "done"),
        tuple(run.curves for run in runs if run.standing != "done" and run.curves),
    )
