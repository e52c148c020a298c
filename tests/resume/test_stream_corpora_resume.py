"""A stream of corpora that is killed within a run comes to the figures of one that was not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rewarm.cli import main
from tests.support.streams import CORPORA, write_corpora

pytestmark = pytest.mark.slow

_SHORT = (
    CORPORA.replace("seeds = 2", "seeds = 1")
    .replace('fine-tune = { algorithm = "fine-tune" }\n', "")
    .replace("[recipe]\n", "[recipe]\ncheckpoints = { every_steps = 1 }\n")
)


def _figures(folder: Path) -> list[dict[str, Any]]:
    runs = json.loads((folder / "streams" / "domains" / "result.json").read_text())["runs"]
    return [{key: value for key, value in run.items() if key != "elapsed_s"} for run in runs]


def test_a_killed_stream_goes_on_to_the_same_figures(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    path = write_corpora(whole, _SHORT)
    killed = tmp_path / "killed"
    shutil.copytree(whole, killed)
    assert main(["stream", str(path)]) == 0

    command = [sys.executable, "-m", "rewarm", "stream", str(killed / "stream.toml")]
    log = killed / "streams/domains/runs/base/er/seed-1/metrics/steps.jsonl"
    with subprocess.Popen(command, start_new_session=True) as process:
        deadline = time.monotonic() + 300
        # Within the second task: its memory is being replayed.
        while not (log.exists() and len(log.read_bytes().splitlines()) > 8):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (killed / "streams" / "domains" / "result.json").exists()
    shutil.rmtree(killed / "streams" / "domains" / "memories")  # a rule: made again
    assert main(["stream", str(killed / "stream.toml")]) == 0
    assert _figures(killed) == _figures(whole)
