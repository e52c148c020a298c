"""Sinks show what the run folder holds; the folder comes first."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rewarm.errors import EnvironmentFault, UserError
from rewarm.records.facts import EvalRecord, StepRecord
from rewarm.records.run_folder import RunFolder
from rewarm.training.sinks import Journal, TensorBoardSink, open_sink
from tests.support.tiny_plans import make_plan, noisy_evaluation, train_tiny

PLAN = make_plan(num_steps=6, evaluation_steps=(0, 3, 6))


class Listener:
    """Notes what it is shown."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.evals: list[int] = []
        self.said: list[str] = []

    def show_step(self, record: StepRecord, /) -> None:
        self.steps.append(record.step)

    def show_evals(self, records: Sequence[EvalRecord], /) -> None:
        self.evals += [record.step for record in records]

    def say(self, message: str, /) -> None:
        self.said.append(message)


def test_a_sink_sees_every_record_and_no_routine(tmp_path: Path) -> None:
    sink = Listener()
    train_tiny(tmp_path, PLAN, evaluator=noisy_evaluation, sinks=[sink])
    assert sink.steps == list(range(6))
    assert sink.evals == [0, 3, 6]
    assert sink.said == ["begins from the base", "finished after 6 steps"]
    assert [event.kind for event in RunFolder(tmp_path).events()] == [
        "launch",
        "checkpoint",
        "checkpoint",
        "finish",
    ]


def test_the_folder_is_written_before_a_sink_fails(tmp_path: Path) -> None:
    class Broken(Listener):
        def say(self, message: str, /) -> None:
            raise ConnectionError

    run = RunFolder(tmp_path)
    run.make_log_folder()
    with pytest.raises(ConnectionError):
        Journal(run, (Broken(),)).event("warning", 3, "something")
    assert [event.message for event in run.events()] == ["something"]


def test_tensorboard_reads_back_what_the_run_folder_holds(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    sink = open_sink("tensorboard", run, run_name="tiny", fingerprint="f" * 64)
    train_tiny(tmp_path, PLAN, evaluator=noisy_evaluation, sinks=[sink])
    sink.close()

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()

    def scalars(tag: str) -> dict[int, float]:
        return {event.step: event.value for event in events.Scalars(tag)}

    steps = run.steps()
    for tag, field in {
        "train/loss_nats_per_token": "loss",
        "train/lr": "lr",
        "train/grad_norm": "grad_norm",
        "train/num_tokens": "num_tokens",
    }.items():
        expected = {record.step: getattr(record, field) for record in steps}
        assert scalars(tag) == pytest.approx(expected, rel=1e-6)
    measured = {record.step: record.value for record in run.evals()}
    assert measured.keys() == {0, 3, 6}
    assert scalars("bits_per_byte/old") == pytest.approx(measured, rel=1e-6)


class FakeWandb(ModuleType):
    """Records what a run of wandb is told."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.calls: list[tuple[str, Any]] = []

    def init(self, **options: Any) -> FakeWandb:
        self.calls.append(("init", options))
        return self

    def define_metric(self, *names: str, **options: str) -> None:
        self.calls.append(("define_metric", (names, options)))

    def log(self, values: dict[str, float]) -> None:
        self.calls.append(("log", values))

    def finish(self) -> None:
        self.calls.append(("finish", None))


def test_wandb_gets_steps_as_a_metric_that_may_go_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    sink = open_sink("wandb", RunFolder(tmp_path), run_name="tiny", fingerprint="abcdef0123")
    train_tiny(tmp_path, PLAN, evaluator=noisy_evaluation, sinks=[sink], until_step=3)
    sink.close()
    (_, options), *others = wandb.calls
    assert options == {
        "project": "rewarm",
        "name": "tiny",
        "id": "tiny-abcdef01",
        "resume": "allow",
        "dir": str(tmp_path),
    }
    assert ("define_metric", (("*",), {"step_metric": "step"})) in others
    logged = [values for kind, values in others if kind == "log"]
    assert [values["step"] for values in logged] == [0, 0, 1, 2, 3]
    assert "bits_per_byte/old" in logged[0]
    assert logged[1]["train/lr"] == PLAN.science.lr(0)
    assert others[-1] == ("finish", None)


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EnvironmentFault) as caught:
        open_sink(name, RunFolder(tmp_path), run_name="tiny", fingerprint="f" * 64)
    assert f"needs the package {name}" in caught.value.what
    assert f"pip install 'rewarm[{name}]'" in caught.value.fix


def test_an_unknown_sink_has_a_near_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean tensorboard"):
        open_sink("tensorbord", RunFolder(tmp_path), run_name="tiny", fingerprint="f" * 64)
    with pytest.raises(UserError, match="use one of: tensorboard, wandb"):
        open_sink("?", RunFolder(tmp_path), run_name="tiny", fingerprint="f" * 64)


def test_a_sink_may_be_closed_at_once(tmp_path: Path) -> None:
    TensorBoardSink(tmp_path).close()
