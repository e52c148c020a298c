"""Runs the tasks of a preparation: here, or by datatrove's local, Ray and Slurm executors.

A task is a call with one number. It marks what is done itself, on the disk, so that whoever is
killed goes on; where it ran shows nowhere. A mistake of the person's that a task finds is written
down, and told here as if it had been found here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from rewarm.artifacts import parse_json, write_json
from rewarm.corpus.squeue import is_under_way, job_with_name
from rewarm.errors import CorpusError, EnvironmentFault, Problem, RewarmError, UserError
from rewarm.recipe.prepare import PrepareRecipe

__all__ = ["Executor", "Step", "executor_packages", "watched"]

Task = Callable[[int], None]
_JOB = "slurm.json"
_FAULTS = "faults"
_INSTEAD = "set prepare.executor otherwise"
_LOOK_EVERY_S = 0.5


def executor_packages(prepare: PrepareRecipe) -> tuple[str, ...]:
    """Return the modules that a recipe's executor needs."""
    if prepare.in_this_process:
        return ()
    return ("datatrove", "ray") if prepare.executor == "ray" else ("datatrove",)


@dataclass(frozen=True, slots=True)
class Executor:
    """Runs tasks as a recipe has it."""

    prepare: PrepareRecipe

    @property
    def in_this_process(self) -> bool:
        """Tell whether tasks run here, one after the other."""
        return self.prepare.in_this_process

    def here(self) -> Executor:
        """Return what runs tasks on this machine: those that follow a cluster's."""
        workers = os.cpu_count() if self.prepare.executor == "slurm" else self.prepare.workers
        kind = "ray" if self.prepare.executor == "ray" else "local"
        return Executor(PrepareRecipe(executor=kind, workers=workers))

    def run(self, task: Task, numbers: Sequence[int], folder: Path, name: str) -> None:
        """Call `task`, which can be pickled, with every number; logs go into `folder`.

        Raises what a task raises. A task elsewhere that ends otherwise, and a job that was handed
        to Slurm and is not done, are an EnvironmentFault: the same command goes on.
        """
        if not numbers:
            return
        if self.in_this_process:
            for number in numbers:
                task(number)
            return
        from rewarm.corpus.trove_executors import run_elsewhere

        step = Step(task, tuple(numbers), folder / _FAULTS, self._threads(len(numbers)))
        if self.prepare.executor == "slurm":
            self._run_on_slurm(step, folder, name)
            return
        shutil.rmtree(folder, ignore_errors=True)
        left = run_elsewhere(self.prepare, step, len(numbers), folder)
        step.raise_faults()
        if left:
            raise EnvironmentFault(
                f"{left} of {len(numbers)} tasks of {name} did not end",
                f"see {folder / 'logs'}; the same command goes on with them",
            )
        shutil.rmtree(folder, ignore_errors=True)

    def _threads(self, num_tasks: int) -> int:
        """Return how many threads each of several tasks on one machine gets."""
        if self.prepare.slurm is not None:
            return self.prepare.slurm.cpus_per_task
        side_by_side = min(self.prepare.workers or num_tasks, num_tasks)
        return max(1, (os.cpu_count() or 1) // side_by_side)

    def _run_on_slurm(self, step: Step, folder: Path, name: str) -> None:
        """Hand tasks that are not done to Slurm, unless a job that has them is under way."""
        from rewarm.corpus.trove_executors import submit

        job_name = f"rewarm-{name}-{sha256(str(folder).encode()).hexdigest()[:8]}"
        job, ended = _job_in(folder, job_name), ""
        if job is not None and not is_under_way(job, instead=_INSTEAD):
            step.raise_faults()
            ended = f"; job {job} ended without them, and its logs are in {_put_aside(folder)}"
            job = None
        if job is None:
            # Of tasks of a job whose number was not noted.
            step.raise_faults()
            shutil.rmtree(folder, ignore_errors=True)
            # Before sbatch: whoever is killed within it leaves word that there may be a job.
            folder.mkdir(parents=True)
            write_json(folder / _JOB, {"job_id": None})
            try:
                job = submit(self.prepare, step, len(step.numbers), folder, job_name)
            except EnvironmentFault:
                (folder / _JOB).unlink()
                raise
            write_json(folder / _JOB, {"job_id": job, "tasks": len(step.numbers)})
        raise EnvironmentFault(
            f"{len(step.numbers)} tasks of {name} are not done yet: Slurm has them (job {job})"
            + ended,
            "run the same command again once they are (squeue shows it)",
        )


@dataclass(frozen=True, slots=True)
class Step:
    """A task as a step of datatrove's pipelines: rank r is called with the r-th number."""

    task: Task
    numbers: tuple[int, ...]
    faults: Path
    threads: int

    def __call__(self, data: object, rank: int, world_size: int) -> None:
        """Do one task; what a person did wrong is written down for whoever waits."""
        os.environ.setdefault("RAYON_NUM_THREADS", str(self.threads))
        try:
            self.task(self.numbers[rank])
        except RewarmError as error:
            self.faults.mkdir(parents=True, exist_ok=True)
            write_json(self.faults / f"{rank:05d}.json", _written(error))

    def raise_faults(self) -> None:
        """Raise what tasks have written down, all of it at once, and forget it."""
        found = [parse_json(path.read_bytes()) for path in sorted(self.faults.glob("*.json"))]
        shutil.rmtree(self.faults, ignore_errors=True)
        problems = [Problem(*row) for value in found for row in value.get("problems", ())]
        if problems:
            raise CorpusError(dict.fromkeys(problems))
        for value in found:
            raise EnvironmentFault(value["what"], value["fix"])


@contextlib.contextmanager
def watched(look: Callable[[], None]) -> Iterator[None]:
    """Look, twice a second, at what other processes do meanwhile."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_LOOK_EVERY_S):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    look()


def _written(error: RewarmError) -> dict[str, Any]:
    if isinstance(error, UserError):
        return {"problems": [[one.where, one.what, one.fix] for one in error.problems]}
    assert isinstance(error, EnvironmentFault)
    return {"what": error.what, "fix": error.fix}


def _put_aside(folder: Path) -> Path:
    """Keep the logs of a job that came to nothing until the next one does."""
    before = folder.with_name(f"{folder.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    os.replace(folder, before)
    return before


def _job_in(folder: Path, name: str) -> str | None:
    """Return the number of the job that was submitted, None where there is none.

    Where sbatch was cut off before its answer was written down, Slurm is asked for a job of the
    name; raises EnvironmentFault where it does not say.
    """
    try:
        number = parse_json((folder / _JOB).read_bytes())["job_id"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return job_with_name(name, instead=_INSTEAD) if number is None else str(number)
