"""datatrove's executors, with what they need to be told; imported where one is asked for."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datatrove.executor.base import PipelineExecutor
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor
from loguru import logger

from rewarm.corpus.quiet_trove import without_a_word
from rewarm.errors import EnvironmentFault
from rewarm.recipe.prepare import PrepareRecipe

__all__ = ["run_elsewhere", "slurm_executor", "submit"]

_RAY_GB_PER_CPU = 1.0

RankTask = Callable[[object, int, int], None]
"""A step of a pipeline: (data that nobody gives, rank, number of ranks) → nothing."""


class _Local(LocalPipelineExecutor):  # type: ignore[misc]
    """Logs go to the files; on the terminal there is a bar."""

    def save_executor_as_json(self, indent: int = 4) -> None:
        """Leave it out: what tasks hold is no JSON."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> Any:
        logger.disable("datatrove.executor.local")
        return super()._run_for_rank(rank, local_rank + 1, node_rank)


class _Slurm(SlurmPipelineExecutor):  # type: ignore[misc]
    """One array job, and none after it that would add up statistics."""

    def save_executor_as_json(self, indent: int = 4) -> None:
        """Leave it out: what tasks hold is no JSON."""

    def launch_merge_stats(self) -> None:
        """Leave it out: nobody reads them."""

    def get_launch_file_contents(self, sbatch_args: dict[str, Any], run_script: str) -> str:
        """Return the script; neither sbatch nor its shell splits a path at a space."""
        pickled = self.logging_dir.resolve_paths("executor.pik")
        quoted = {
            key: shlex.quote(str(value)) if value else "" for key, value in sbatch_args.items()
        }
        script: str = super().get_launch_file_contents(
            quoted, run_script.replace(pickled, shlex.quote(pickled))
        )
        return script


def run_elsewhere(prepare: PrepareRecipe, step: RankTask, num_tasks: int, folder: Path) -> int:
    """Run a step for every rank in other processes, wait, and return how many did not end.

    Raises EnvironmentFault where a Ray cluster cannot be reached.
    """
    workers = min(prepare.workers or num_tasks, num_tasks)
    common = {"tasks": num_tasks, "workers": workers, "skip_completed": False}
    with without_a_word():
        executor: PipelineExecutor
        if prepare.executor == "ray":
            from rewarm.corpus.trove_ray import RayExecutor

            with _ray(workers):
                executor = RayExecutor(
                    [step], logging_dir=str(folder), mem_per_cpu_gb=_RAY_GB_PER_CPU, **common
                )
                executor.run()
        else:
            executor = _Local([step], logging_dir=str(folder), **common)
            executor.run()
        left: list[int] = executor.get_incomplete_ranks(skip_completed=True)
    return len(left)


@contextlib.contextmanager
def _ray(workers: int) -> Iterator[None]:
    """Be connected to the cluster that RAY_ADDRESS names, else to one of this machine's own."""
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    here: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level="ERROR",
            **({} if address else here),
        )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise EnvironmentFault(
            f"Ray cannot be reached ({error})",
            "check RAY_ADDRESS, or set prepare.executor otherwise",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def slurm_executor(
    prepare: PrepareRecipe, step: RankTask, num_tasks: int, folder: Path, job_name: str
) -> _Slurm:
    """Return what writes the script of an array job and hands it to sbatch."""
    asked = prepare.slurm
    assert asked is not None
    return _Slurm(
        [step],
        tasks=num_tasks,
        time=asked.time,
        partition=asked.partition,
        cpus_per_task=asked.cpus_per_task,
        mem_per_cpu_gb=asked.mem_per_cpu_gb,
        workers=prepare.workers or -1,
        job_name=job_name,
        qos=asked.qos,
        env_command=asked.env_command or _this_environment(),
        sbatch_args=dict(asked.sbatch),
        # Since Slurm 22.05 srun does not take over what sbatch was asked for: a task had one CPU.
        srun_args={"cpus-per-task": asked.cpus_per_task},
        logging_dir=str(folder),
        skip_completed=False,
        requeue=False,
    )


def _this_environment() -> str:
    """Return the shell line after which the programs of this environment are found."""
    return f"export PATH={shlex.quote(os.path.dirname(sys.executable))}:$PATH"


def submit(
    prepare: PrepareRecipe, step: RankTask, num_tasks: int, folder: Path, job_name: str
) -> str:
    """Hand a step to Slurm and return the job's number; raises EnvironmentFault."""
    with without_a_word():
        executor = slurm_executor(prepare, step, num_tasks, folder, job_name)
        try:
            executor.run()
        except (OSError, subprocess.CalledProcessError) as error:
            raise EnvironmentFault(
                f"Slurm does not take the job ({error})",
                "run this where sbatch is, and check [prepare.slurm]; or set prepare.executor "
                "otherwise",
            ) from error
    return str(executor.job_id)
