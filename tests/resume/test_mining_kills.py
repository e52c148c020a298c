"""SIGKILL at random moments while neighbours are searched; then the same command: same bytes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rewarm.corpus.mining import NEIGHBOURS, QUESTIONS, SIMILARITIES
from rewarm.corpus.selection import SCORES
from tests.support.asked_folder import asked_recipe, make_asked_folder, nearest
from tests.support.extras import skip_without

skip_without("scipy", "sklearn", "faiss")

# Pieces are small and made slowly, so that kills land in the midst of each step.
CHILD = """
import sys, time
from rewarm.corpus import mining, scores

def slowed(module, name, seconds):
    act = getattr(module, name)
    def slow(*arguments, **more):
        time.sleep(seconds)
        return act(*arguments, **more)
    setattr(module, name, slow)

pieces = mining.pieces_of
mining.pieces_of = lambda ends, tokens: pieces(ends, 1500)
slowed(mining, "save_arrays", 0.05)
slowed(mining, "signature", 0.002)
slowed(mining, "write_atomically", 0.05)
slowed(scores, "seal", 0.1)
from rewarm.cli import main
import rewarm.stages.prepare
print("ready", flush=True)
sys.exit(main(["prepare", "recipe.toml"]))
"""


def launch(folder: Path) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


def finish(folder: Path) -> dict[str, bytes]:
    output, _ = (child := launch(folder)).communicate(timeout=200)
    assert child.returncode == 0, output.decode()
    (place,) = folder.glob("prepared/web-*/scores/neighbours-*")
    assert not (place / "pieces").exists()
    return {
        name: (place / name).read_bytes() for name in (SCORES, NEIGHBOURS, SIMILARITIES, QUESTIONS)
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_kills_change_no_byte(tmp_path: Path) -> None:
    folder = make_asked_folder(tmp_path / "one")
    (folder / "recipe.toml").write_text(asked_recipe(""))
    (folder / "recipe.toml").write_text(asked_recipe(nearest()))
    untouched = shutil.copytree(folder, tmp_path / "untouched")
    other = shutil.copytree(untouched, tmp_path / "other")
    started = time.monotonic()
    wanted = finish(folder)
    took = time.monotonic() - started
    rng = random.Random(0)
    num_killed = 0
    moments = sorted(rng.uniform(0, took) for _ in range(10))
    for moment in moments:
        child = launch(other)
        time.sleep(moment / 2)
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            num_killed += 1
        ended = child.wait()
        assert child.stdout is not None
        child.stdout.close()
        if ended == 0:  # nothing is left to kill: from the beginning
            assert finish(other) == wanted
            shutil.rmtree(other)
            shutil.copytree(untouched, other)
    assert num_killed >= 5
    assert finish(other) == wanted
