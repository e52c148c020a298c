"""SIGKILL at random moments while the base makes text up; then the same command: the same bytes."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.support.python import Python
from tests.support.rehearsals import contents, make_rehearsal_folder, rehearsal_in

# Batches, parts and the shard are made slowly, so that kills land in the midst of each.
CHILD = """
import os, sys, time
from rewarm.retention import batch_maker, parts, rehearsal
from rewarm import artifacts

def slowed(module, name, seconds):
    act = getattr(module, name)
    def slow(*arguments, **more):
        time.sleep(seconds)
        return act(*arguments, **more)
    setattr(module, name, slow)

slowed(batch_maker, "sample_batch", 0.05)
slowed(artifacts.os, "fsync", 0.01)
slowed(rehearsal.os, "replace", 0.02)
slowed(rehearsal, "seal", 0.05)
from rewarm.cli import main
import rewarm.stages.rehearse
print("ready", flush=True)
sys.exit(main(["rehearse", "recipe.toml"]))
"""


def launch(folder: Path) -> Python:
    child = Python(["-c", CHILD], cwd=folder)
    assert child.stdout.readline() == b"ready\n"
    return child


def finish(folder: Path) -> bytes:
    child = launch(folder)
    output, _ = child.communicate(timeout=200)
    assert child.returncode == 0, output.decode()
    return output


def _num_parts(place: Path) -> int:
    try:
        return len(list(place.glob("parts/*.npz")))
    except FileNotFoundError:  # taken away while it was listed: the child is at its end
        return 0


def _wait_for_parts(child: Python, place: Path, number: int) -> None:
    """Return once so many are kept, or there is nothing left to wait for."""
    while child.poll() is None and _num_parts(place) < number:
        time.sleep(0.01)


def check(folder: Path, num_kills: int, seed: int) -> None:
    make_rehearsal_folder(folder, tokens=3000, top_k_logits=2)
    place = rehearsal_in(folder).folder
    finish(folder)
    whole = contents(place)
    assert {"shard-00000.bin", "shard-00000.top_k.logp.npy"} <= whole.keys()
    os.rename(place, folder / "uninterrupted")
    rng = random.Random(seed)
    num_killed, num_done, parts = 0, 0, []
    while num_killed < num_kills:
        child = launch(folder)
        # By what is done and not by the clock: a busy machine is no faster to begin.
        _wait_for_parts(child, place, _num_parts(place) + (not num_killed) + rng.randrange(3))
        time.sleep(rng.random() * 0.2)
        child.send_signal(signal.SIGKILL)
        if child.wait() == -signal.SIGKILL:
            num_killed += 1
            parts.append(_num_parts(place))
        else:  # it was done: begin anew, so that every kill meets work
            assert contents(place) == whole
            num_done += 1
            os.rename(place, folder / f"done-before-a-kill-{num_done}")
        child.stdout.close()
    assert max(parts) > 0, "no kill met work that was kept"
    finish(folder)
    assert contents(place) == whole
    assert sorted(path.name for path in place.iterdir()) == sorted(
        path.name for path in (folder / "uninterrupted").iterdir()
    ), "nothing is left over"


@pytest.mark.timeout(280)
def test_a_kill_changes_no_byte(tmp_path: Path) -> None:
    check(tmp_path, 1, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_kills_change_no_byte(tmp_path: Path) -> None:
    check(tmp_path, 20, seed=2)
