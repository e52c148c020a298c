"""`rewarm watch`: the report of a run, live in the browser while the run goes on."""

from __future__ import annotations

import sys
import threading
import webbrowser
from collections.abc import Iterable
from pathlib import Path

from rewarm.errors import EnvironmentFault, RecipeError, RunFolderError
from rewarm.records.run_folder import RunFolder
from rewarm.reporting.live_page import LivePage
from rewarm.reporting.watch import WatchServer
from rewarm.stages.job import open_job

__all__ = ["DEFAULT_PORT", "run_watch"]

DEFAULT_PORT = 8473


def run_watch(
    path: Path, overrides: Iterable[str], *, port: int | None, open_browser: bool
) -> None:
    """Serve the run's page until Ctrl-C; without `port`, the usual one or, if taken, a free one."""
    run = _run_of(path, overrides)
    server = _bound(LivePage(run), port)
    sys.stdout.write(f"{run.path.name} is shown at {server.url}  (Ctrl-C ends it)\n")
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


def _run_of(path: Path, overrides: Iterable[str]) -> RunFolder:
    """Return the run of a folder or a recipe, which need not have begun."""
    if not path.is_dir():
        return open_job(path, overrides).run
    if list(overrides):
        raise RecipeError.one(
            "-o", "a run folder's plan is frozen", "give the recipe to plan with overrides"
        )
    run = RunFolder(path.resolve())
    if not (run.plan.exists() or run.recipe.exists() or run.has_begun()):
        raise RunFolderError.one(
            str(path),
            "there is no plan.json, so this is not a run folder",
            "give the folder of a run, or its recipe",
        )
    return run


def _bound(page: LivePage, port: int | None) -> WatchServer:
    try:
        return WatchServer(page, DEFAULT_PORT if port is None else port)
    except OSError as error:
        if port is None:
            return WatchServer(page, 0)
        raise EnvironmentFault(
            f"port {port} cannot be used ({error.strerror or error})",
            "name another --port, or leave it out",
        ) from error
