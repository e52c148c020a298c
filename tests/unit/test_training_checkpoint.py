"""A checkpoint exists only when it is whole, and is trusted only when every bit is."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from rewarm.artifacts import MANIFEST_NAME
from rewarm.distributed.fsdp import Root
from rewarm.errors import CheckpointError, EnvironmentFault
from rewarm.recipe.steps import OptimizerRecipe
from rewarm.training import checkpoint
from rewarm.training.checkpoint import (
    CheckpointStore,
    WriteFiles,
    checkpoint_problems,
    find_newest_verified,
    step_of,
)
from rewarm.training.optimizer import build_optimizer, trainable_parameters
from rewarm.training.state import TrainState
from tests.support.tiny_plans import make_plan, new_tiny_model, write_state


def writer(content: bytes = b"weights") -> WriteFiles:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(content)
        (folder / "state.json").write_text('{"step": 1}')

    return write


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def damage(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def make_store(folder: Path, *steps: int, keep: int = 9) -> CheckpointStore:
    store = CheckpointStore(folder, keep=keep)
    for step in steps:
        store.save(step, writer(f"weights {step}".encode()))
    return store


def test_a_saved_checkpoint_is_whole_and_found(tmp_path: Path) -> None:
    make_store(tmp_path, 5, 123, 40)
    assert names(tmp_path) == ["step-00000005", "step-00000040", "step-00000123"]
    found = find_newest_verified(tmp_path)
    assert found.path == tmp_path / "step-00000123"
    assert found.passed_over == []
    assert step_of(tmp_path / "step-00000123") == 123
    assert names(found.path) == [MANIFEST_NAME, "model.safetensors", "state.json"]


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_no_checkpoint_is_no_mistake(tmp_path: Path, make: Callable[[Path], None]) -> None:
    folder = tmp_path / "checkpoints"
    make(folder)
    assert find_newest_verified(folder) == (None, [])


def test_any_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """400 random ones over all files of a real checkpoint, each file having its share."""
    plan = make_plan()
    model = new_tiny_model()
    state = TrainState(
        Root(model), build_optimizer(trainable_parameters(model), OptimizerRecipe()), step=3
    )
    path = CheckpointStore(tmp_path, keep=1).save(
        3, lambda folder: write_state(folder, state, plan.science)
    )
    assert names(path) == [
        MANIFEST_NAME,
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    assert checkpoint_problems(path, 3) == []
    rng = random.Random(4)
    for number in range(400):
        file = path / names(path)[number % 4]
        clean = file.read_bytes()
        bit = rng.randrange(8 * len(clean))
        flipped = bytearray(clean)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        assert checkpoint_problems(path, 3), f"bit {bit} of {file.name}"
        file.write_bytes(clean)
    assert checkpoint_problems(path, 3) == []


def test_every_flipped_bit_of_a_manifest_is_noticed(tmp_path: Path) -> None:
    make_store(tmp_path, 7)
    path = tmp_path / "step-00000007"
    manifest = path / MANIFEST_NAME
    clean = manifest.read_bytes()
    for bit in range(8 * len(clean)):
        flipped = bytearray(clean)
        flipped[bit // 8] ^= 1 << bit % 8
        manifest.write_bytes(flipped)
        assert checkpoint_problems(path, 7), f"bit {bit}: {flipped[bit // 8 - 9 : bit // 8 + 9]!r}"


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped bit": (lambda p: damage(p / "model.safetensors"), "model.safetensors was altered"),
    "file missing": (lambda p: (p / "state.json").unlink(), "state.json is missing"),
    "file cut": (
        lambda p: os.truncate(p / "model.safetensors", 3),
        "model.safetensors has 3 bytes instead of 9",
    ),
    "no manifest": (lambda p: (p / MANIFEST_NAME).unlink(), f"{MANIFEST_NAME} is missing"),
    "empty manifest": (lambda p: (p / MANIFEST_NAME).write_text(""), "is damaged"),
    "foreign manifest": (lambda p: (p / MANIFEST_NAME).write_text('{"files": {}}'), "is damaged"),
    "foreign shard": (
        lambda p: (p / "model-2.safetensors").write_bytes(b"x"),
        "model-2.safetensors is foreign",
    ),
    "pickle beside it": (
        lambda p: (p / "extra.pt").write_bytes(b"\x80\x04."),
        "extra.pt is foreign",
    ),
    "another step's": (
        lambda p: shutil.copytree(p.with_name("step-00000001"), p, dirs_exist_ok=True),
        "is of step 1",
    ),
    "a file instead": (
        lambda p: p.rename(p.with_name("moved")).with_name("step-00000002").write_text("?"),
        "cannot be read",
    ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_one_is_named_and_passed_over_and_stays(tmp_path: Path, kind: str) -> None:
    make_store(tmp_path, 1, 2)
    spoil, told = DAMAGES[kind]
    spoil(tmp_path / "step-00000002")
    found = find_newest_verified(tmp_path)
    assert found.path == tmp_path / "step-00000001"
    ((path, problems),) = found.passed_over
    assert path == tmp_path / "step-00000002"
    assert told in "; ".join(problems)
    assert {"step-00000001", "step-00000002"} <= set(names(tmp_path))


def test_none_that_can_be_trusted_is_an_error_and_nothing_is_deleted(tmp_path: Path) -> None:
    make_store(tmp_path, 1, 2)
    for path in tmp_path.iterdir():
        damage(path / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        find_newest_verified(tmp_path)
    assert [Path(problem.where).name for problem in caught.value.problems] == [
        "step-00000002",
        "step-00000001",
    ]
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_the_newest_verified_ones_stay(tmp_path: Path) -> None:
    make_store(tmp_path, *range(1, 7), keep=2)
    assert names(tmp_path) == ["step-00000005", "step-00000006"]


def test_damaged_ones_do_not_count_among_those_that_stay(tmp_path: Path) -> None:
    make_store(tmp_path, 1, 2, 3)
    damage(tmp_path / "step-00000002" / "model.safetensors")
    damage(tmp_path / "step-00000003" / "model.safetensors")
    store = CheckpointStore(tmp_path, keep=2)
    assert store.find_newest_verified().path == tmp_path / "step-00000001"
    store.save(4, writer())
    assert names(tmp_path) == [f"step-{step:08d}" for step in (1, 2, 3, 4)]
    store.save(5, writer())
    assert names(tmp_path) == ["step-00000004", "step-00000005"]


def test_milestones_stay_for_good(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2, keep_every=4)
    for step in range(1, 12):
        store.save(step, writer())
    assert names(tmp_path) == [f"step-{step:08d}" for step in (4, 8, 10, 11)]


def test_what_stands_in_the_way_is_set_aside(tmp_path: Path) -> None:
    """A damaged checkpoint is passed over; the run then reaches the same step again."""
    store = make_store(tmp_path, 1, 2)
    for _ in range(2):
        damage(tmp_path / "step-00000002" / "model.safetensors")
        store.save(2, writer(b"again"))
    assert names(tmp_path) == [
        "step-00000001",
        "step-00000002",
        "step-00000002.set-aside-1",
        "step-00000002.set-aside-2",
    ]
    assert find_newest_verified(tmp_path).path == tmp_path / "step-00000002"


def test_folders_of_dead_processes_are_removed_at_the_start(tmp_path: Path) -> None:
    store = make_store(tmp_path, 1)
    (tmp_path / ".tmp-dead").mkdir()
    (tmp_path / ".tmp-dead" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("a person's")
    assert store.remove_leftovers() == [tmp_path / ".tmp-dead"]
    assert names(tmp_path) == ["notes.txt", "step-00000001"]


class Full:
    """A disk that is full for the first so many saves."""

    def __init__(self, num_failures: int, folder: Path) -> None:
        self.left = num_failures
        self.folder = folder
        self.seen: list[list[str]] = []

    def __call__(self, folder: Path) -> None:
        self.seen.append([name for name in names(self.folder) if name.startswith("step")])
        writer()(folder)
        if self.left > 0:
            self.left -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_made_room_on_and_tried_again(tmp_path: Path) -> None:
    make_store(tmp_path, 1, 2, 3)
    damage(tmp_path / "step-00000003" / "model.safetensors")
    write = Full(1, tmp_path)
    CheckpointStore(tmp_path, keep=9).save(4, write)
    # The damaged one is no reason to delete the newest that can be trusted.
    assert write.seen[1] == ["step-00000002", "step-00000003"]
    assert names(tmp_path) == ["step-00000002", "step-00000003", "step-00000004"]


def test_a_disk_that_stays_full_leaves_what_was_verified(tmp_path: Path) -> None:
    store = make_store(tmp_path, 1, 2)
    with pytest.raises(EnvironmentFault, match="checkpoint of step 3 cannot be written") as caught:
        store.save(3, Full(2, tmp_path))
    assert "No space left on device" in str(caught.value)
    assert caught.value.exit_code == 1
    assert names(tmp_path) == ["step-00000002"]
    assert find_newest_verified(tmp_path).path == tmp_path / "step-00000002"


def test_a_real_limit_on_what_is_written(tmp_path: Path) -> None:
    """safetensors' own writer meets the limit; what it began is gone afterwards."""
    store = make_store(tmp_path, 1)
    model = nn.Linear(1000, 1000)  # 4 MB
    state = TrainState(
        Root(model), build_optimizer(trainable_parameters(model), OptimizerRecipe()), step=2
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(EnvironmentFault, match=r"model\.safetensors.*File too large"):
            store.save(2, lambda folder: write_state(folder, state, make_plan().science))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["step-00000001"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="Not a directory"):
        make_store(tmp_path / "file" / "checkpoints", 1)


def test_a_disk_that_gives_back_other_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written is read back before the older ones are deleted on its strength."""
    store = make_store(tmp_path, 1, keep=1)
    monkeypatch.setattr(checkpoint, "_drop_from_page_cache", damage)
    with pytest.raises(EnvironmentFault, match="gives back other bytes"):
        store.save(2, writer())
    assert names(tmp_path) == ["step-00000001"]
    assert checkpoint_problems(tmp_path / "step-00000001", 1) == []


def test_an_interrupt_while_saving_leaves_nothing_behind(tmp_path: Path) -> None:
    store = make_store(tmp_path, 1)

    def interrupted(folder: Path) -> None:
        writer()(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.save(2, interrupted)
    assert names(tmp_path) == ["step-00000001"]


# Dies in the n-th call that touches the disk while it saves step 3 with keep=2, for every n there
# is; what is left is looked at by the parent. os._exit is as sudden as SIGKILL.
DYING = """
import itertools, json, os, pathlib, shutil, sys
from rewarm.training.checkpoint import CheckpointStore, checkpoint_problems, find_newest_verified

root = pathlib.Path(sys.argv[1])
calls = ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir", "link", "chmod", "open")

def write(folder):
    (folder / "a.bin").write_bytes(b"a" * 99)
    (folder / "b.json").write_text("{}")

def die_at(n):
    count = itertools.count(1)
    for name in calls:
        def patched(*args, _real=getattr(os, name), **kwargs):
            if next(count) == n:
                os._exit(9)
            return _real(*args, **kwargs)
        setattr(os, name, patched)

seen = []
for n in itertools.count(1):
    folder = root / str(n)
    store = CheckpointStore(folder, keep=2)
    store.save(1, write)
    store.save(2, write)
    child = os.fork()
    if not child:
        die_at(n)
        store.save(3, write)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found = find_newest_verified(folder)
    CheckpointStore(folder, keep=2).remove_leftovers()
    left = sorted(path.name for path in folder.iterdir())
    seen.append([code, found.path.name, len(found.passed_over), left])
    shutil.rmtree(folder)
    if code == 0:
        break
print(json.dumps(seen))
"""


def test_death_at_any_call_leaves_the_old_or_the_new_one_whole(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    outcomes = json.loads(done.stdout)
    first, second, third = (f"step-{step:08d}" for step in (1, 2, 3))
    assert len(outcomes) > 20
    assert [code for code, *_ in outcomes] == [9] * (len(outcomes) - 1) + [0]
    newest = [name for _, name, *_ in outcomes]
    assert set(newest) == {second, third}
    assert newest == sorted(newest), "once the new one exists it stays"
    for _, name, num_passed_over, left in outcomes:
        assert num_passed_over == 0
        whole = [first, second, third] if name == third else [first, second]
        assert left == whole or (name == third and left == [second, third])
    assert outcomes[-1] == [0, third, 0, [second, third]]


def test_a_checkpoint_is_readable_by_others(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    state = TrainState(Root(model), build_optimizer(trainable_parameters(model), OptimizerRecipe()))
    path = CheckpointStore(tmp_path, keep=1).save(
        1, lambda folder: write_state(folder, state, make_plan().science)
    )
    assert path.stat().st_mode & 0o777 == 0o755
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o644}


def test_everything_is_flushed_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename that reaches the disk before the data would be a whole name on torn content."""
    done: list[tuple[str, str]] = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def note_fsync(descriptor: int) -> None:
        done.append(("flush", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def note_move(move: Callable[..., None]) -> Callable[..., None]:
        def moved(source: str | Path, target: str | Path) -> None:
            done.append(("name", Path(target).name))
            move(source, target)

        return moved

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_move(replace))
    monkeypatch.setattr(os, "rename", note_move(rename))
    folder = tmp_path / "checkpoints"
    make_store(folder, 7)
    named = done.index(("name", "step-00000007"))
    flushed_before = {name for what, name in done[:named] if what == "flush"}
    assert {"model.safetensors", "state.json"} <= flushed_before
    assert ("flush", "checkpoints") in done[named:]
