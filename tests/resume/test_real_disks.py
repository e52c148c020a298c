"""A disk that is really full, or really read-only: a small file system of the test's own."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewarm.errors import EnvironmentFault
from rewarm.records.run_folder import RunFolder
from rewarm.training.checkpoint import find_newest_verified
from rewarm.training.run import Ending
from tests.support.tiny_plans import make_plan, tensors_of, train_tiny

PLAN = make_plan(num_steps=20, checkpoint_every=5, keep=2)
SIZE = 512 * 1024


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place))
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def uninterrupted(tmp_path: Path) -> Path:
    train_tiny(tmp_path / "whole", PLAN)
    return tmp_path / "whole"


def verified(folder: Path) -> str:
    path = find_newest_verified(RunFolder(folder).checkpoints).path
    assert path is not None
    return path.name


def leave_room(disk: Path, num_bytes: int) -> Path:
    """Fill a disk but for so many bytes; return the file that fills it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 1024)
    os.truncate(ballast, ballast.stat().st_size - num_bytes)
    return ballast


# Enough for the records of a few steps, not for a checkpoint.
LITTLE = 12 * 1024


def test_a_full_disk(small_disk: Path, uninterrupted: Path) -> None:
    """The last verified checkpoint stays, the run ends with what to do, and then it goes on."""
    run = small_disk / "run"
    plan = make_plan(num_steps=20, checkpoint_every=5, keep=1)
    train_tiny(run, plan, until_step=7)
    ballast = leave_room(small_disk, LITTLE)
    with pytest.raises(EnvironmentFault, match=r"step 10 cannot be written") as caught:
        train_tiny(run, plan)
    assert "free some space" in str(caught.value)
    assert caught.value.exit_code == 1
    assert verified(run) == "step-00000007"
    assert list(RunFolder(run).checkpoints.glob(".tmp-*")) == []
    ballast.unlink()
    assert train_tiny(run, plan) == Ending(20, finished=True)
    assert tensors_of(run) == tensors_of(uninterrupted)


def test_an_older_checkpoint_makes_room(small_disk: Path) -> None:
    """Two are kept; where the disk refuses the third, the first goes and the save is retried."""
    run = small_disk / "run"
    train_tiny(run, PLAN, until_step=7)
    leave_room(small_disk, LITTLE)
    train_tiny(run, PLAN, until_step=10)
    kept = {path.name for path in RunFolder(run).checkpoints.glob("step-*")}
    assert kept == {"step-00000007", "step-00000010"}


def test_a_disk_that_becomes_read_only(small_disk: Path, uninterrupted: Path) -> None:
    run = small_disk / "run"
    train_tiny(run, PLAN, until_step=7)
    mount("-o", "remount,ro", str(small_disk))
    with pytest.raises(EnvironmentFault, match="writable"):
        train_tiny(run, PLAN)
    assert verified(run) == "step-00000007"
    mount("-o", "remount,rw", str(small_disk))
    assert train_tiny(run, PLAN) == Ending(20, finished=True)
    assert tensors_of(run) == tensors_of(uninterrupted)
