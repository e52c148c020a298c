"""The demo in miniature: the whole road, an interruption in the middle, and a second call."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rewarm.cli import main
from rewarm.records.run_folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CHILD = """
import os, sys
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
from pathlib import Path
from rewarm.stages.demo import DemoSizes, run_demo

if __name__ == "__main__":
    run_demo(
        Path(sys.argv[1]),
        DemoSizes(
            num_old_characters=300_000, num_new_characters=200_000, num_qa_pairs=800,
            vocab_size=400, hidden_size=32, num_layers=2, num_heads=2, sequence_length=64,
            base_steps=30, arm_steps=30, held_out_bytes=4000, matched_items=8, max_answers=8,
            evaluate_every=10,
        ),
    )
"""


def launch(script: Path, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def steps_in(folder: Path) -> int:
    logs = folder.glob("demo-*/runs/*/metrics/steps.jsonl")
    arms = (path for path in logs if path.parts[-3] != "base")
    return sum(len(path.read_bytes().splitlines()) for path in arms)


def test_an_interrupted_demo_goes_on_where_it_was(tmp_path: Path) -> None:
    script = tmp_path / "demo.py"
    script.write_text(CHILD)
    folder = tmp_path / "demo"
    child = launch(script, folder)
    deadline = time.monotonic() + 400
    while steps_in(folder) < 20 and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.05)
    assert child.poll() is None, child.communicate()[0]
    child.send_signal(signal.SIGKILL)  # the parent alone: its workers must not go on for ever
    child.communicate()
    before = steps_in(folder)
    assert not (folder / "report.html").exists()
    time.sleep(10)
    assert not _left_of(child.pid)

    finished = launch(script, folder)
    output, _ = finished.communicate(timeout=600)
    assert finished.returncode == 0, output
    assert "the base is there already" in output
    assert steps_in(folder) > before
    (work,) = folder.glob("demo-*")
    for name in ("naive", "baseline", "reuse", "reuse-area-matched", "rewarm"):
        assert [r.step for r in RunFolder(work / "runs" / name).steps()] == list(range(30))
        assert name in output
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "reuse-area-matched" in page
    assert "evaluation noise of one seed" in output
    assert (folder / "figure.svg").read_text().startswith("<svg")

    # What it leaves behind is an experiment that can be planned as it stands.
    experiment = work / "experiment.toml"
    assert str(experiment) in output.replace("\n", "")
    assert main(["compare", str(experiment), "--dry-run"]) == 0

    started = time.monotonic()
    again = launch(script, folder)
    output, _ = again.communicate(timeout=600)
    assert again.returncode == 0, output
    assert time.monotonic() - started < 60
    assert steps_in(folder) >= 150


def _left_of(session: int) -> list[str]:
    """Return the live processes of a session (on Linux; elsewhere none are seen)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        state, its_session = fields[0], int(fields[3])
        if its_session == session and state != "Z":
            found.append(entry.name)
    return found
