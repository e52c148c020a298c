"""Every stream of the reproduction goes through in little; all together keep to their budget."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "reproduction"))
import stream_suite

from tests.reproduction.test_smoke import REPOSITORY, data

STREAMS = sorted(path.stem for path in (REPOSITORY / "reproduction/streams").glob("*.toml"))
SUITE = [sys.executable, str(REPOSITORY / "reproduction" / "stream_suite.py")]


def test_the_streams_keep_to_their_budget_and_none_is_left_out() -> None:
    said = subprocess.run([*SUITE, "--list"], check=True, capture_output=True, text=True).stdout
    first_words = [line.split()[0] for line in said.splitlines()]
    assert set(stream_suite.ORDER) <= set(first_words)
    assert set(stream_suite.EVERY) == set(STREAMS)
    total = re.fullmatch(r"all\s+(\d+) min.* on 2 cores", said.splitlines()[-1].strip())
    assert total is not None, said
    assert int(total[1]) < 40


def test_what_is_above_the_budget_is_refused_before_anything_runs() -> None:
    script = (
        "import sys; sys.argv[1:] = ['--data', '/nowhere']; import stream_suite; "
        "stream_suite.BUDGET_S = 60; sys.exit(stream_suite.main())"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        cwd=REPOSITORY / "reproduction",
    )
    assert finished.returncode == 2
    assert "more than 1 min" in finished.stdout
    assert "skipped" not in finished.stdout


def test_what_ends_the_suite_ends_what_it_runs() -> None:
    script = (
        "import subprocess, sys, time, stream_suite; from pathlib import Path; "
        "from rich.console import Console\n"
        "def start(place, name):\n"
        "    process = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "    print(process.pid, flush=True)\n"
        "    time.sleep(0.5)\n"
        "    return process\n"
        "stream_suite._start = start\n"
        "console = Console(stderr=True)\n"
        "stream_suite._run_all(Path('.'), ['one'], console, smoke=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY / "reproduction",
    ) as suite:
        assert suite.stdout is not None
        run = int(suite.stdout.readline())
        suite.terminate()
        assert suite.wait(timeout=30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(run, 0)


# The quickest one is among the fast tests.
QUICK = "mnist-online"


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == QUICK else pytest.mark.slow) for name in STREAMS],
)
def test_a_stream_goes_through_in_little(name: str) -> None:
    finished = subprocess.run(
        [*SUITE, "--smoke", "--data", str(data()), name],
        check=False,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-2000:]
    result = REPOSITORY / "reproduction/work/smoke-streams/work/streams" / name / "report.html"
    assert "No verdict: one seed claims nothing about training" in result.read_text()
