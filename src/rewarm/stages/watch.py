"""`rewarm watch`: the report of a run, or an experiment, live in the browser while it goes on."""

from __future__ import annotations

import sys
import threading
import webbrowser
from collections.abc import Iterable
from pathlib import Path

from rewarm.comparison.experiment import read_experiment
from rewarm.errors import EnvironmentFault, RecipeError, RunFolderError
from rewarm.recipe.reading import parse_toml, read_text
from rewarm.records.comparison_folder import ComparisonFolder
from rewarm.records.reading import record_or_none
from rewarm.records.run_folder import RunFolder
from rewarm.records.stream_folder import StreamFolder
from rewarm.reporting.live_experiment import ExperimentSite
from rewarm.reporting.live_page import LivePage, LiveRun, RunSite, Site
from rewarm.reporting.watch import WatchServer
from rewarm.stages.job import open_job
from rewarm.stream.labelled_plan import StreamPlan

__all__ = ["DEFAULT_PORT", "run_watch"]

DEFAULT_PORT = 8473


def run_watch(
    path: Path, overrides: Iterable[str], *, port: int | None, open_browser: bool
) -> None:
    """Serve the page until Ctrl-C; without `port`, at the usual one or, if taken, at a free one.

    `path` is a run folder or a recipe, an experiment's folder or its file.
    """
    name, site = _shown(path, list(overrides))
    server = _bound(site, port)
    sys.stdout.write(f"{name} is shown at {server.url}  (Ctrl-C ends it)\n")
    sys.stdout.flush()
    if open_browser:
        threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        sys.stdout.write("\n")
    finally:
        server.ended.set()
        server.server_close()


def _shown(path: Path, overrides: list[str]) -> tuple[str, Site]:
    """Return what is shown, which need not have begun, and its pages."""
    _refuse_streams(path)
    experiment = _experiment_of(path)
    if experiment is not None:
        if overrides:
            raise RecipeError.one(
                "-o", "an experiment's arms say what they change", "leave it out, or watch one run"
            )
        return experiment.path.name, ExperimentSite(experiment)
    run = _run_of(path, overrides)
    return run.path.name, RunSite(LivePage(LiveRun(run)))


def _experiment_of(path: Path) -> ComparisonFolder | None:
    """Return the folder of an experiment, or of the file that describes one; None for neither."""
    if path.is_dir():
        folder = ComparisonFolder(path.resolve())
        return folder if folder.registration.exists() else None
    return read_experiment(path).folder if _has(path, "arms") else None


def _refuse_streams(path: Path) -> None:
    """Raise RecipeError for a stream's folder or file, which else looks like an experiment's."""
    if path.is_dir():
        is_run = record_or_none(path / "plan.json", StreamPlan) is not None
        # A comparison's runs are one folder less deep.
        is_stream = is_run or any(StreamFolder(path.resolve()).left())
    else:
        is_stream = _has(path, "backbones")
    if is_stream:
        fix = (
            "open report.html in its folder when it is done; of a stream of corpora give a run's "
            "folder, runs/BACKBONE/LEARNER/seed-N"
        )
        raise RecipeError.one(str(path), "this is a stream, and streams are not watched", fix)


def _has(path: Path, key: str) -> bool:
    try:
        return key in parse_toml(read_text(path, what="recipe", fix=""), str(path))
    except RecipeError:  # it is told as of a recipe
        return False


def _run_of(path: Path, overrides: list[str]) -> RunFolder:
    """Return the run of a folder or a recipe, which need not have begun."""
    if not path.is_dir():
        return open_job(path, overrides).run
    if overrides:
        raise RecipeError.one(
            "-o", "a run folder's plan is frozen", "give the recipe to plan with overrides"
        )
    run = RunFolder(path.resolve())
    if not (run.plan.exists() or run.recipe.exists() or run.has_begun()):
        raise RunFolderError.one(
            str(path),
            "there is no plan.json and no experiment.json, so this is the folder of neither a run "
            "nor an experiment",
            "give the folder of a run or an experiment, or the recipe or experiment file",
        )
    return run


def _bound(site: Site, port: int | None) -> WatchServer:
    try:
        return WatchServer(site, DEFAULT_PORT if port is None else port)
    except OSError as error:
        if port is None:
            return WatchServer(site, 0)
        raise EnvironmentFault(
            f"port {port} cannot be used ({error.strerror or error})",
            "name another --port, or leave it out",
        ) from error
