"""Starts Python processes as forks of one that has imported what takes long.

A rank, or a run that is to be killed, needs a process of its own; of a short one's time most would
be the import of torch, transformers and rewarm. What a fork is asked to do it does as a fresh
interpreter would that has imported them, from the folders that the caller imports from.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import BinaryIO

import rewarm

HEAVY = (
    *("numpy", "pyarrow", "scipy.stats", "pydantic", "rich", "typer", "jinja2", "tokenizers"),
    *("torch", "torch.distributed.fsdp", "torch._dynamo", "safetensors.torch", "transformers"),
    *("transformers.models.llama.modeling_llama", "transformers.models.gpt2.modeling_gpt2"),
    *("pytest", "rewarm.cli", "rewarm.stages.train"),
)

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(list(HEAVY))


class Python:
    """A Python process that is started with what would be its command line; used as a Popen is.

    Output and errors go to the file `output`, or to the pipe `stdout` where none is given.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str] | None = None,
        output: Path | None = None,
    ) -> None:
        """Start it: `arguments` are what follows `python`, `-c CODE ...` or `-m MODULE ...`."""
        reader, writer = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(
            target=_run,
            args=(list(arguments), str(cwd), dict(environment or os.environ), output, writer),
            kwargs={"package": rewarm.__file__},
            daemon=True,  # should a test leave it behind, it ends with the tests
        )
        self._process.start()
        writer.close()
        self.stdout: BinaryIO = os.fdopen(os.dup(reader.fileno()), "rb")
        reader.close()
        if output is not None:
            self.stdout.close()

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How it ended; minus the signal's number where a signal did it, None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return how it ended, None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Return how it ended, once it has; subprocess.TimeoutExpired where that takes longer."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(str(self._process), timeout)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[bytes, None]:
        """Return all that it says, once it has ended.

        A process that never ends holds this up for as long as the test may take.
        """
        said = self.stdout.read()
        self.stdout.close()
        self.wait(timeout)
        return said, None

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)


def _run(
    arguments: Sequence[str],
    cwd: str,
    environment: Mapping[str, str],
    output: Path | None,
    writer: Connection,
    *,
    package: str,
) -> None:
    """Be the process that the command line asks for."""
    assert rewarm.__file__ == package, f"{rewarm.__file__} was imported, and not {package}"
    told = writer.fileno() if output is None else os.open(output, os.O_WRONLY)
    os.dup2(told, 1)
    os.dup2(told, 2)
    writer.close()
    # What there was belonged to a file or a terminal of the tests, and may look as one still.
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    kind, what, *rest = arguments
    sys.argv = [kind, *rest]
    try:
        if kind == "-c":
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
        else:
            assert kind == "-m"
            runpy.run_module(what, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
