"""Launches a function of the tests on many gloo ranks, as torchrun would, and reads what they say.

A job is `module:function`; it is called with its arguments on every rank.
"""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.python import Python

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    """How a rank ended."""

    code: int
    output: str


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_ranks(
    job: str, *arguments: str, num_ranks: int, ranks_per_node: int | None = None
) -> list[tuple[Python, Path]]:
    """Start the ranks; return each one's process and the file of its output."""
    port = free_port()
    per_node = ranks_per_node or num_ranks
    started = []
    for rank in range(num_ranks):
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "RANK": str(rank),
            "WORLD_SIZE": str(num_ranks),
            "LOCAL_RANK": str(rank % per_node),
            "LOCAL_WORLD_SIZE": str(per_node),
        }
        output = Path(tempfile.mkstemp(prefix=f"rank-{rank}-")[1])
        command = ["-m", "tests.support.ranks", job, *arguments]
        process = Python(command, cwd=ROOT, environment=environment, output=output)
        started.append((process, output))
    return started


def wait_for(started: Sequence[tuple[Python, Path]], *, timeout_s: float = 120) -> list[Ended]:
    """Wait until all ranks have ended; those that do not are killed and end with -9."""
    deadline = time.monotonic() + timeout_s
    ended = []
    for process, output in started:
        try:
            code = process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        ended.append(Ended(code, output.read_text(encoding="utf-8", errors="replace")))
        output.unlink()
    return ended


def run_ranks(
    job: str, *arguments: str, num_ranks: int, ranks_per_node: int | None = None
) -> list[Ended]:
    """Run a job to its end on every rank; fails, with what was said, unless all ended with 0."""
    ended = wait_for(
        start_ranks(job, *arguments, num_ranks=num_ranks, ranks_per_node=ranks_per_node)
    )
    said = "\n".join(f"--- rank {rank}: {end.code}\n{end.output}" for rank, end in enumerate(ended))
    assert all(end.code == 0 for end in ended), said
    return ended


def main() -> None:
    """Call the job that the command line names."""
    module, _, name = sys.argv[1].partition(":")
    getattr(importlib.import_module(module), name)(*sys.argv[2:])


if __name__ == "__main__":
    main()
