"""The updates of runs over labelled examples, as their `metrics/steps.jsonl` has them."""

from __future__ import annotations

import time
from typing import Literal

from pydantic import Field

from rewarm.artifacts import append_json_lines
from rewarm.records.facts import Record
from rewarm.records.reading import records_of
from rewarm.records.run_folder import RunFolder

__all__ = ["StreamPart", "StreamStep", "StreamStepsLog", "stream_steps"]

StreamPart = Literal["task", "end", "second-stage"]
"""A step on the stream; of the training at the end of a task (`joint`, `gdumb`), which begins from
the first weights; or on the memory, after the last task."""

_KEPT_FOR_S = 1.0


class StreamStep(Record):
    """One update. Others' step records count tokens and phases, of which there are none here."""

    step: int = Field(description="0-based; the record of step k tells of the (k+1)-th update")
    loss: float = Field(
        description="what the learner descends, the memory's part included, before this update"
    )
    lr: float
    task: int = Field(description="0-based; of a second stage the number of tasks")
    part: StreamPart
    num_examples: int = Field(description="of the batch; what is replayed beside it is not counted")
    step_s: float = Field(description="seconds that this step took")


class StreamStepsLog:
    """Appends the steps of a run to its log, those of a second at once: a step may take less time
    than to open a file.

    What is not yet written when a run is killed is taken again: whoever saves a checkpoint flushes
    first.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._waiting: list[StreamStep] = []
        self._since = time.monotonic()

    def append(self, record: StreamStep) -> None:
        """Take a record, and write what has waited for a second."""
        self._waiting.append(record)
        if time.monotonic() - self._since >= _KEPT_FOR_S:
            self.write()

    def write(self) -> None:
        """Write all that waits."""
        if self._waiting:
            self._run.make_log_folder()
            append_json_lines(self._run.steps_log, [r.model_dump() for r in self._waiting])
        self._waiting.clear()
        self._since = time.monotonic()

    def flush(self) -> None:
        """Write all that waits, and wait until it is on the disk."""
        self.write()
        self._run.flush_records()


def stream_steps(run: RunFolder) -> list[StreamStep]:
    """Return the last record of every step, in order of the steps."""
    last = {record.step: record for record in records_of(run.steps_log, StreamStep)}
    return [last[step] for step in sorted(last)]
