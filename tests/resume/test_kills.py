"""SIGKILL at random moments, inside a save too; then the same command: the same bits."""

from __future__ import annotations

import hashlib
import os
import random
import select
import signal
import time
from pathlib import Path

import pytest

from rewarm.cli import main
from rewarm.records.run_folder import RunFolder
from tests.support.python import Python
from tests.support.road import make_reader_folder

REPOSITORY = Path(__file__).resolve().parents[2]
NUM_STEPS = 36

# Flushing is made slow, so that a good part of the run's time is spent inside of saves.
CHILD = """
import sys, time
import rewarm.training.checkpoint as room
flush = room._fsync_file
def slow(path):
    time.sleep(0.03)
    flush(path)
room._fsync_file = slow
import rewarm.training.loop
from rewarm.cli import main
import rewarm.stages.train
print("ready", flush=True)
sys.exit(main(["train", "recipe.toml"]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_reader_folder(tmp_path_factory.mktemp("kills"))
    flags = "--base my-model --text my-text --replay my-old-text --budget 18432 --peak-lr 1e-2"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["init", "recipe.toml", *flags.split()]) == 0
        text = (folder / "recipe.toml").read_text()
        text = text.replace("tokens = 128 ", "tokens = 512 ")
        text += "[checkpoints]\nevery_steps = 3\n[evaluation]\nevery_steps = 36\n"
        (folder / "recipe.toml").write_text(text + "[training]\nnum_threads = 1\n")
        assert main(["prepare", "recipe.toml"]) == 0
    return folder


def launch(folder: Path) -> Python:
    child = Python(["-c", CHILD], cwd=folder)
    while b"ready" not in child.stdout.readline():
        assert child.poll() is None, "the child ended before it began"
    return child


def drain(child: Python) -> None:
    """Read what the child says while it runs, so that it never waits for us."""
    while select.select([child.stdout], [], [], 0)[0] and child.stdout.read1(65536):  # type: ignore[attr-defined]
        pass


def steps_done(run: RunFolder) -> int:
    return len(run.steps_log.read_bytes().splitlines()) if run.steps_log.exists() else 0


def final_hashes(run: RunFolder) -> dict[str, str]:
    newest = max(run.checkpoints.glob("step-*"))
    assert newest.name == f"step-{NUM_STEPS:08d}"
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in newest.glob("*.safetensors")
    }


def train_with_kills(folder: Path, num_kills: int, seed: int) -> RunFolder:
    """Kill the run at `num_kills` random moments, each after new progress; then let it end."""
    run = RunFolder(folder / "runs" / "recipe")
    rng = random.Random(seed)
    for kill in range(num_kills):
        child = launch(folder)
        before = steps_done(run)
        wanted = before + 1 + rng.randrange(NUM_STEPS // num_kills)
        deadline = time.monotonic() + 60
        while steps_done(run) < wanted and time.monotonic() < deadline and child.poll() is None:
            drain(child)
            time.sleep(0.002)
        time.sleep(rng.random() * 0.15)
        assert child.poll() is None, f"the run ended before kill {kill}"
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        child.stdout.close()
    child = launch(folder)
    output, _ = child.communicate(timeout=120)
    assert child.returncode == 0, output.decode()
    assert b"resumed from step-" in output
    return run


def reference(folder: Path) -> dict[str, str]:
    run = RunFolder(folder / "runs" / "recipe")
    child = launch(folder)
    output, _ = child.communicate(timeout=120)
    assert child.returncode == 0, output.decode()
    hashes = final_hashes(run)
    os.rename(run.path, folder / "runs" / "uninterrupted")
    return hashes


def check(folder: Path, num_kills: int, seed: int) -> None:
    expected = reference(folder)
    run = train_with_kills(folder, num_kills, seed)
    assert final_hashes(run) == expected
    kept = {record.step: record for record in run.steps()}
    clean = {r.step: r for r in RunFolder(folder / "runs" / "uninterrupted").steps()}
    assert kept.keys() == clean.keys() == set(range(NUM_STEPS))
    for step, record in kept.items():
        assert (record.loss, record.lr, record.samples) == (
            clean[step].loss,
            clean[step].lr,
            clean[step].samples,
        )
    assert {(r.step, r.domain, r.value) for r in run.evals()} == {
        (r.step, r.domain, r.value) for r in RunFolder(folder / "runs" / "uninterrupted").evals()
    }


@pytest.mark.timeout(280)
def test_two_kills_change_no_bit(folder: Path) -> None:
    check(folder, 2, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_kills_change_no_bit(folder: Path) -> None:
    for name in ("recipe", "uninterrupted"):
        if (folder / "runs" / name).exists():
            os.rename(folder / "runs" / name, folder / "runs" / f"earlier-{name}")
    check(folder, 10, seed=2)


def test_one_flipped_bit_is_named_and_passed_over(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    arguments = ["train", "recipe.toml", "-o", "name=flip", "--until-step"]
    assert main([*arguments, "6"]) == 0
    run = RunFolder(folder / "runs" / "flip")
    newest = run.checkpoints / "step-00000006" / "model.safetensors"
    raw = bytearray(newest.read_bytes())
    raw[len(raw) // 2] ^= 0b100
    newest.write_bytes(raw)
    capsys.readouterr()
    assert main([*arguments, "9"]) == 0
    told = capsys.readouterr().out
    assert "step-00000006 is damaged: model.safetensors was altered" in told
    assert "resumed from step-00000003" in told
    assert [event.kind for event in run.events()].count("passed_over") == 1
    for checkpoint in run.checkpoints.glob("step-*"):
        weights = checkpoint / "model.safetensors"
        damaged = bytearray(weights.read_bytes())
        damaged[-1] ^= 1
        weights.write_bytes(damaged)
    before = sorted(path.name for path in run.checkpoints.iterdir())
    assert main([*arguments, "9"]) == 2
    assert "step-" in capsys.readouterr().err
    assert sorted(path.name for path in run.checkpoints.iterdir()) == before
