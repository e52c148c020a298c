"""SIGKILL while a base is given new tokens: no folder or a whole one, and the same one after."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.tiny_models import make_tiny_base

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# Slow where something is written or gets its name, so that kills land there.
CHILD = """
import sys, time
import rewarm.export.vocabulary as room
import rewarm.export.place as place

def slowed(module, name, seconds):
    act = getattr(module, name)
    def slow(*arguments, **more):
        time.sleep(seconds)
        found = act(*arguments, **more)
        time.sleep(seconds)
        return found
    setattr(module, name, slow)

for name in ("copy_files", "write_atomically", "write_grown", "write_json", "_check_weights"):
    slowed(room, name, 0.1)
slowed(place, "_flush", 0.1)
slowed(place.os, "replace", 0.1)
from rewarm.cli import main
import rewarm.stages.vocabulary
print("ready", flush=True)
sys.exit(main(sys.argv[1:]))
"""
WORDS = ["Myokardinfarkt", "Herzkammer", "Kardiologie", "Herzklappe"]


def launch(folder: Path, output: str) -> subprocess.Popen[bytes]:
    given = ["extend-vocabulary", "base", "--text", "new.jsonl", "--tokens", "20"]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *given, "--output", output],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


def finish(folder: Path, output: str) -> None:
    said, _ = (child := launch(folder, output)).communicate(timeout=200)
    assert child.returncode == 0, said.decode()


def contents(folder: Path, name: str) -> dict[str, bytes]:
    """Return what is in the folder; its own name stands in the card."""
    return {
        path.name: path.read_bytes().replace(name.encode(), b"NAME")
        for path in (folder / name).iterdir()
    }


def test_kills_leave_nothing_or_all_of_it(tmp_path: Path) -> None:
    make_tiny_base(tmp_path / "base")
    lines = [{"text": f"Die {WORDS[n % 4]} und die {WORDS[n % 3]}."} for n in range(60)]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    finish(tmp_path, "uncut")
    whole = contents(tmp_path, "uncut")
    assert "model.safetensors" in whole
    rng = random.Random(3)
    num_killed = num_begun = 0
    for _ in range(8):
        child = launch(tmp_path, "o-u-t")
        while child.poll() is None and not list(tmp_path.glob(".o-u-t.writing-*")):
            time.sleep(0.01)
        time.sleep(rng.random() * 1.6)
        num_begun += any(any(found.iterdir()) for found in tmp_path.glob(".o-u-t.writing-*"))
        child.send_signal(signal.SIGKILL)
        num_killed += child.wait() == -signal.SIGKILL
        assert child.stdout is not None
        child.stdout.close()
        if (tmp_path / "o-u-t").exists():
            assert contents(tmp_path, "o-u-t").keys() == whole.keys()
            assert contents(tmp_path, "o-u-t") == whole
            (tmp_path / "o-u-t").rename(tmp_path / f"done-{num_killed}")
    assert num_killed >= 5
    assert num_begun >= 3, "no kill met work that was begun"
    finish(tmp_path, "o-u-t")
    assert contents(tmp_path, "o-u-t") == whole
    assert not list(tmp_path.glob(".o-u-t.writing-*")), "nothing is left over"
