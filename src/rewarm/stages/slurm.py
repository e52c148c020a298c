"""Runs as jobs of Slurm: one array job, a task for each run that is not done.

The script is written into the comparison's folder and handed to sbatch; nothing waits for it here.
Folders are shared with the nodes, so whoever gives the command again sees how far the runs are.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rewarm.artifacts import read_json, write_atomically, write_json
from rewarm.comparison.experiment import RunRecipe
from rewarm.corpus.squeue import is_under_way, job_with_script
from rewarm.errors import EnvironmentFault, RunFolderError
from rewarm.records.run_folder import RunFolder

__all__ = ["array_script", "submit", "take_job"]

_SCRIPT = "jobs.sbatch"
_JOB = "slurm.json"
_TIMEOUT_S = 60
_INSTEAD = 'set run.mode = "processes"'


def array_script(name: str, folder: Path, runs: Sequence[RunFolder], settings: RunRecipe) -> str:
    """Return the batch script of an array job that trains the k-th run in its k-th task.

    A task that is stopped or requeued goes on from its checkpoint: training always resumes.
    """
    placed = str(folder).replace("%", "%%")  # which stands for numbers of the job
    limit = f"%{settings.workers}" if settings.workers is not None else ""
    options = [
        f"--job-name=rewarm-{name}",
        f"--array=0-{len(runs) - 1}{limit}",
        f"--output={shlex.quote(f'{placed}/slurm-%A_%a.out')}",
        "--signal=B:TERM@120",
        "--requeue",
    ]
    if settings.threads_each is not None:
        options.append(f"--cpus-per-task={settings.threads_each}")
    if settings.gpus_each:
        # Per task they may be asked for only together with a number of tasks.
        options += ["--nodes=1", f"--gpus-per-node={settings.gpus_each}"]
    threads = settings.threads_each
    export = f"export OMP_NUM_THREADS={threads}\n" if threads is not None else ""
    launch = settings.launch or shlex.join([sys.executable, "-m", "rewarm"])
    folders = "\n".join(f"  {shlex.quote(str(run.path))}" for run in runs)
    lines = "\n".join(f"#SBATCH {option}" for option in [*options, *settings.sbatch])
    return f"""\
#!/bin/bash
{lines}
# Written by `rewarm compare`; each task trains one run and can be repeated.
{export}runs=(
{folders}
)
run=${{runs[$SLURM_ARRAY_TASK_ID]}}
rm -f "$run/exit_code"
# exec hands the signal to the training itself, which saves and ends.
(exec {launch} train "$run") >> "$run/train.log" 2>&1 &
trap 'kill -TERM $!' TERM
wait $!
code=$?
if [ $code -gt 128 ]; then wait $!; code=$?; fi
echo $code > "$run/exit_code"
exit $code
"""


def submit(name: str, folder: Path, runs: Sequence[RunFolder], settings: RunRecipe) -> str:
    """Write the script, hand it to sbatch, and return the job's number.

    Raises EnvironmentFault where sbatch is not there or refuses.
    """
    script = folder / _SCRIPT
    write_atomically(script, array_script(name, folder, runs, settings))
    # Before sbatch: whoever is killed within it leaves word that there may be a job.
    _note(folder, None, runs)
    try:
        told = _sbatch(script)
    except _NotTakenError:
        (folder / _JOB).unlink()
        raise
    number = told.strip().partition(";")[0]
    if re.fullmatch(r"\d+", number) is None:
        raise EnvironmentFault(
            f"sbatch answered {told.strip()!r}, which is no job's number", f"look at {script}"
        )
    _note(folder, number, runs)
    return number


def take_job(folder: Path, say: Callable[[str], None]) -> tuple[str | None, bool]:
    """Return the number of the job that was submitted if some task of it waits or runs, and whether
    one has ended since; that is told once, its record being removed.

    Where sbatch was cut off before its answer was written down, Slurm is asked for a job with this
    comparison's script, and `say` told what was found. Raises EnvironmentFault where squeue is not
    there.
    """
    record = folder / _JOB
    if not record.exists():
        return None, False
    value = read_json(record, what="the record of the job", error=RunFolderError)
    number = value.get("job") if isinstance(value, dict) else ""
    if number is None:
        return _job_cut_off(folder, value, say), False
    if is_under_way(str(number), instead=_INSTEAD):
        return str(number), False
    record.unlink()
    return None, True


def _job_cut_off(folder: Path, record: dict[str, Any], say: Callable[[str], None]) -> str | None:
    """Return the number of a job whose submission was cut off before it was known."""
    script = folder / _SCRIPT
    number = job_with_script(script, instead=_INSTEAD)
    if number is not None:
        say(f"the last command was cut off as it submitted {script}: Slurm has it as job {number}")
        write_json(folder / _JOB, record | {"job": number})
        return number
    say(
        f"the last command was cut off as it submitted {script}: Slurm has no such job waiting or "
        "running, so what is not done is submitted again"
    )
    (folder / _JOB).unlink()
    return None


class _NotTakenError(EnvironmentFault):
    """There is no job: sbatch is missing, or refused."""


def _note(folder: Path, number: str | None, runs: Sequence[RunFolder]) -> None:
    write_json(folder / _JOB, {"job": number, "runs": [str(run.path) for run in runs]})


def _sbatch(script: Path) -> str:
    """Return what sbatch prints; raises EnvironmentFault where it fails."""
    command = ["sbatch", "--parsable", str(script)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except FileNotFoundError as error:
        raise _NotTakenError(
            "there is no sbatch here",
            f"give the command on a login node of the cluster, or {_INSTEAD}",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFault(
            f"sbatch did not answer within {_TIMEOUT_S} s",
            "give the command again later: it asks squeue first whether the job was taken",
        ) from error
    if done.returncode:
        raise _NotTakenError(
            f"{shlex.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}",
            "mend run.sbatch in the experiment, or ask whoever runs the cluster",
        )
    return done.stdout
