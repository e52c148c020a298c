"""Where a run's time went: seconds of made-up launches, added up by hand; and a real profile."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch.autograd import DeviceType  # type: ignore[attr-defined]

from rewarm.records.facts import EvalRecord, StepRecord
from rewarm.records.profile import StepProfile
from rewarm.records.run_folder import RunFolder
from rewarm.reporting import numbers
from rewarm.reporting.goodput import goodput_of, goodput_sentence, goodput_table, start_table
from rewarm.reporting.profile_page import write_profile_page
from rewarm.reporting.report import render_run_report
from rewarm.reporting.run_view import load_run_view
from rewarm.training.profiling import PROFILED_STEPS, Profile, _operators, _without_marks
from rewarm.training.spans import Spans
from tests.support.fake_runs import make_fake_run
from tests.support.tiny_plans import make_plan, tensors_of, train_tiny


def step_record(step: int, step_s: float, data_wait_s: float) -> StepRecord:
    return StepRecord(
        step=step,
        loss=1.0,
        lr=1e-3,
        grad_norm=1.0,
        num_valid_tokens=1,
        num_tokens=step + 1,
        phase="general blend",
        samples=(1, 0, 0),
        step_s=step_s,
        data_wait_s=data_wait_s,
    )


def made_run(folder: Path, *, killed: bool) -> RunFolder:
    """Write a run of two launches: three steps, of which the second takes the last one again."""
    run = make_fake_run(folder, steps_taken=0, evaluated=False)
    run.events_log.unlink()
    run.append_event("launch", 0, "begins", start_s=[["libraries", 2.0], ["base", 1.0]])
    for step in range(3):
        run.append_step(step_record(step, 4.0, 0.5))
    run.append_evals([evaluation(seconds=5.0)])
    run.append_event("checkpoint", 2, "saved", blocked_s=1.5)
    if not killed:
        run.append_event("stop", 3, "stopped", elapsed_s=25.0)
    run.append_event("resume", 2, "resumed", start_s=[["libraries", 2.0], ["base", 0.5]])
    run.append_step(step_record(2, 3.0, 0.25))
    run.append_event("finish", 3, "finished", elapsed_s=7.0)
    return run


def evaluation(*, seconds: float) -> EvalRecord:
    return EvalRecord(
        step=0,
        domain="english",
        role="general",
        metric="bits_per_byte",
        value=1.0,
        standard_error=None,
        item_values=(1.0,),
        item_weights=(1,),
        seconds=seconds,
    )


def test_every_second_is_somewhere(tmp_path: Path) -> None:
    found = goodput_of(load_run_view(made_run(tmp_path, killed=False)))
    assert found is not None
    assert found.steps_s == 4 + 4 + 3
    assert found.repeated_s == 4
    assert found.data_s == 3 * 0.5 + 0.25
    assert found.evaluation_s == 5
    assert found.checkpoints_s == 1.5
    assert found.start_s == 3 + 2.5
    # 32 seconds by the clocks of both launches.
    assert found.rest_s == pytest.approx(32 - (11 + 4 + 1.75 + 5 + 1.5 + 5.5))
    assert found.known_s == pytest.approx(32)
    assert found.share == pytest.approx(11 / 32)
    share = numbers.share(11 / 32)
    assert goodput_sentence(found) == f"Goodput: {share} of 32 s were steps that count."
    names = [str(row[0][0]) for row in goodput_table(found).rows]
    assert names == [
        "steps that count",
        "steps taken again",
        "waiting for data",
        "evaluation",
        "checkpoints",
        "starting",
        "the rest",
    ]


def test_what_a_killed_launch_lost_is_not_made_up(tmp_path: Path) -> None:
    run = made_run(tmp_path, killed=True)
    found = goodput_of(load_run_view(run))
    assert found is not None
    assert (found.num_killed, found.rest_s) == (1, None)
    assert "One launch ended without a word" in goodput_sentence(found)
    page = render_run_report(run)
    assert "Where the time went" in page
    assert "Before the first step" in page


def test_the_parts_of_each_start_are_told(tmp_path: Path) -> None:
    table = start_table(load_run_view(made_run(tmp_path, killed=False)))
    assert [column.name for column in table.columns] == ["launch", "libraries", "base", "in all"]
    assert [row[1:] for row in table.rows] == [
        ("2.00 s", "1.00 s", "3.00 s"),
        ("2.00 s", "0.50 s", "2.50 s"),
    ]


def test_a_run_without_a_step_has_no_goodput(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, steps_taken=0, evaluated=False)
    assert goodput_of(load_run_view(run)) is None


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A tiny run of ten steps, some of which were watched."""
    folder = tmp_path_factory.mktemp("profiled")
    run, spans = RunFolder(folder), Spans()
    hook = Profile(run.profile, spans, device_name="test")
    train_tiny(folder, make_plan(num_steps=10), hooks=[hook], spans=spans)
    return run


def test_a_profile_adds_up(profiled: RunFolder) -> None:
    """Steps 3 to 7 were watched; the parts are all there, and make up most of a step."""
    found = StepProfile.model_validate_json(profiled.profile.read_text())
    assert (found.first_step, found.num_steps) == (3, PROFILED_STEPS)
    watched = profiled.steps()[3:8]
    whole = sum(record.step_s + record.data_wait_s for record in watched) / PROFILED_STEPS
    assert found.step_s == pytest.approx(whole)
    parts = (found.forward_s, found.backward_s, found.optimizer_s)
    assert min(parts) > 0
    assert sum(parts) + found.data_wait_s + found.rest_s == pytest.approx(found.step_s)
    # Two micro-batches a step, each a forward and a backward pass.
    calls = {operator.name: operator.calls for operator in found.operators}
    assert calls.get("forward", 2) == 2
    assert any(name.startswith("aten::") for name in calls)


def test_the_memory_of_a_profiled_launch_is_marked(profiled: RunFolder, tmp_path: Path) -> None:
    memory = profiled.memory()
    assert memory is not None
    assert memory.profiled
    run, spans = RunFolder(tmp_path), Spans()
    hook = Profile(run.profile, spans, device_name="test")
    train_tiny(tmp_path, make_plan(num_steps=2), hooks=[hook], spans=spans)
    memory = run.memory()
    assert memory is not None
    assert not memory.profiled, "it ended before the profiler began"


@pytest.mark.parametrize("num_steps", [3, 10], ids=["begun", "watched"])
def test_the_profilers_marks_stay_off_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], num_steps: int
) -> None:
    """With three steps it begins, and ends with nothing watched."""
    hook = Profile(RunFolder(tmp_path).profile, Spans(), device_name="test")
    train_tiny(tmp_path, make_plan(num_steps=num_steps), hooks=[hook])
    assert capfd.readouterr().err == ""


def test_what_else_the_profiler_says_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    with _without_marks():
        os.write(2, b"USDT:today 1:1 Handler.cpp:52] profiler_start\nERROR:no counters\n")
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "ERROR:no counters\nafterwards\n"


@dataclass(frozen=True)
class Average:
    """A row of a profiler's averages."""

    key: str
    device_type: DeviceType
    self_cpu_time_total: float
    self_device_time_total: float
    is_user_annotation: bool = False
    count: int = 4


AVERAGES: list[Any] = [
    Average("forward", DeviceType.CPU, 300.0, 0.0, is_user_annotation=True),
    Average("aten::mm", DeviceType.CPU, 200.0, 9000.0),
    Average("aten::empty", DeviceType.CPU, 0.0, 0.0),
    Average("forward", DeviceType.CUDA, 0.0, 9500.0, is_user_annotation=True),
    Average("Memcpy HtoD", DeviceType.CUDA, 0.0, 500.0),
    Average("gemm", DeviceType.CUDA, 0.0, 9000.0),
]


def test_on_a_gpu_each_kernel_is_counted_once() -> None:
    """Neither in the operator that launched it nor in the part around it."""
    found = _operators(AVERAGES, 2, on_gpu=True)
    assert [(row.name, row.self_s) for row in found] == [("gemm", 4.5e-3), ("Memcpy HtoD", 2.5e-4)]
    assert found[0].calls == 2


def test_on_a_cpu_a_part_has_what_no_operator_took() -> None:
    found = _operators(AVERAGES, 2, on_gpu=False)
    assert [(row.name, row.self_s) for row in found] == [("forward", 1.5e-4), ("aten::mm", 1e-4)]


def test_the_trace_names_the_parts(profiled: RunFolder) -> None:
    path = profiled.profile.with_name("trace.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    counts = {
        name: sum(event.get("name") == name and event.get("ph") == "X" for event in events)
        for name in ("forward", "backward", "optimizer")
    }
    assert counts == {
        "forward": 2 * PROFILED_STEPS,
        "backward": 2 * PROFILED_STEPS,
        "optimizer": PROFILED_STEPS,
    }


def test_watched_steps_are_the_same_to_the_bit(profiled: RunFolder, tmp_path: Path) -> None:
    train_tiny(tmp_path, make_plan(num_steps=10))
    assert tensors_of(tmp_path) == tensors_of(profiled.path)


@pytest.mark.parametrize("num_steps", [2, 3])
def test_a_launch_that_is_too_short_leaves_no_profile(tmp_path: Path, num_steps: int) -> None:
    """Not that of an earlier launch either."""
    run, spans = RunFolder(tmp_path), Spans()
    run.profile.parent.mkdir(parents=True)
    run.profile.write_text("of an earlier launch")
    hook = Profile(run.profile, spans, device_name="test")
    train_tiny(tmp_path, make_plan(num_steps=num_steps), hooks=[hook], spans=spans)
    assert not run.profile.exists()


def test_the_page_of_a_profile(tmp_path: Path, profiled: RunFolder) -> None:
    run = made_run(tmp_path, killed=False)
    run.profile.parent.mkdir()
    run.profile.write_bytes(profiled.profile.read_bytes())
    page = write_profile_page(run).read_text()
    for words in ("data wait", "forward", "backward", "optimizer", "evaluation", "checkpoints"):
        assert words in page
    assert "steps 3 to 7 on test" in page
