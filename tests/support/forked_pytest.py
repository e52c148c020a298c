"""Runs pytest in forks of a process that has imported what takes long, and nothing of rewarm.

Hundreds of broken lines each need an interpreter in which the package is imported anew; torch and
transformers, which are most of such a start, are the same for all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
_HEAVY = (
    *("numpy", "pyarrow", "scipy.stats", "pydantic", "rich", "typer", "jinja2", "tokenizers"),
    *("torch", "torch.distributed.fsdp", "torch._dynamo", "safetensors.torch", "transformers"),
    *("transformers.models.llama.modeling_llama", "transformers.models.gpt2.modeling_gpt2"),
    "pytest",
)


class Finished(NamedTuple):
    """A run of pytest: its exit code and what it said."""

    exit_code: int
    output: str


class ForkedPytest:
    """A process that waits for tests to be run in a fork of it."""

    def __init__(self) -> None:
        """Start it; what it says is thrown away, what its forks say is not."""
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, package_folder: Path, *arguments: str) -> Finished:
        """Run pytest with the package that lies in this folder, and return what came of it."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        output = package_folder / "output.txt"
        job = {"folder": str(package_folder), "output": str(output), "arguments": arguments}
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        assert answer, "the process that runs tests has ended"
        return Finished(int(answer), output.read_text(encoding="utf-8", errors="replace"))

    def close(self) -> None:
        """End the process."""
        self._server.communicate()


def _serve() -> None:
    for name in _HEAVY:
        __import__(name)
    assert not any(name.partition(".")[0] == "rewarm" for name in sys.modules)
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(job)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(job: dict[str, object]) -> None:
    """Run pytest and end this process."""
    import pytest

    code = 70  # an error of ours: no code of pytest's
    try:
        output = os.open(str(job["output"]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ["PYTHONPATH"] = str(job["folder"])
        sys.path[:0] = [str(REPOSITORY), str(job["folder"])]
        # What is imported already cannot have its assertions rewritten, and need not.
        quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        code = int(pytest.main([*quiet, *job["arguments"]]))  # type: ignore[misc]
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, whose modules have names of their own
    _serve()
