"""What a run over labelled examples leaves: its plan, frozen before it begins, and its steps."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rewarm.artifacts import read_json_lines
from rewarm.cli import main
from rewarm.records.reading import record_or_none
from rewarm.records.run_folder import RunFolder
from rewarm.records.stream_steps import StreamStep, StreamStepsLog, stream_steps
from rewarm.stages import demo, stream
from rewarm.stages.stream_run import OneRun
from rewarm.stream.labelled_plan import StreamPlan
from rewarm.stream.learning import Learning
from rewarm.stream.rehearsing import Replay
from rewarm.training.checkpoint import CheckpointStore
from tests.support.streams import EXPERIMENT, write_images

# 10 training examples of each of 4 classes, 2 classes a task, 4 examples a step; a memory of 12.
_LEARNERS = """
er = { algorithm = "er", second_stage_epochs = 2 }
joint = { algorithm = "joint" }
gdumb = { algorithm = "gdumb", memory_epochs = 2 }
"""
_UPDATES = {
    "er": [(0, "task", 5), (1, "task", 5), (2, "second-stage", 2 * 3)],
    "joint": [(0, "end", 5), (1, "end", 10)],
    "gdumb": [(0, "end", 2 * 3), (1, "end", 2 * 3)],
}


def _write(folder: Path, learners: str, *, seeds: int = 1, every_s: float | None = None) -> Path:
    write_images(folder / "a.parquet")
    text = EXPERIMENT.replace("seeds = 2", f"seeds = {seeds}") + learners
    if every_s is not None:
        text = f"checkpoint_every_s = {every_s}\n{text}"
    (folder / "e.toml").write_text(text)
    return folder / "e.toml"


def _run_of(folder: Path, learner: str, seed: int = 1) -> RunFolder:
    return RunFolder(folder / f"streams/made-up/runs/scratch/{learner}/seed-{seed}")


def _plan_of(run: RunFolder) -> StreamPlan:
    plan = record_or_none(run.plan, StreamPlan)
    assert plan is not None
    assert plan.is_whole()
    return plan


def _events(run: RunFolder) -> list[str]:
    return [event.kind for event in run.events()]


def test_a_run_leaves_its_plan_and_every_update(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _write(tmp_path, _LEARNERS)
    assert main(["stream", str(path)]) == 0
    for learner, wanted in _UPDATES.items():
        run = _run_of(tmp_path, learner)
        plan, steps = _plan_of(run), stream_steps(run)
        found = [(s.task, s.part) for s in steps]
        assert found == [(task, part) for task, part, count in wanted for _ in range(count)]
        assert [s.step for s in steps] == list(range(len(steps)))
        assert {(s.lr, s.num_examples) for s in steps} <= {(0.1, 4), (0.1, 2)}
        (updates,) = plan.estimates
        assert updates.value == len(steps)
        assert [(len(t.classes), t.num_examples, t.num_test, t.num_steps) for t in plan.tasks] == [
            (2, 20, 4, 5)
        ] * 2
        assert sorted(name for t in plan.tasks for name in t.classes) == ["c0", "c1", "c2", "c3"]
        assert plan.hangs_on["learner"]["algorithm"] == learner
        assert {"tasks", "batch", "lr", "memory", "learner", "backbone"} <= {
            reason.field for reason in plan.reasons
        }
        record = json.loads(run.path.with_suffix(".json").read_text())
        assert record["fingerprint"] == plan.fingerprint
        assert _events(run) == ["launch", "finish"]
        assert not run.checkpoints.exists()
        assert main(["watch", str(run.path), "--no-browser"]) == 2
        assert "streams are not watched" in capsys.readouterr().err
    page = (tmp_path / "streams/made-up/report.html").read_text()
    assert all(f"Training loss of scratch, {learner}" in page for learner in _UPDATES)
    assert main(["stream", str(path)]) == 0  # nothing is left to do, and nothing is written
    assert _events(_run_of(tmp_path, "er")) == ["launch", "finish"]


def test_all_is_planned_before_the_first_run_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path, _LEARNERS, seeds=2)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(OneRun, "carry_out", stop)
    assert main(["stream", str(path)]) == 130
    names = {
        _plan_of(_run_of(tmp_path, learner, seed)).name for learner in _UPDATES for seed in (1, 2)
    }
    assert len(names) == 6
    assert "scratch/joint, seed 2" in names


def _stopped(path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a stream that hears a signal in its seventh step on the stream; return its exit code."""
    observe, left = Replay.observe, [7]

    def observed(self: Replay, indices: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), number)
        observe(self, indices)

    with monkeypatch.context() as patched:
        patched.setattr(Replay, "observe", observed)
        return main(["stream", str(path)])


def _under_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, RunFolder]:
    """Return an experiment whose only run was stopped after seven steps, and its folder."""
    path = _write(folder, 'er = { algorithm = "er" }\n')
    assert _stopped(path, signal.SIGTERM, monkeypatch) == 130
    return path, _run_of(folder, "er")


@pytest.mark.parametrize(
    ("number", "told"),
    [(signal.SIGTERM, "stopped by SIGTERM"), (signal.SIGINT, "stopped by the keyboard")],
)
def test_a_signal_ends_a_run_with_a_checkpoint(
    number: signal.Signals,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = _write(tmp_path, 'er = { algorithm = "er" }\n')
    assert _stopped(path, number, monkeypatch) == 130
    said = capsys.readouterr()
    assert told in said.out + said.err
    run = _run_of(tmp_path, "er")
    # Seven steps, and the end of a task.
    assert [p.name for p in run.checkpoints.glob("step-*")] == ["step-00000008"]
    assert not (tmp_path / "streams/made-up/lock.json").exists()
    assert main(["stream", str(path)]) == 0
    assert "goes on at step 2 of task 2" in capsys.readouterr().out
    assert _events(run) == ["launch", "stop", "resume", "finish"]
    # The step that heard the signal was the last: none was taken twice.
    assert [s["step"] for s in read_json_lines(run.steps_log)] == list(range(10))


def test_a_signal_ends_training_at_a_tasks_end_at_its_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path, 'joint = { algorithm = "joint" }\n')
    train_on, taken = Learning.train_on, []

    def trained(self: Learning, *given: Any) -> None:
        taken.append(given)
        os.kill(os.getpid(), signal.SIGTERM)
        train_on(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(Learning, "train_on", trained)
        assert main(["stream", str(path)]) == 130
    assert len(taken) == 1
    assert main(["stream", str(path)]) == 0
    assert [s.step for s in stream_steps(_run_of(tmp_path, "joint"))] == list(range(15))


def test_a_run_under_way_is_not_mixed_with_another_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = _under_way(tmp_path, monkeypatch)
    before = _plan_of(run)
    path.write_text(path.read_text().replace("size = 12", "size = 8"))
    capsys.readouterr()
    assert main(["stream", str(path)]) == 0
    assert "under another plan: it is begun again (memory.size: 12 → 8)" in capsys.readouterr().out
    assert _plan_of(run).fingerprint != before.fingerprint
    assert len(list(read_json_lines(run.steps_log))) == 10
    assert _events(run) == ["launch", "finish"]


def test_a_folder_of_which_it_is_not_known_what_began_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = _under_way(tmp_path, monkeypatch)
    run.plan.write_text("{")
    capsys.readouterr()
    assert main(["stream", str(path)]) == 2
    said = capsys.readouterr().err
    assert "its plan.json is gone, damaged or of another kind of run" in said
    assert "move this folder away" in said
    assert len(list(read_json_lines(run.steps_log))) == 7


def test_a_checkpoint_comes_after_the_records_of_what_it_has_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path, 'er = { algorithm = "er" }\n', every_s=0)
    save, seen = CheckpointStore.save, []

    def saving(*given: Any) -> Path:
        seen.append(len(list(read_json_lines(_run_of(tmp_path, "er").steps_log))))
        return save(*given)

    monkeypatch.setattr(CheckpointStore, "save", saving)
    assert main(["stream", str(path)]) == 0
    assert seen == [1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 10]


def test_steps_are_written_together_and_the_last_of_each_counts(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    log = StreamStepsLog(run)
    one = StreamStep(step=0, loss=2.0, lr=0.1, task=0, part="task", num_examples=4, step_s=0.1)
    log.append(one)
    assert not run.steps_log.exists()
    log.flush()
    with run.steps_log.open("a") as file:
        file.write('{"step": 1, "lo')  # what a kill may leave
    again = one.model_copy(update={"loss": 3.0})
    log.append(again)
    log.write()
    assert stream_steps(run) == [again]


def test_a_plan_of_a_labelled_run_is_told_as_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.json").write_text('{"kind": "labelled stream"}')
    assert main(["report", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "a run of `rewarm stream` over labelled examples" in said
    assert "open report.html in the stream's folder" in said


@pytest.fixture
def _deaf() -> Iterator[None]:
    """SIGTERM that nobody in the command hears does not end the tests."""
    previous = signal.signal(signal.SIGTERM, lambda number, frame: None)
    yield
    signal.signal(signal.SIGTERM, previous)


@pytest.mark.usefixtures("_deaf")
def test_sigterm_ends_streams_of_corpora_and_the_demo_in_good_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def terminated(*_: object, **__: object) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    path = tmp_path / "e.toml"
    path.write_text(
        'name = "x"\n[source]\nkind = "corpora"\n[source.corpora]\na.path = "a"\nb.path = "b"\n'
        '[backbones.base]\npath = "base"\nlr = 1e-3\n[learners.er]\nalgorithm = "er"\n'
    )
    monkeypatch.setattr(stream, "run_corpora", terminated)
    assert main(["stream", str(path)]) == 130
    assert f"the same command goes on where it was: rewarm stream {path}" in capsys.readouterr().out
    monkeypatch.setattr(demo, "_take_the_road", terminated)
    with pytest.raises(SystemExit) as ended:
        demo.run_demo(tmp_path / "here")
    assert ended.value.code == 130
    assert f"rewarm demo --folder {tmp_path}/here" in capsys.readouterr().out
