"""Ranks that die, hang or fail: the others leave, one of them tells, a restart goes on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from rewarm.records.run_folder import RunFolder
from rewarm.training.checkpoint import checkpoint_problems, find_newest_verified, step_of
from tests.support.rank_jobs import PLAN, SAVING, losses_of, train_llama
from tests.support.ranks import ROOT, free_port, run_ranks, start_ranks, wait_for
from tests.support.tiny_plans import tensors_of

JOBS = "tests.support.rank_jobs"


def flip_bits(path: Path, *, step: int, number: int) -> None:
    """Flip single bits of a checkpoint, each file having its share: every one is noticed."""
    rng = random.Random(5)
    files = sorted(path.iterdir())
    assert len(files) == 5
    for index in range(number):
        file = files[index % len(files)]
        clean = file.read_bytes()
        bit = rng.randrange(8 * len(clean))
        flipped = bytearray(clean)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        assert checkpoint_problems(path, step), f"bit {bit} of {file.name}"
        file.write_bytes(clean)
    assert checkpoint_problems(path, step) == []


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """The files that two ranks leave which nothing disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    run_ranks(f"{JOBS}:train", str(folder), "12", num_ranks=2)
    return tensors_of(folder)


def ended_after(folder: Path) -> int:
    return max(int(path.name[5:]) for path in RunFolder(folder).checkpoints.glob("step-*"))


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGKILL, id="dead", marks=pytest.mark.slow),
        pytest.param(signal.SIGSTOP, id="stopped"),
    ],
)
def test_the_others_leave_when_a_rank_is_lost(tmp_path: Path, number: signal.Signals) -> None:
    started = start_ranks(
        f"{JOBS}:train_and_strike", str(tmp_path), str(int(number)), "4", num_ranks=2
    )
    began = time.monotonic()
    main, lost = started
    try:
        main[0].wait(60)
    finally:
        lost[0].kill()
    ended = wait_for(started)
    assert ended[0].code == 1, ended[0].output
    assert "rank 0 lost another rank" in ended[0].output
    assert "the same command resumes" in ended[0].output
    assert "Traceback" not in ended[0].output
    assert time.monotonic() - began < 60
    assert ended_after(tmp_path) == 4
    # What is left is whole, and one process goes on with it: the same samples, the same losses.
    train_llama(tmp_path)
    train_llama(tmp_path / "alone")
    found, expected = (RunFolder(path).steps() for path in (tmp_path, tmp_path / "alone"))
    assert [(r.step, r.samples) for r in found] == [(r.step, r.samples) for r in expected]
    assert losses_of(tmp_path) == pytest.approx(losses_of(tmp_path / "alone"), rel=1e-12)


def test_what_one_rank_meets_alone_is_told_once_and_ends_all(tmp_path: Path) -> None:
    ended = wait_for(start_ranks(f"{JOBS}:train_on_bad_text", str(tmp_path), num_ranks=2))
    told = [end.output.count("the model's vocabulary has") for end in ended]
    assert told == [0, 1], ended
    assert ended[1].code == 2
    # It left when the other did, not when its patience ended.
    assert "Timed out" not in ended[0].output
    assert ended[0].code in (1, 2)


def test_what_is_not_finite_on_one_rank_is_left_out_on_all(tmp_path: Path) -> None:
    run_ranks(f"{JOBS}:train_past_a_fault", str(tmp_path), num_ranks=2)
    assert [record.step for record in RunFolder(tmp_path).steps()] == [*range(7), *range(8, 12)]
    (skipped,) = [event for event in RunFolder(tmp_path).events() if event.kind == "skip"]
    assert skipped.message == "step 7: the loss is inf; step 7 left out"


def test_ranks_resume_to_the_bit(tmp_path: Path, uninterrupted: Mapping[str, bytes]) -> None:
    """Two ranks stopped after step 5 and gone on with, against two that were not."""
    run_ranks(f"{JOBS}:train", str(tmp_path / "parts"), "5", num_ranks=2)
    run_ranks(f"{JOBS}:train", str(tmp_path / "parts"), "12", num_ranks=2)
    whole, parts = uninterrupted, tensors_of(tmp_path / "parts")
    # DCP's own index names the folder that it was written to.
    assert [name for name in whole if whole[name] != parts.get(name)] == [".metadata"]
    assert whole.keys() == parts.keys()
    flip_bits(RunFolder(tmp_path / "parts").checkpoints / "step-00000012", step=12, number=400)
    assert {name for name in whole if name.endswith(".distcp")} == {"__0_0.distcp", "__1_0.distcp"}


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_ranks_go_on_from_a_mirror_to_the_bit(
    tmp_path: Path, uninterrupted: Mapping[str, bytes]
) -> None:
    """The main rank restores, for longer than any rank waits for another; the others see it."""
    url = f"file://{tmp_path}/mirror"
    run_ranks(f"{JOBS}:train_mirrored", str(tmp_path / "lost"), url, "6", "0", "30", num_ranks=2)
    shutil.rmtree(tmp_path / "lost")
    run_ranks(f"{JOBS}:train_mirrored", str(tmp_path / "new"), url, "12", "0.6", "4", num_ranks=2)
    events = RunFolder(tmp_path / "new").events()
    assert [event.message for event in events if event.kind == "resume"] == [
        "resumed from step-00000006"
    ]
    assert [record.step for record in RunFolder(tmp_path / "new").steps()] == list(range(12))
    new = tensors_of(tmp_path / "new")
    assert [name for name in new if new[name] != uninterrupted.get(name)] == [".metadata"]
    assert new.keys() == uninterrupted.keys()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_in_the_midst_of_saves_change_no_bit(tmp_path: Path) -> None:
    """Both ranks are killed at random moments, nearly all of them within a save."""
    rng = random.Random(3)
    run_ranks(f"{JOBS}:train_saving", str(tmp_path / "whole"), num_ranks=2)
    folder = RunFolder(tmp_path / "killed").checkpoints
    reached = 0
    for _ in range(8):
        started = start_ranks(f"{JOBS}:train_saving", str(tmp_path / "killed"), num_ranks=2)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (folder / f"step-{reached + 2:08d}").exists():
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.4))
        for process, _ in started:
            process.kill()
        wait_for(started)
        found = find_newest_verified(folder)
        assert found.path is not None
        assert found.passed_over == []
        assert step_of(found.path) >= reached + 2
        reached = step_of(found.path)
        if reached > SAVING.science.num_steps - 4:
            break
    run_ranks(f"{JOBS}:train_saving", str(tmp_path / "killed"), num_ranks=2)
    whole, killed = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "killed")
    assert [name for name in whole if whole[name] != killed.get(name)] == [".metadata"]


@pytest.mark.slow
def test_torchrun_restarts_a_run_whose_rank_was_killed(tmp_path: Path) -> None:
    """The first attempt loses rank 1 after step 6; the second goes on from step 4."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += [
        "--master-port",
        str(free_port()),
        "--max-restarts",
        "1",
        "-m",
        "tests.support.ranks",
    ]
    ended = subprocess.run(
        [*command, f"{JOBS}:train_and_die_once", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    events = RunFolder(tmp_path).events()
    assert [event.kind for event in events if event.kind != "checkpoint"] == [
        "launch",
        "resume",
        "finish",
    ]
    assert ended_after(tmp_path) == PLAN.science.num_steps
