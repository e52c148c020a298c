"""The peak of a launch's steps against arrays of known sizes, taken in steps and around them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from mmap import PAGESIZE, mmap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rewarm.distributed.fsdp import Root
from rewarm.model.loss import sum_of_token_losses
from rewarm.records.facts import EvalRecord
from rewarm.records.memory import LaunchMemory, greatest
from rewarm.records.run_folder import RunFolder
from rewarm.training import usage
from rewarm.training.state import Snapshot, take_snapshot
from rewarm.training.usage import MemoryMeter, StepMemory
from tests.support.tiny_plans import make_plan, noisy_evaluation, train_tiny

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere a process has one peak for all its life"
)

MIB = 2**20
NEAR = 6 * MIB
"""What else a process takes meanwhile: below a tenth of the arrays."""


def take(mebibytes: int) -> None:
    """Take memory, every page of it, and give it back.

    Past the C library's allocator, which may serve an array from what it has kept and keep it then:
    a second one, taken above the first, counts twice.
    """
    if mebibytes:
        with mmap(-1, mebibytes * MIB) as taken:
            for page in range(0, len(taken), PAGESIZE):
                taken[page] = 1


def take_in_pieces(mebibytes: int) -> object:
    """Take memory in arrays too small to be mapped by themselves and let them go; what is returned
    lies above them and keeps the allocator's heap from shrinking.
    """
    pieces = [torch.ones(4 * MIB // 4) for _ in range(mebibytes // 4)]
    above = [torch.ones(1000), *(bytearray(70_000) for _ in range(4))]
    del pieces
    return above


def test_what_the_allocator_keeps_of_what_is_around_steps_is_none_of_theirs() -> None:
    torch.ones(8 * MIB // 4)  # glibc maps no smaller arrays from here on
    memory = StepMemory(MemoryMeter("cpu"))
    above = [take_in_pieces(160)]
    memory.begin_steps()
    take(40)
    memory.end_steps()
    found = memory.found()
    assert found.steps_bytes == pytest.approx(40 * MIB, abs=NEAR)
    assert found.other_bytes - found.process_bytes == pytest.approx(160 * MIB, abs=NEAR)
    memory.begin_steps()
    with memory.apart():
        above.append(take_in_pieces(160))
    take(40)
    memory.end_steps()
    assert memory.found().steps_bytes == pytest.approx(40 * MIB, abs=NEAR)
    # Nor is it the process's own: steps that take it again take it.
    above.append(take_in_pieces(160))
    memory = StepMemory(MemoryMeter("cpu"))
    memory.begin_steps()
    above.append(take_in_pieces(120))
    memory.end_steps()
    assert memory.found().steps_bytes == pytest.approx(120 * MIB, abs=NEAR)


def test_what_steps_take_is_told_from_what_is_around_them() -> None:
    memory = StepMemory(MemoryMeter("cpu"))
    take(200)
    memory.begin_steps()
    take(80)
    with memory.apart():
        take(160)
    take(60)
    memory.end_steps()
    take(120)
    found = memory.found()
    assert found.told_apart
    assert found.steps_bytes == pytest.approx(80 * MIB, abs=NEAR)
    assert found.held_bytes == found.peak_bytes
    assert found.other_bytes - found.process_bytes == pytest.approx(200 * MIB, abs=NEAR)


@pytest.mark.parametrize("absent", ["RssAnon", "RssFile", "RssShmem", "VmHWM"])
def test_where_the_kernel_tells_less_there_is_one_peak(
    absent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = usage._STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    status = tmp_path / "status"
    lines = [line for line in told if not line.startswith(f"{absent}:")]
    assert len(lines) == len(told) - 1
    status.write_text("\n".join(lines), encoding="ascii")
    monkeypatch.setattr(usage, "_STATUS", status)
    memory = StepMemory(MemoryMeter("cpu"))
    memory.begin_steps()
    take(40)
    memory.end_steps()
    found = memory.found()
    assert not found.told_apart
    assert found.process_bytes == 0
    assert found.peak_bytes > 40 * MIB


@dataclass(frozen=True)
class Extra:
    """MiB that parts of a run take beside their own."""

    steps: int = 0
    evaluations: int = 0
    saves: int = 0


def peak_of_run(folder: Path, extra: Extra) -> int:
    """Return the peak that a tiny run has on record of its steps."""

    def loss(model: nn.Module, *given: Any) -> Any:
        take(extra.steps)
        return sum_of_token_losses(model, *given)

    def evaluate(root: Root, step: int) -> Sequence[EvalRecord]:
        take(extra.evaluations)
        return noisy_evaluation(root, step)

    def snapshot(*given: Any, **named: Any) -> Snapshot:
        take(extra.saves)
        return take_snapshot(*given, **named)

    plan = make_plan(num_steps=8, evaluation_steps=(0, 3), checkpoint_every=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rewarm.training.saver.take_snapshot", snapshot)
        train_tiny(folder, plan, loss=loss, evaluator=evaluate)
    found = RunFolder(folder).peak_bytes()
    assert found is not None
    return found


def test_a_run_has_the_peak_of_its_steps_on_record(tmp_path: Path) -> None:
    peak_of_run(tmp_path / "first", Extra())  # loads what torch loads at its first step
    plain = peak_of_run(tmp_path / "plain", Extra())
    around = peak_of_run(tmp_path / "around", Extra(evaluations=96, saves=96))
    within = peak_of_run(tmp_path / "within", Extra(steps=64, evaluations=96, saves=96))
    assert around - plain == pytest.approx(0, abs=NEAR)
    assert within - plain == pytest.approx(64 * MIB, abs=NEAR)
    memory = RunFolder(tmp_path / "within").memory()
    assert memory is not None
    assert memory.other_bytes - memory.process_bytes > 90 * MIB


def test_of_several_launches_the_greatest_counts(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.make_log_folder()
    assert run.memory() is None
    assert run.peak_bytes() is None
    run.append_event("stop", 1, "an older version's", elapsed_s=1.0)
    assert run.peak_bytes() is None
    for peak in (30, 90, 60):
        run.append_event("stop", 1, "stopped", memory=launch_memory(peak).model_dump())
    assert run.peak_bytes() == (90 - 10) * MIB
    whole = launch_memory(200).model_copy(update={"told_apart": False})
    run.append_event("finish", 2, "finished", memory=whole.model_dump())
    assert run.peak_bytes() is None


def test_a_profiled_launch_counts_where_there_is_no_other(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.make_log_folder()
    profiled = launch_memory(90).model_copy(update={"profiled": True})
    run.append_event("stop", 1, "stopped", memory=profiled.model_dump())
    assert run.memory() == profiled
    assert run.peak_bytes() is None
    before = launch_memory(30).model_dump(exclude={"profiled"})
    run.append_event("stop", 1, "an older version's", memory=before)
    assert run.memory() == launch_memory(30)
    assert run.peak_bytes() == (30 - 10) * MIB
    assert greatest([launch_memory(30), profiled]) == profiled


def test_of_several_ranks_the_greatest_counts() -> None:
    ranks = [launch_memory(30, other=70), launch_memory(50, other=60)]
    assert greatest(ranks) == launch_memory(50, other=70)
    blind = launch_memory(20).model_copy(update={"told_apart": False})
    assert not greatest([*ranks, blind]).told_apart


def launch_memory(peak: int, other: int = 5) -> LaunchMemory:
    """Return peaks of so many MiB, of a process that has 10 of its own."""
    return LaunchMemory(
        process_bytes=10 * MIB,
        peak_bytes=peak * MIB,
        held_bytes=peak * MIB,
        other_bytes=other * MIB,
        told_apart=True,
    )
