"""A few steps of a launch under torch's profiler: a trace, and where their time went."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile

from rewarm.artifacts import write_json
from rewarm.records.facts import StepRecord
from rewarm.records.profile import OperatorTime, StepProfile
from rewarm.training.spans import Spans
from rewarm.training.state import TrainState

__all__ = ["PROFILED_STEPS", "WARM_UP_STEPS", "Profile"]

# The first steps fault memory in and choose kernels.
WARM_UP_STEPS = 3
PROFILED_STEPS = 5
_MOST_OPERATORS = 25
TRACE = "trace.json.gz"


class Profile:
    """A hook that watches some steps of a launch, from its fourth on, and writes what they took.

    Steps are the same to the bit; while they are watched they are slower.
    """

    def __init__(self, record: Path, spans: Spans, *, device_name: str) -> None:
        """`record` is the file that is written; the trace comes beside it."""
        self._record = record
        self._spans = spans
        self._device_name = device_name
        self._num_seen = 0
        self._watched: list[StepRecord] = []
        self._profiler: profile | None = None

    def before_train(self, state: TrainState, /) -> None:
        """What an earlier launch watched is not this one's."""
        if self._num_seen == 0:
            self._record.unlink(missing_ok=True)

    def after_step(self, state: TrainState, record: StepRecord | None, /) -> None:
        """Begin after the steps that warm up, and end when enough were watched."""
        if record is None:
            return
        self._num_seen += 1
        if self._profiler is not None:
            self._watched.append(record)
            if len(self._watched) == PROFILED_STEPS:
                self._end(state)
        elif self._num_seen == WARM_UP_STEPS:
            self._begin(state)

    def on_stop(self, state: TrainState, /) -> None:
        """Write what there is, where the launch or a stage of it ends earlier."""
        if self._profiler is None:
            return
        if self._watched:
            self._end(state)
        else:
            with _without_marks():
                self._profiler.stop()
            self._profiler = None
            self._spans.rest()
            self._num_seen -= 1  # another stage may begin

    def _begin(self, state: TrainState) -> None:
        activities = [ProfilerActivity.CPU]
        if state.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        # One cycle loses no events; older torch warns of what more cycles would.
        self._profiler = profile(activities=activities, acc_events=True)
        self._spans.watch(state.device)
        with _without_marks():
            self._profiler.start()

    def _end(self, state: TrainState) -> None:
        profiler, self._profiler = self._profiler, None
        assert profiler is not None
        with _without_marks():
            profiler.stop()
        self._spans.rest()
        num = len(self._watched)
        self._record.parent.mkdir(exist_ok=True)
        profiler.export_chrome_trace(str(self._record.with_name(TRACE)))
        on_gpu = state.device.type == "cuda"
        found = StepProfile(
            first_step=self._watched[0].step,
            num_steps=num,
            device_name=self._device_name,
            step_s=sum(record.step_s + record.data_wait_s for record in self._watched) / num,
            data_wait_s=sum(record.data_wait_s for record in self._watched) / num,
            forward_s=self._spans.seconds.get("forward", 0.0) / num,
            backward_s=self._spans.seconds.get("backward", 0.0) / num,
            optimizer_s=self._spans.seconds.get("optimizer", 0.0) / num,
            operators=_operators(profiler.key_averages(), num, on_gpu=on_gpu),
            trace=TRACE,
        )
        write_json(self._record, found.model_dump(mode="json"))


@contextlib.contextmanager
def _without_marks() -> Iterator[None]:
    """Keep off the terminal the marks that torch's profiler library writes there of its start and
    end, at a level above its errors: those are told.
    """
    if sys.__stderr__ is None:  # there is none, and its number may be another file's
        yield
        return
    sys.__stderr__.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            said.seek(0)
            for line in said:
                if not line.startswith(b"USDT:"):
                    os.write(2, line)


def _operators(
    averages: Iterable[FunctionEventAvg], num_steps: int, *, on_gpu: bool
) -> tuple[OperatorTime, ...]:
    """Return what took longest by itself, in seconds a step: on a GPU kernels, else operators.

    On a GPU the operators that launched kernels, and the parts around them, have their time once
    more. On a CPU a part's own time is what no operator within it took.
    """

    def self_us(average: FunctionEventAvg) -> float:
        return average.self_device_time_total if on_gpu else average.self_cpu_time_total

    found = [
        average
        for average in averages
        if self_us(average) > 0 and (not on_gpu or _is_kernel(average))
    ]
    found.sort(key=self_us, reverse=True)
    return tuple(
        OperatorTime(
            name=average.key,
            calls=average.count / num_steps,
            self_s=self_us(average) / 1e6 / num_steps,
        )
        for average in found[:_MOST_OPERATORS]
    )


def _is_kernel(average: FunctionEventAvg) -> bool:
    return average.device_type == DeviceType.CUDA and not average.is_user_annotation
