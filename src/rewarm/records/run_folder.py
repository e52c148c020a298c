"""Where everything of a run lies. A run is a folder of facts; this file alone knows its layout."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from rewarm.artifacts import append_json_line, make_folder, parse_json
from rewarm.records.facts import Amendment, EvalRecord, EventRecord, Record, StepRecord
from rewarm.records.memory import LaunchMemory
from rewarm.records.merging import MergePoint
from rewarm.records.reading import parsed_values, records_of

__all__ = ["RunFolder", "RunState"]

RunState = Literal["waiting", "running", "done", "failed"]
"""Running: it has begun, is not done, and is not known to have failed."""

_R = TypeVar("_R", bound=Record)
_TAIL_BYTES = 16_384
_NUM_LAST_LINES = 12


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths and logs of one run.

    After a resume the steps since the last checkpoint are taken (and recorded) again: logs only
    grow, and readers keep the last record of a step.
    """

    path: Path

    @property
    def plan(self) -> Path:
        """The frozen plan."""
        return self.path / "plan.json"

    @property
    def placement(self) -> Path:
        """How the plan is laid on the machine of the last launch."""
        return self.path / "placement.json"

    @property
    def probe(self) -> Path:
        """What a few steps took on the machine at hand, a `Probe`."""
        return self.path / "probe.json"

    @property
    def profile(self) -> Path:
        """Where the time of some steps went, a `StepProfile`; their trace lies beside it."""
        return self.path / "profile" / "profile.json"

    @property
    def profile_page(self) -> Path:
        """The same on one page."""
        return self.path / "profile" / "profile.html"

    @property
    def recipe(self) -> Path:
        """The recipe as resolved, overrides included."""
        return self.path / "recipe.json"

    @property
    def amendments(self) -> Path:
        """The append-only chain of changes to the plan."""
        return self.path / "amendments.jsonl"

    @property
    def lock(self) -> Path:
        """Who is writing here now."""
        return self.path / "lock.json"

    @property
    def checkpoints(self) -> Path:
        """One folder per verified checkpoint."""
        return self.path / "checkpoints"

    @property
    def steps_log(self) -> Path:
        """Append-only `StepRecord`s."""
        return self.path / "metrics" / "steps.jsonl"

    @property
    def evals_log(self) -> Path:
        """Append-only `EvalRecord`s."""
        return self.path / "metrics" / "evals.jsonl"

    @property
    def events_log(self) -> Path:
        """Append-only `EventRecord`s."""
        return self.path / "metrics" / "events.jsonl"

    @property
    def average_evals_log(self) -> Path:
        """Append-only `EvalRecord`s of the average of the weights, where a run keeps one."""
        return self.path / "metrics" / "average_evals.jsonl"

    @property
    def fisher(self) -> Path:
        """How much old text's likelihood hangs on each weight, at the base (EWC)."""
        return self.path / "fisher"

    @property
    def logs(self) -> tuple[Path, ...]:
        """The append-only records of what happened."""
        return (self.steps_log, self.evals_log, self.average_evals_log, self.events_log)

    @property
    def facts(self) -> tuple[Path, ...]:
        """All that a checkpoint needs beside it for the run to be whole."""
        return (self.plan, self.recipe, self.placement, self.amendments, *self.logs)

    @property
    def report(self) -> Path:
        """The self-contained HTML report."""
        return self.path / "report.html"

    @property
    def export(self) -> Path:
        """The exported Hugging Face folder."""
        return self.path / "export"

    @property
    def average_export(self) -> Path:
        """The same of the average of the weights."""
        return self.path / "export-average"

    @property
    def against(self) -> Path:
        """What it comes to beside its control and beside joint training, an `AgainstOthers`."""
        return self.path / "against.json"

    @property
    def membership(self) -> Path:
        """What it is in the comparison that it is part of, a `Membership`."""
        return self.path / "comparison.json"

    @property
    def exit_code(self) -> Path:
        """The code that its last launch ended with, where it was one of several."""
        return self.path / "exit_code"

    @property
    def weight_change(self) -> Path:
        """How far its weights have gone from the base's, a `WeightChange`."""
        return self.path / "weight_change.json"

    @property
    def merge_points(self) -> Path:
        """Append-only `MergePoint`s."""
        return self.path / "metrics" / "merge_points.jsonl"

    @property
    def merge_sweep(self) -> Path:
        """The last trade-off curve, a `MergeSweep`."""
        return self.path / "merge_sweep.json"

    @property
    def merge_report(self) -> Path:
        """The trade-off curve as an HTML page."""
        return self.path / "merge.html"

    @property
    def merge_figure(self) -> Path:
        """The trade-off curve as a drawing that stands alone."""
        return self.path / "merge.svg"

    @property
    def merged(self) -> Path:
        """The folder of a model that was merged from this run and others."""
        return self.path / "merged"

    @property
    def output(self) -> Path:
        """What a run said that was trained beside others, where nobody watched it alone."""
        return self.path / "train.log"

    def has_begun(self) -> bool:
        """Tell whether anything of a training is on the disk."""
        return any(path.exists() for path in (self.checkpoints, self.steps_log, self.events_log))

    def make_log_folder(self) -> None:
        """Create the folder of the logs where it is missing; EnvironmentFault where it cannot."""
        make_folder(self.steps_log.parent)

    def append_step(self, record: StepRecord) -> None:
        """Append the record of one step."""
        append_json_line(self.steps_log, record.model_dump())

    def append_evals(self, records: Iterable[EvalRecord]) -> None:
        """Append evaluation records."""
        for record in records:
            append_json_line(self.evals_log, record.model_dump())

    def append_average_evals(self, records: Iterable[EvalRecord]) -> None:
        """Append evaluation records of the average of the weights."""
        for record in records:
            append_json_line(self.average_evals_log, record.model_dump())

    def append_event(self, kind: str, step: int, message: str, **details: Any) -> None:
        """Append an event with the present time, and wait until it is on the disk."""
        record = EventRecord.model_validate(
            {
                "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "kind": kind,
                "step": step,
                "message": message,
                "details": details,
            }
        )
        append_json_line(self.events_log, record.model_dump(), durable=True)

    def flush_records(self) -> None:
        """Wait until the records of steps and evaluations are on the disk.

        A checkpoint vouches for them: what was taken before it is never taken again.
        """
        for path in (self.steps_log, self.evals_log, self.average_evals_log):
            if path.exists():
                with path.open("rb") as file:
                    os.fsync(file.fileno())

    def steps(self) -> list[StepRecord]:
        """Return the last record of every step that was not skipped, in order of the steps."""
        last = {record.step: record for record in records_of(self.steps_log, StepRecord)}
        for amendment in self.amended():
            if amendment.change == "skip":
                for step in range(amendment.from_step, amendment.until_step):
                    last.pop(step, None)
        return [last[step] for step in sorted(last)]

    def spent_in_steps(self) -> tuple[float, float]:
        """Return the seconds of all steps that were ever taken, and what they waited for data."""
        taken = list(records_of(self.steps_log, StepRecord))
        return sum(r.step_s for r in taken), sum(r.data_wait_s for r in taken)

    def amended(self) -> list[Amendment]:
        """Return the amendments on record, not looking whether each follows from the one before."""
        return list(records_of(self.amendments, Amendment))

    def newest_steps(self) -> list[StepRecord]:
        """Return the records at the end of the log, a few of any number, as they were written.

        Cheap however long the log is: for whoever watches a run.
        """
        try:
            with self.steps_log.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                lines = file.read().split(b"\n")
        except OSError:
            return []
        return list(_parsed((line for line in lines if line), StepRecord))

    def last_lines(self) -> str:
        """Return the last lines of its output, for whoever wants to know why it failed."""
        try:
            text = self.output.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        return "\n".join(lines[-_NUM_LAST_LINES:])

    def is_measured_after(self, step: int) -> bool:
        """Tell whether what was measured of the base was measured after so many updates too."""
        places: dict[int, set[tuple[str, str]]] = {0: set(), step: set()}
        for record in self.evals():
            if record.step in places:
                places[record.step].add((record.domain, record.metric))
        return bool(places[0]) and places[0] <= places[step]

    def is_done_after(self, step: int) -> bool:
        """Tell whether a run was measured after this update, its last, and then came to its end.

        What is measured there is measured before it is saved.
        """
        if not self.is_measured_after(step):
            return False
        events = self.events()
        return not events or any(e.kind == "finish" and e.step >= step for e in events)

    def state_after(self, num_steps: int) -> RunState:
        """Return how far a run of so many steps is, by its folder alone."""
        if self.is_done_after(num_steps):
            return "done"
        if self._ended_with() is not None:  # 0, too: it ended, and what makes it done is not there
            return "failed"
        return "running" if self.steps_log.exists() else "waiting"

    def _ended_with(self) -> int | None:
        """Return what its last launch ended with, where it was one of several; a launch that is
        under way has none."""
        try:
            return int(self.exit_code.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def evals(self) -> list[EvalRecord]:
        """Return the last record of every (step, domain, metric), in order of the steps."""
        return _last_evals(self.evals_log)

    def average_evals(self) -> list[EvalRecord]:
        """Return the same of the average of the weights, with the base at step 0, where it begins;
        nothing where there is none.
        """
        found = _last_evals(self.average_evals_log)
        return [record for record in self.evals() if found and record.step == 0] + found

    def append_merge_point(self, point: MergePoint) -> None:
        """Append what was measured of a merged model."""
        append_json_line(self.merge_points, point.model_dump(), durable=True)

    def merge_points_of(self, sweep: str) -> dict[float, MergePoint]:
        """Return the last record of each weight of a sweep."""
        points = records_of(self.merge_points, MergePoint)
        return {point.weight: point for point in points if point.sweep == sweep}

    def events(self) -> list[EventRecord]:
        """Return all events in the order in which they happened."""
        return list(records_of(self.events_log, EventRecord))

    def memory(self) -> LaunchMemory | None:
        """Return what the launch took whose steps took most, of those that ended in good order, and
        of those that no profiler watched where there are any; None where none measured it.
        """
        ends = (event for event in self.events() if event.kind in ("stop", "finish"))
        values = (event.details.get("memory") for event in ends)
        found = list(parsed_values(values, LaunchMemory))
        plain = [memory for memory in found if not memory.profiled]
        return max(plain or found, key=lambda memory: memory.steps_bytes, default=None)

    def peak_bytes(self) -> int | None:
        """Return what steps took at most, the process's own left out; None where no launch that
        ended in good order could tell steps from what is around them, or each was profiled.
        """
        memory = self.memory()
        if memory is None or memory.profiled or not memory.told_apart:
            return None
        return memory.steps_bytes


def _last_evals(log: Path) -> list[EvalRecord]:
    last = {(r.step, r.domain, r.metric): r for r in records_of(log, EvalRecord)}
    return sorted(last.values(), key=lambda record: record.step)


def _parsed(lines: Iterable[bytes], kind: type[_R]) -> Iterable[_R]:
    for line in lines:
        with contextlib.suppress(ValueError):  # pydantic's errors are such, too
            yield kind.model_validate(parse_json(line))
