"""Checkpoints on a mirror: there when they are whole, brought back bit by bit, in nobody's way."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.registry import known_implementations

from rewarm.artifacts import MANIFEST_NAME, write_atomically
from rewarm.errors import CheckpointError, EnvironmentFault, RunFolderError, masked
from rewarm.planning.amendments import read_amendments
from rewarm.planning.plan import Plan
from rewarm.recipe.steps import GuardRecipe
from rewarm.records.facts import StepRecord
from rewarm.records.run_folder import RunFolder
from rewarm.training.checkpoint import CheckpointStore, find_newest_verified, step_of
from rewarm.training.mirror import restore, uploader
from rewarm.training.mirror.contents import Mirror
from rewarm.training.mirror.remote import RemoteError, RemoteFolder, url_problem
from rewarm.training.run import Ending
from rewarm.training.state import TrainState
from tests.support.remote_files import Hanging, all_files, fault
from tests.support.tiny_plans import make_plan, noisy_evaluation, tensors_of, train_tiny
from tests.unit.test_training_guard import Faulty

NUM_STEPS = 20
EVALUATED = (0, 4, 10, 20)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploader, "RETRY_FIRST_S", 0.02)
    monkeypatch.setattr("rewarm.training.mirror.contents._RETRY_AFTER_S", (0.01, 0.01))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    train_tiny(folder, make_plan(num_steps=NUM_STEPS))
    return tensors_of(folder)


@pytest.fixture(params=["memory", "file", "testfs"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}://{tmp_path}/mirror"


@pytest.fixture
def mirror_url(tmp_path: Path) -> str:
    return f"testfs://{tmp_path}/mirror"


def plan_with(url: str, *, every: int = 5, keep: int = 2, wait_s: float = 30.0) -> Plan:
    return make_plan(
        num_steps=NUM_STEPS,
        checkpoint_every=every,
        keep=keep,
        evaluation_steps=EVALUATED,
        mirror=url,
        mirror_wait_s=wait_s,
    )


def mirror_of(url: str) -> Mirror:
    return Mirror(RemoteFolder(url), plan_with(url))


def whole_steps(url: str) -> list[int]:
    return [manifest.step for manifest in mirror_of(url).look().whole]


def messages(folder: Path, *kinds: str) -> list[str]:
    return [event.message for event in RunFolder(folder).events() if event.kind in kinds]


def train(folder: Path, plan: Plan, **changes: Any) -> Ending:
    return train_tiny(folder, plan, evaluator=noisy_evaluation, **changes)


def overwrite(url: str, name: str, change: Callable[[bytes], bytes]) -> None:
    files, root = fsspec.url_to_fs(url)
    path = f"{root.rstrip('/')}/{name}"
    content = change(files.cat_file(path))
    files.pipe_file(path, content)


def flipped(content: bytes) -> bytes:
    raw = bytearray(content)
    raw[len(raw) // 2] ^= 4
    return bytes(raw)


class At:
    """A hook that does something after a given step."""

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self.step = step
        self.action = action

    def before_train(self, state: TrainState, /) -> None: ...

    def after_step(self, state: TrainState, record: StepRecord | None, /) -> None:
        if state.step == self.step:
            self.action()

    def on_stop(self, state: TrainState, /) -> None: ...


# --- an empty machine ----------------------------------------------------------------------------


def test_an_empty_machine_goes_on_to_the_same_bits(
    tmp_path: Path, url: str, uninterrupted: Mapping[str, bytes]
) -> None:
    plan = plan_with(url)
    train(tmp_path / "lost", plan, until_step=12)
    before = RunFolder(tmp_path / "lost").steps(), RunFolder(tmp_path / "lost").evals()
    placement = RunFolder(tmp_path / "lost").placement.read_bytes()
    shutil.rmtree(tmp_path / "lost")
    assert train(tmp_path / "new", plan) == Ending(NUM_STEPS, finished=True)
    run = RunFolder(tmp_path / "new")
    assert tensors_of(tmp_path / "new") == uninterrupted
    assert run.steps()[:12] == before[0]
    assert [record.step for record in run.steps()] == list(range(NUM_STEPS))
    assert run.evals()[:3] == before[1]
    assert [record.step for record in run.evals()] == list(EVALUATED)
    assert messages(tmp_path / "new", "resume") == ["resumed from step-00000012"]
    (restored,) = messages(tmp_path / "new", "mirror")
    assert restored.startswith("restored step-00000012 (")
    assert run.placement.read_bytes() == placement
    assert whole_steps(url) == [20, 15]


def test_a_finished_run_comes_back_as_it_was(
    tmp_path: Path, url: str, uninterrupted: Mapping[str, bytes]
) -> None:
    plan = plan_with(url)
    train(tmp_path / "lost", plan)
    assert train(tmp_path / "new", plan) == Ending(NUM_STEPS, finished=True)
    assert tensors_of(tmp_path / "new") == uninterrupted
    lost, new = RunFolder(tmp_path / "lost"), RunFolder(tmp_path / "new")
    assert new.steps() == lost.steps()
    assert new.evals() == lost.evals()


def test_an_older_run_folder_is_brought_up_to_its_mirror(
    tmp_path: Path, mirror_url: str, uninterrupted: Mapping[str, bytes]
) -> None:
    """Two machines in turn: the first one comes back to what the second has done."""
    plan = plan_with(mirror_url)
    train(tmp_path / "one", plan, until_step=7)
    train(tmp_path / "two", plan, until_step=12)
    train(tmp_path / "one", plan)
    assert messages(tmp_path / "one", "resume") == [
        "resumed from step-00000007",
        "resumed from step-00000012",
    ]
    assert tensors_of(tmp_path / "one") == uninterrupted
    run = RunFolder(tmp_path / "one")
    assert [record.step for record in run.steps()] == list(range(NUM_STEPS))
    lines = run.events_log.read_text().splitlines()
    assert len(lines) == len(set(lines))
    times = [event.time for event in run.events()]
    assert times == sorted(times)


def test_a_run_folder_that_is_ahead_is_what_counts(
    tmp_path: Path, mirror_url: str, uninterrupted: Mapping[str, bytes]
) -> None:
    """What was saved without the mirror is uploaded by the next launch with it."""
    train(tmp_path, plan_with(mirror_url), until_step=7)
    train(tmp_path, make_plan(num_steps=NUM_STEPS, evaluation_steps=EVALUATED), until_step=13)
    train(tmp_path, plan_with(mirror_url), until_step=14)
    assert messages(tmp_path, "resume")[-1] == "resumed from step-00000013"
    assert whole_steps(mirror_url) == [14, 13]
    train(tmp_path, plan_with(mirror_url))
    assert tensors_of(tmp_path) == uninterrupted


@pytest.mark.parametrize("steps", [(12,), (10, 12)], ids=["the newest", "all"])
def test_what_is_damaged_here_comes_back_from_the_mirror(
    tmp_path: Path, mirror_url: str, uninterrupted: Mapping[str, bytes], steps: tuple[int, ...]
) -> None:
    plan = plan_with(mirror_url)
    train(tmp_path, plan, until_step=12)
    here = RunFolder(tmp_path).checkpoints
    for step in steps:
        weights = here / f"step-{step:08d}" / "model.safetensors"
        weights.write_bytes(flipped(weights.read_bytes()))
    train(tmp_path, plan, until_step=13)
    assert messages(tmp_path, "resume") == ["resumed from step-00000012"]
    assert (here / "step-00000012.set-aside-1").is_dir(), "nothing is deleted"
    train(tmp_path, plan)
    assert tensors_of(tmp_path) == uninterrupted


def test_what_lies_there_can_be_put_together_by_hand(tmp_path: Path, mirror_url: str) -> None:
    """As docs/scale.md says: run/ is a run folder, checkpoint/ one of its checkpoints."""
    plan = plan_with(mirror_url)
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.plan.write_text(plan.model_dump_json())
    train(run.path, plan, until_step=7)
    by_hand = RunFolder(tmp_path / "by hand")
    for name, content in all_files(f"{mirror_url}/mirrored-step-00000007").items():
        place = name.replace("run/", "").replace("checkpoint/", "checkpoints/step-00000007/")
        if "/" in name:
            (by_hand.path / place).parent.mkdir(parents=True, exist_ok=True)
            (by_hand.path / place).write_bytes(content)
    assert find_newest_verified(by_hand.checkpoints).path is not None
    assert by_hand.plan.read_bytes() == run.plan.read_bytes()
    assert by_hand.steps() == run.steps()
    assert by_hand.evals() == run.evals()


def test_a_restore_that_dies_leaves_no_checkpoint_and_is_done_again(
    tmp_path: Path, mirror_url: str, uninterrupted: Mapping[str, bytes]
) -> None:
    """At whatever file: what is renamed into place is whole."""
    plan = plan_with(mirror_url)
    train(tmp_path / "lost", plan, until_step=7)
    num_reads = 0

    class Dead(BaseException): ...

    def count(operation: str, path: str) -> None:
        nonlocal num_reads
        num_reads += operation == "read"

    with fault(count):
        train(tmp_path / "whole", plan, until_step=7)
    assert num_reads > 8
    run = RunFolder(tmp_path / "new")
    for last in range(num_reads - 3):
        left = iter(range(last))

        def die(operation: str, path: str, left: Iterator[int] = left) -> None:
            if operation == "read" and next(left, None) is None:
                raise Dead

        with fault(die), pytest.raises(Dead):
            train(run.path, plan, until_step=7)
        assert find_newest_verified(run.checkpoints).path is None
    train(run.path, plan)
    assert tensors_of(run.path) == uninterrupted
    assert [record.step for record in run.evals()] == list(EVALUATED)


@pytest.mark.parametrize("last", range(4))
def test_a_checkpoint_is_never_there_without_its_records(
    tmp_path: Path, mirror_url: str, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    """Death at the writing of each: the next launch restores them all."""
    plan = plan_with(mirror_url)
    train(tmp_path / "lost", plan, until_step=7)
    run = RunFolder(tmp_path / "new")
    left = iter(range(last))

    class Dead(BaseException): ...

    def die(path: Path, content: bytes) -> None:
        if next(left, None) is None:
            raise Dead
        write_atomically(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(restore, "write_atomically", die)
        with pytest.raises(Dead):
            train(run.path, plan, until_step=7)
    assert find_newest_verified(run.checkpoints).path is None
    train(run.path, plan, until_step=8)
    assert messages(run.path, "resume") == ["resumed from step-00000007"]
    assert [record.step for record in run.steps()] == list(range(8))
    assert [record.step for record in run.evals()] == [0, 4]


# --- damage --------------------------------------------------------------------------------------

NEWEST = "mirrored-step-00000012"
DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "weights": ("checkpoint/model.safetensors", flipped, "model.safetensors was altered"),
    "cut": ("checkpoint/model.safetensors", lambda raw: raw[:-1], "bytes instead of"),
    "state": ("checkpoint/state.json", flipped, "state.json was altered"),
    "records": ("run/metrics/steps.jsonl", flipped, "steps.jsonl was altered"),
    "seal": (f"checkpoint/{MANIFEST_NAME}", flipped, f"{MANIFEST_NAME} was altered"),
    "manifest": (MANIFEST_NAME, lambda raw: raw[:99], f"{MANIFEST_NAME} is damaged"),
    "step": (
        MANIFEST_NAME,
        lambda raw: raw.replace(b'"step":12', b'"step":13'),
        f"{MANIFEST_NAME} is of step 13",
    ),
    "outside": (
        MANIFEST_NAME,
        lambda raw: raw.replace(b"run/plan.json", b"run/../../..").replace(
            b"run/placement.json", b"run/../placement.x"
        ),
        "cannot be the name of a mirrored file",
    ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_one_is_passed_over_and_the_one_before_is_used(
    tmp_path: Path, mirror_url: str, uninterrupted: Mapping[str, bytes], kind: str
) -> None:
    plan = plan_with(mirror_url)
    train(tmp_path / "lost", plan, until_step=12)
    name, change, told = DAMAGES[kind]
    overwrite(mirror_url, f"{NEWEST}/{name}", change)
    train(tmp_path / "new", plan)
    (message,) = messages(tmp_path / "new", "passed_over")
    assert message.startswith("step-00000012 on testfs://")
    assert told in message
    assert messages(tmp_path / "new", "resume") == ["resumed from step-00000010"]
    assert tensors_of(tmp_path / "new") == uninterrupted
    assert list(tmp_path.rglob("placement.x")) == []


def test_a_missing_file_is_damage_too(tmp_path: Path, mirror_url: str) -> None:
    plan = plan_with(mirror_url)
    train(tmp_path / "lost", plan, until_step=12)
    files, root = fsspec.url_to_fs(mirror_url)
    files.rm(f"{root}/{NEWEST}/checkpoint/optimizer.safetensors")
    train(tmp_path / "new", plan, until_step=13)
    (message,) = messages(tmp_path / "new", "passed_over")
    assert "optimizer.safetensors is missing" in message


def test_what_was_damaged_is_uploaded_again(tmp_path: Path, mirror_url: str) -> None:
    """The run reaches the step again, with the same bits; that it is there is not believed."""
    plan = plan_with(mirror_url, every=4)
    train(tmp_path / "lost", plan, until_step=12)
    overwrite(mirror_url, f"{NEWEST}/checkpoint/model.safetensors", flipped)
    train(tmp_path / "new", plan, until_step=12)
    assert messages(tmp_path / "new", "resume") == ["resumed from step-00000008"]
    mirror = mirror_of(mirror_url)
    assert whole_steps(mirror_url)[0] == 12
    for manifest in mirror.look().whole:
        (tmp_path / str(manifest.step)).mkdir()
        mirror.fetch(manifest, tmp_path / str(manifest.step), lambda: None)


def test_none_that_can_be_restored_is_an_error_and_nothing_is_deleted(
    tmp_path: Path, mirror_url: str
) -> None:
    plan = plan_with(mirror_url)
    train(tmp_path / "lost", plan, until_step=12)
    for step in (10, 12):
        overwrite(mirror_url, f"mirrored-step-{step:08d}/checkpoint/state.json", flipped)
    before = all_files(mirror_url)
    with pytest.raises(CheckpointError, match=r"state\.json was altered") as caught:
        train(tmp_path / "new", plan)
    assert len(caught.value.problems) == 2
    after = all_files(mirror_url)
    assert set(before.values()) <= set(after.values())
    assert RunFolder(tmp_path / "new").steps() == []


def test_a_checkpoint_that_was_altered_here_is_not_uploaded(
    tmp_path: Path, mirror_url: str, uninterrupted: Mapping[str, bytes]
) -> None:
    """The hash is taken of the bytes that are sent, not of what the disk said an hour ago."""
    plan = plan_with(mirror_url, keep=9)
    hanging = Hanging("write", "mirrored-step-00000005/checkpoint/model.safetensors")
    weights = RunFolder(tmp_path).checkpoints / "step-00000005" / "optimizer.safetensors"

    def alter() -> None:
        assert hanging.reached.wait(30)
        weights.write_bytes(flipped(weights.read_bytes()))
        hanging.let_go.set()

    with fault(hanging):
        train(tmp_path, plan, hooks=[At(6, alter)])
    (message,) = messages(tmp_path, "warning")
    assert message == (
        "step-00000005 is damaged and not mirrored: optimizer.safetensors was altered "
        "(its SHA-256 differs)"
    )
    assert 5 not in whole_steps(mirror_url)
    assert whole_steps(mirror_url)[0] == NUM_STEPS
    assert tensors_of(tmp_path) == uninterrupted


# --- uploads that are cut off --------------------------------------------------------------------


def test_an_upload_that_is_cut_off_is_never_taken_for_a_checkpoint(
    tmp_path: Path, mirror_url: str
) -> None:
    """Cut at every single operation: what counts as whole is whole, and the one before stays."""
    plan = plan_with(mirror_url)
    run = RunFolder(tmp_path)
    train(tmp_path, make_plan(num_steps=NUM_STEPS), until_step=12)
    five, twelve = sorted(run.checkpoints.glob("step-*"))
    operations: list[str] = []

    def note(operation: str, path: str) -> None:
        operations.append(f"{operation} {path.rpartition('/')[2]}")

    def upload(url: str, path: Path) -> None:
        Mirror(RemoteFolder(url), plan).upload(path, run, lambda: None)

    upload(f"{mirror_url}/whole", five)
    with fault(note):
        upload(f"{mirror_url}/whole", twelve)
    writes = [operation for operation in operations if operation.startswith("write part")]
    assert writes[-1] == f"write part {MANIFEST_NAME}"
    assert len(operations) > 15
    for last in range(len(operations)):
        url = f"{mirror_url}/{last}"
        upload(url, five)
        left = iter(range(last))

        def cut(operation: str, path: str, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise ConnectionError("gone")

        with fault(cut), pytest.raises(RemoteError, match="gone"):
            upload(url, twelve)
        mirror = Mirror(RemoteFolder(url), plan)
        assert [manifest.step for manifest in mirror.look().whole] == [10]
        upload(url, twelve)
        assert [manifest.step for manifest in mirror.look().whole] == [12, 10]
        for manifest in mirror.look().whole:
            folder = tmp_path / f"{last}-{manifest.step}"
            folder.mkdir()
            mirror.fetch(manifest, folder, lambda: None)


def test_other_bytes_of_a_step_never_mix_with_what_was_there(
    tmp_path: Path, mirror_url: str
) -> None:
    """A step that is uploaded again, changed, does not count until all of it is there."""
    plan = plan_with(mirror_url)
    for name, micro_batch in (("one", 4), ("other", 8)):
        train_tiny(
            tmp_path / name,
            make_plan(num_steps=NUM_STEPS),
            until_step=5,
            micro_batch_sequences=micro_batch,
        )
    one, other = (RunFolder(tmp_path / name) for name in ("one", "other"))
    mirror = Mirror(RemoteFolder(mirror_url), plan)
    mirror.upload(one.checkpoints / "step-00000005", one, lambda: None)

    def cut(operation: str, path: str) -> None:
        if operation == "write" and path.endswith("state.json"):
            raise ConnectionError

    with fault(cut), pytest.raises(RemoteError):
        mirror.upload(other.checkpoints / "step-00000005", other, lambda: None)
    assert mirror.look().whole == []
    mirror.upload(other.checkpoints / "step-00000005", other, lambda: None)
    (manifest,) = mirror.look().whole
    (tmp_path / "got").mkdir()
    mirror.fetch(manifest, tmp_path / "got", lambda: None)
    for path in (other.checkpoints / "step-00000005").iterdir():
        assert (tmp_path / "got" / path.name).read_bytes() == path.read_bytes()


def test_a_file_that_arrives_short_is_not_sealed(
    tmp_path: Path, mirror_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_with(mirror_url)
    run = RunFolder(tmp_path)
    train(tmp_path, make_plan(num_steps=NUM_STEPS), until_step=5)
    write = RemoteFolder.write

    def lossy(self: RemoteFolder, name: str, chunks: Iterable[bytes]) -> None:
        write(self, name, [b"" if name.endswith("state.json") else b"".join(chunks)])

    monkeypatch.setattr(RemoteFolder, "write", lossy)
    with pytest.raises(RemoteError, match=r"state\.json has 0 bytes there instead of"):
        Mirror(RemoteFolder(mirror_url), plan).upload(
            run.checkpoints / "step-00000005", run, lambda: None
        )
    assert whole_steps(mirror_url) == []


# --- a mirror that fails or is slow ---------------------------------------------------------------


def refuse(operation: str, path: str) -> None:
    if "mirrored-step" in path:
        raise PermissionError("no such bucket: testfs://me:word@host/x")


def test_a_mirror_that_fails_stops_nothing_and_is_told_first_and_last(
    tmp_path: Path, mirror_url: str, uninterrupted: Mapping[str, bytes]
) -> None:
    plan = plan_with(mirror_url)
    with fault(refuse):
        assert train(tmp_path, plan) == Ending(NUM_STEPS, finished=True)
    assert tensors_of(tmp_path) == uninterrupted
    first, last = messages(tmp_path, "warning")
    assert "cannot be mirrored to testfs://" in first
    assert "PermissionError: no such bucket: testfs://***@host/x" in first
    assert last.startswith(f"{mirror_url} does not hold step-00000020 yet (PermissionError")
    assert "the same command uploads it" in last
    assert train(tmp_path, plan) == Ending(NUM_STEPS, finished=True)
    assert whole_steps(mirror_url) == [NUM_STEPS]


def test_a_mirror_that_comes_back_is_caught_up_with(tmp_path: Path, mirror_url: str) -> None:
    plan = plan_with(mirror_url)
    first = threading.Event()

    def fail_for_a_while(operation: str, path: str) -> None:
        if "mirrored-step" in path and not first.is_set():
            raise TimeoutError

    def wait_for_it() -> None:
        deadline = time.monotonic() + 30
        while not messages(tmp_path, "warning"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        first.set()

    with fault(fail_for_a_while):
        train(tmp_path, plan, hooks=[At(12, wait_for_it)])
    assert len(messages(tmp_path, "warning")) == 1
    assert f"{mirror_url} takes checkpoints again" in messages(tmp_path, "mirror")
    assert whole_steps(mirror_url)[0] == NUM_STEPS


def test_an_upload_that_fails_is_tried_again(tmp_path: Path, mirror_url: str) -> None:
    """The last one, which no later one makes up for."""
    failures = iter([ConnectionError("reset"), ConnectionError("reset")])

    def fail_twice(operation: str, path: str) -> None:
        if operation == "write part" and "mirrored-step-00000020" in path:
            error = next(failures, None)
            if error is not None:
                raise error

    with fault(fail_twice):
        train(tmp_path, plan_with(mirror_url))
    assert whole_steps(mirror_url)[0] == NUM_STEPS
    assert next(failures, None) is None
    (warning,) = messages(tmp_path, "warning")
    assert "step-00000020 cannot be mirrored" in warning
    assert f"{mirror_url} takes checkpoints again" in messages(tmp_path, "mirror")


def test_a_mirror_that_never_answers_holds_up_no_step_and_the_end_for_so_long(
    tmp_path: Path, mirror_url: str, uninterrupted: Mapping[str, bytes]
) -> None:
    plan = plan_with(mirror_url, wait_s=1.5)
    hanging = Hanging("write", "mirrored-step-00000005/checkpoint/model.safetensors")
    began = 0.0

    def note() -> None:
        nonlocal began
        began = time.monotonic()

    with fault(hanging):
        ending = train(tmp_path, plan, hooks=[At(6, hanging.reached.wait), At(NUM_STEPS, note)])
        took_s = time.monotonic() - began
    hanging.let_go.set()
    assert ending.finished
    assert tensors_of(tmp_path) == uninterrupted
    assert took_s < 20
    assert "waiting until step-00000020 is mirrored, 1.5 s at most" in messages(tmp_path, "mirror")
    (last,) = messages(tmp_path, "warning")
    assert "does not hold step-00000020 yet (it took longer than 1.5 s)" in last
    time.sleep(0.1)
    assert whole_steps(mirror_url) == [], "nothing is written for a launch that has ended"


def test_a_slow_mirror_gets_the_newest_and_its_checkpoint_stays_while_it_is_read(
    tmp_path: Path, mirror_url: str
) -> None:
    plan = plan_with(mirror_url, every=2, keep=1)
    hanging = Hanging("write", "mirrored-step-00000002/checkpoint/state.json")
    here = RunFolder(tmp_path).checkpoints
    seen: list[list[int]] = []

    def look() -> None:
        seen.append(sorted(step_of(path) for path in here.glob("step-*")))
        hanging.let_go.set()

    with fault(hanging):
        train(tmp_path, plan, hooks=[At(3, hanging.reached.wait), At(15, look)])
    assert seen == [[2, 14]]
    assert "mirrored step-00000002" in messages(tmp_path, "mirrored")
    assert "mirrored step-00000004" not in messages(tmp_path, "mirrored")
    assert whole_steps(mirror_url) == [NUM_STEPS]
    assert [path.name for path in here.glob("step-*")] == ["step-00000020"]


def test_a_full_disk_takes_the_room_of_what_is_being_read(tmp_path: Path) -> None:
    """The mirror never stops training: the upload is given up, not the save."""
    store = CheckpointStore(tmp_path, keep=1)

    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"weights")

    store.save(1, write)
    store.hold(tmp_path / "step-00000001")
    store.save(2, write)
    assert len(list(tmp_path.glob("step-*"))) == 2
    tries = iter([OSError(28, "No space left on device"), None])

    def full(folder: Path) -> None:
        write(folder)
        error = next(tries)
        if error is not None:
            raise error

    store.save(3, full)
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000003"]


def test_a_mirror_out_of_reach_is_no_reason_to_stop_a_run_that_has_its_own(
    tmp_path: Path, mirror_url: str, uninterrupted: Mapping[str, bytes]
) -> None:
    plan = plan_with(mirror_url)
    train(tmp_path, plan, until_step=7)

    def unreachable(operation: str, path: str) -> None:
        raise ConnectionError("no route")

    with fault(unreachable):
        train(tmp_path, plan, until_step=8)
    assert messages(tmp_path, "warning")[0] == (
        f"the mirror {mirror_url} cannot be read (ConnectionError: no route); going on with what "
        "is here"
    )
    train(tmp_path, plan)
    assert tensors_of(tmp_path) == uninterrupted


def test_a_mirror_out_of_reach_is_no_empty_mirror(tmp_path: Path, mirror_url: str) -> None:
    """Without a checkpoint of its own a run does not begin anew: it may be far ahead there."""

    def unreachable(operation: str, path: str) -> None:
        raise ConnectionError("no route to testfs://me:word@host")

    with fault(unreachable), pytest.raises(EnvironmentFault, match="holds no checkpoint") as caught:
        train(tmp_path, plan_with(mirror_url))
    assert caught.value.exit_code == 1
    assert "word" not in str(caught.value)
    assert not RunFolder(tmp_path).has_begun()


def test_a_mirror_that_does_not_answer_at_the_launch_is_given_up(
    tmp_path: Path, mirror_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path, plan_with(mirror_url), until_step=7)
    monkeypatch.setattr(restore, "ANSWER_WITHIN_S", 0.5)
    hanging = Hanging("ls")
    with fault(hanging):
        train(tmp_path, plan_with(mirror_url, wait_s=0.1), until_step=8)
    hanging.let_go.set()
    assert "it did not answer for 0.5 s" in messages(tmp_path, "warning")[0]


# --- what stays there ----------------------------------------------------------------------------


def test_the_mirror_keeps_as_many_as_the_run_folder(tmp_path: Path, mirror_url: str) -> None:
    train(tmp_path, plan_with(mirror_url, every=2, keep=3), until_step=13)
    names = {name.partition("/")[0] for name in all_files(mirror_url)}
    here = {step_of(path) for path in RunFolder(tmp_path).checkpoints.glob("step-*")}
    assert here == {10, 12, 13}
    assert names == {
        "MIRROR.json",
        *(f"mirrored-step-{step:08d}" for step in whole_steps(mirror_url)),
    }
    assert len(whole_steps(mirror_url)) <= 3
    assert whole_steps(mirror_url)[0] == 13


def test_the_newest_whole_one_is_never_pruned(tmp_path: Path, mirror_url: str) -> None:
    """A machine that could not see it goes on from an older one of its own."""
    plan = plan_with(mirror_url, keep=1)
    train(tmp_path / "ahead", plan, until_step=15)
    run = RunFolder(tmp_path / "behind")
    train(run.path, make_plan(num_steps=NUM_STEPS), until_step=5)
    mirror = Mirror(RemoteFolder(mirror_url), plan)
    mirror.upload(run.checkpoints / "step-00000005", run, lambda: None)
    mirror.prune(read_amendments(run.amendments, plan.fingerprint), keep=1, kept_here={5})
    assert whole_steps(mirror_url) == [15, 5]
    mirror.prune(read_amendments(run.amendments, plan.fingerprint), keep=1, kept_here=set())
    assert whole_steps(mirror_url) == [15]


def test_a_checkpoint_that_is_half_deleted_counts_no_more(tmp_path: Path, mirror_url: str) -> None:
    plan = plan_with(mirror_url, keep=9)
    train(tmp_path, plan, until_step=12)

    def cut(operation: str, path: str) -> None:
        if operation == "rm" and path.endswith("mirrored-step-00000005"):
            raise ConnectionError

    assert whole_steps(mirror_url) == [12, 10, 5]
    mirror = Mirror(RemoteFolder(mirror_url), plan)
    amendments = read_amendments(RunFolder(tmp_path).amendments, plan.fingerprint)
    with fault(cut), pytest.raises(RemoteError):
        mirror.prune(amendments, keep=2, kept_here=())
    assert whole_steps(mirror_url) == [12, 10]
    assert any(name.startswith("mirrored-step-00000005/") for name in all_files(mirror_url))
    mirror.prune(amendments, keep=2, kept_here=())
    assert not any(name.startswith("mirrored-step-00000005/") for name in all_files(mirror_url))


def test_a_mirror_that_lets_nothing_be_deleted_is_told_of_once(
    tmp_path: Path, mirror_url: str
) -> None:
    def keep_all(operation: str, path: str) -> None:
        if operation == "rm" and path.rstrip("/").rpartition("/")[2].startswith("mirrored-step"):
            raise PermissionError("objects are locked")

    with fault(keep_all):
        train(tmp_path, plan_with(mirror_url, every=2))
    (message,) = messages(tmp_path, "warning")
    assert "older ones stay on testfs://" in message
    assert NUM_STEPS in whole_steps(mirror_url)


def test_another_runs_mirror_is_refused_with_what_differs(tmp_path: Path, mirror_url: str) -> None:
    train(tmp_path / "one", plan_with(mirror_url), until_step=7)
    before = all_files(mirror_url)
    other = make_plan(num_steps=NUM_STEPS, seed=2, mirror=mirror_url)
    with pytest.raises(RunFolderError, match=r"of another run, 'tiny': .*seed: 1 → 2") as caught:
        train_tiny(tmp_path / "other", other)
    assert caught.value.exit_code == 2
    assert all_files(mirror_url) == before
    assert not RunFolder(tmp_path / "other").has_begun()


def test_a_mirror_without_a_checkpoint_is_nobodys_yet(tmp_path: Path, mirror_url: str) -> None:
    """A plan may still be changed while nothing was saved under it."""
    train(tmp_path / "one", plan_with(mirror_url, every=9), until_step=1, hooks=[])
    files, root = fsspec.url_to_fs(mirror_url)
    for name in files.ls(root, detail=False):
        if "mirrored-step" in name:
            files.rm(name, recursive=True)
    other = make_plan(num_steps=NUM_STEPS, seed=2, mirror=mirror_url)
    assert train_tiny(tmp_path / "other", other).finished


def test_a_mark_that_is_not_ours_is_left_alone(tmp_path: Path, mirror_url: str) -> None:
    files, root = fsspec.url_to_fs(mirror_url)
    files.pipe_file(f"{root}/MIRROR.json", b'{"somebody": "else"}')
    with pytest.raises(RunFolderError, match=r"MIRROR\.json: it is not what rewarm writes there"):
        train(tmp_path, plan_with(mirror_url))
    assert all_files(mirror_url) == {"MIRROR.json": b'{"somebody": "else"}'}


# --- amendments ----------------------------------------------------------------------------------


def guarded(url: str | None) -> Plan:
    plan = make_plan(num_steps=40, keep=3, checkpoint_every=5, peak_lr=1e-3, mirror=url)
    guard = GuardRecipe(spike="skip", spike_history=32, skip_steps=4)
    return plan.model_copy(update={"conduct": plan.conduct.model_copy(update={"guard": guard})})


def test_steps_that_were_left_out_stay_out_on_an_empty_machine(
    tmp_path: Path, mirror_url: str
) -> None:
    """A spike at step 18 leaves out 15 to 18: the amendment travels with the checkpoints."""
    plan = guarded(mirror_url)
    loss = Faulty(plan, [18], 3.0)
    train_tiny(tmp_path / "whole", guarded(None), loss=loss)
    train_tiny(tmp_path / "lost", plan, loss=loss, until_step=22)
    lost = read_amendments(RunFolder(tmp_path / "lost").amendments, plan.fingerprint)
    assert [(skip.from_step, skip.until_step) for skip in lost.chain] == [(15, 19)]
    train_tiny(tmp_path / "new", plan)
    assert read_amendments(RunFolder(tmp_path / "new").amendments, plan.fingerprint) == lost
    assert tensors_of(tmp_path / "new") == tensors_of(tmp_path / "whole")


def test_what_the_run_went_back_from_is_not_restored(tmp_path: Path, mirror_url: str) -> None:
    """The highest step there may be of a course that was left: the amendments tell."""
    plan = guarded(mirror_url)
    loss = Faulty(plan, [18], 3.0)
    runs = {name: RunFolder(tmp_path / name) for name in ("left", "amended")}
    train_tiny(runs["left"].path, guarded(None), until_step=25)
    train_tiny(runs["amended"].path, guarded(None), until_step=20, loss=loss)
    mirror = Mirror(RemoteFolder(mirror_url), plan)
    for run in runs.values():
        mirror.upload(max(run.checkpoints.glob("step-*")), run, lambda: None)
    assert [manifest.step for manifest in mirror.look().whole] == [25, 20]
    train_tiny(tmp_path / "new", plan, until_step=21)
    (message,) = messages(tmp_path / "new", "passed_over")
    assert message.startswith("step-00000025 on testfs://")
    assert "it was reached before step 15 was skipped" in message
    assert messages(tmp_path / "new", "resume") == ["resumed from step-00000020"]
    assert [manifest.step for manifest in mirror.look().whole] == [21, 20]
    train_tiny(tmp_path / "new", plan)
    train_tiny(tmp_path / "whole", guarded(None), loss=loss)
    assert tensors_of(tmp_path / "new") == tensors_of(tmp_path / "whole")


# --- URLs and what they must not say -------------------------------------------------------------


def test_passwords_keys_and_queries_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMIK7MDENG")
    monkeypatch.setenv("MY_PASSWORD", "short")
    assert masked("to ftp://me:a word@host/x") == "to ftp://me:a word@host/x"
    assert masked("to ftp://me:word@host/x and s3://b/k?X-Sig=abc 'y'") == (
        "to ftp://***@host/x and s3://b/k?*** 'y'"
    )
    assert masked("key wJalrXUtnFEMIK7MDENG is short") == "key *** is short"
    assert masked("key AKIAABCDEFGHIJKLMNOP") == "key ***"
    assert masked("abfs://container@account.dfs.core.windows.net/x") == (
        "abfs://container@account.dfs.core.windows.net/x"
    )


def test_a_protocol_that_is_not_there_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"class": "madeupfs.Files", "err": "Install madeupfs to access the moon"}
    monkeypatch.setitem(known_implementations, "moon", known)
    problem = url_problem("moon://dust/run", tmp_path)
    assert problem is not None
    assert "moon:// needs a package that cannot be imported (Install madeupfs" in problem.what
    assert "pip install madeupfs" in problem.fix
    problem = url_problem("fiel:///dust/run", tmp_path)
    assert problem is not None
    assert problem.what == "fiel:///dust/run: no file system is called 'fiel'"
    assert problem.fix == "did you mean file://?"
    inside = url_problem(f"file://{tmp_path}/run/copies", tmp_path / "run")
    assert inside is not None
    assert "lies within the run folder" in inside.what
    assert url_problem(f"file://{tmp_path}/other", tmp_path / "run") is None


def test_a_remote_folder_says_nothing_secret(tmp_path: Path) -> None:
    folder = RemoteFolder("ftp://me:word@host/x")
    assert str(folder) == "ftp://***@host/x"

    def refuse_with_it(operation: str, path: str) -> None:
        raise OSError("cannot reach ftp://me:word@host/x" + " " * 400)

    with fault(refuse_with_it), pytest.raises(RemoteError) as caught:
        RemoteFolder("testfs://x").names()
    assert str(caught.value) == "OSError: cannot reach ftp://***@host/x"
