"""Runs as tasks of a Ray cluster whose nodes share the folders."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from rewarm.comparison.experiment import RunRecipe
from rewarm.errors import EnvironmentFault
from rewarm.records.run_folder import RunFolder
from rewarm.stages.launches import Launch, States, num_cores, settled, train_here

__all__ = ["run_on_ray"]

_LOOK_EVERY_S = 0.5


def run_on_ray(
    launches: Sequence[Launch], settings: RunRecipe, *, command: str, show: Callable[[States], None]
) -> States:
    """Train the launches that are not done as tasks, and return what became of each.

    A task takes `threads_each` CPUs and `gpus_each` GPUs; as many run at a time as the cluster (or
    `workers`) allows. Raises EnvironmentFault where Ray is not installed or not reached.
    """
    ray = _ray(settings)
    states = {launch.name: "done" if launch.is_done else "waiting" for launch in launches}
    waiting = [launch for launch in launches if states[launch.name] != "done"]
    train = ray.remote(
        num_cpus=settings.threads_each or 1, num_gpus=settings.gpus_each, max_retries=0
    )(_train)
    under_way: dict[Any, Launch] = {}
    limit = settings.workers or len(waiting)
    try:
        while waiting or under_way:
            while waiting and len(under_way) < limit:
                launch = waiting.pop(0)
                under_way[train.remote(str(launch.run.path), command)] = launch
                states[launch.name] = "running"
            show(states)
            ended, _ = ray.wait(list(under_way), timeout=_LOOK_EVERY_S)
            for task in ended:
                launch = under_way.pop(task)
                states[launch.name] = settled(launch, _code_of(ray, task))
    finally:
        for task in under_way:
            ray.cancel(task)
        ray.shutdown()
    show(states)
    return states


def _ray(settings: RunRecipe) -> Any:
    try:
        import ray
    except ImportError as error:
        raise EnvironmentFault(
            'run.mode = "ray" needs the ray package, which is not installed',
            "pip install 'rewarm[ray]', or choose another mode",
        ) from error
    try:
        if settings.address is None:
            ray.init(num_cpus=num_cores(), include_dashboard=False, log_to_driver=False)
        else:
            ray.init(address=settings.address, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EnvironmentFault(
            f"the Ray cluster cannot be reached ({error})", "check run.address"
        ) from error
    return ray


def _code_of(ray: Any, task: Any) -> int:
    """Return the code of a training; −9 where its worker died under it."""
    try:
        return int(ray.get(task))
    except ray.exceptions.RayError:
        return -9


def _train(folder: str, command: str) -> int:
    """Train one run in a worker of Ray's; what it says goes to the run's own log."""
    path = Path(folder)
    RunFolder(path).exit_code.unlink(missing_ok=True)  # of an earlier try: it is running now
    kept = [os.dup(stream) for stream in (1, 2)]
    try:
        with RunFolder(path).output.open("a", encoding="utf-8") as log:
            for stream in (1, 2):
                os.dup2(log.fileno(), stream)
            return train_here(path, command, Console(file=log, width=120))
    finally:
        sys.stdout.flush()
        for stream, original in zip((1, 2), kept, strict=True):
            os.dup2(original, stream)
            os.close(original)
