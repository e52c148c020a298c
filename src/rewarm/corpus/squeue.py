"""Whether Slurm still has a job: asked before one that it may have is submitted again."""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path

from rewarm.errors import EnvironmentFault

__all__ = ["is_under_way", "job_with_name", "job_with_script"]

_TIMEOUT_S = 60
_FORGOTTEN = "Invalid job id"
"""What squeue says of a job that left the queue long ago: it is over."""


def is_under_way(job: str, *, instead: str) -> bool:
    """Tell whether some task of a job waits or runs.

    Raises EnvironmentFault where Slurm does not say; `instead` is what could be done without it.
    """
    said = _ask(["--jobs", job], f"job {job}", instead)
    return said.returncode == 0 and bool(said.stdout.strip())


def job_with_script(script: Path, *, instead: str) -> str | None:
    """Return the number of this user's job that waits or runs with a script, None where none does.

    Raises EnvironmentFault where Slurm does not say; `instead` is what could be done without it.
    """
    # %o is the path that sbatch was given.
    return _job_where("%o", str(script), f"the job of {script}", instead)


def job_with_name(name: str, *, instead: str) -> str | None:
    """Return the number of this user's job of a name that waits or runs, None where none does.

    Raises EnvironmentFault where Slurm does not say; `instead` is what could be done without it.
    """
    return _job_where("%j", name, f"the job {name}", instead)


def _job_where(field: str, value: str, job: str, instead: str) -> str | None:
    # %F is the number that all tasks of an array share.
    said = _ask(["--user", getpass.getuser(), "--format", f"%F {field}"], job, instead)
    for line in said.stdout.splitlines():
        number, _, found = line.strip().partition(" ")
        if found.strip() == value:
            return number
    return None


def _ask(options: list[str], job: str, instead: str) -> subprocess.CompletedProcess[str]:
    """Return what squeue says, be it that it has forgotten the job; raises EnvironmentFault."""
    try:
        said = subprocess.run(
            ["squeue", "--noheader", *options],
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    except OSError as error:
        raise EnvironmentFault(
            f"Slurm cannot be asked for {job} (squeue: {error.strerror})",
            f"run this where squeue is, on a login node of the cluster, or {instead}",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFault(
            f"squeue did not answer within {_TIMEOUT_S} s", "try again later"
        ) from error
    if said.returncode and _FORGOTTEN not in said.stderr:
        raise EnvironmentFault(
            f"Slurm does not say how {job} is ({said.stderr.strip() or said.returncode})",
            "try again later: a job that may be under way is not submitted a second time",
        )
    return said
