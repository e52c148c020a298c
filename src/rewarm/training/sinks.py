"""Where records go: the run folder's logs, which are the truth, and whoever else listens.

A sink shows what the run folder already holds: a console, TensorBoard, Weights & Biases. Losses and
rates are drawn at the number of updates taken before them, as evaluations are.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rewarm.errors import EnvironmentFault, Problems, UserError
from rewarm.records.facts import EvalRecord, StepRecord
from rewarm.records.run_folder import RunFolder

__all__ = [
    "SINK_NAMES",
    "Journal",
    "Sink",
    "TensorBoardSink",
    "WandbSink",
    "check_sinks",
    "open_sink",
]

SINK_NAMES = ("tensorboard", "wandb")
_LOGGED_SILENTLY = frozenset({"checkpoint", "mirrored"})


class Sink(Protocol):
    """Whoever wants to see a run's records as they come."""

    def show_step(self, record: StepRecord, /) -> None:
        """Take the record of a step."""
        ...

    def show_evals(self, records: Sequence[EvalRecord], /) -> None:
        """Take the records of one evaluation."""
        ...

    def say(self, message: str, /) -> None:
        """Take a line for people."""
        ...


@dataclass(frozen=True, slots=True)
class Journal:
    """Writes to the run folder first, then tells the sinks; of many ranks the main one does."""

    run: RunFolder
    sinks: tuple[Sink, ...] = ()
    writes: bool = True

    def step(self, record: StepRecord) -> None:
        """Log a step."""
        if not self.writes:
            return
        self.run.append_step(record)
        for sink in self.sinks:
            sink.show_step(record)

    def evals(self, records: Sequence[EvalRecord]) -> None:
        """Log one evaluation."""
        if not self.writes:
            return
        self.run.append_evals(records)
        for sink in self.sinks:
            sink.show_evals(records)

    def average_evals(self, records: Sequence[EvalRecord]) -> None:
        """Log one evaluation of the average of the weights, apart from the weights' own."""
        if self.writes:
            self.run.append_average_evals(records)

    def event(self, kind: str, step: int, message: str, /, **details: Any) -> None:
        """Log an event and, unless it is routine, say it; `kind` is one of `EventRecord`'s."""
        if not self.writes:
            return
        self.run.append_event(kind, step, message, **details)
        if kind not in _LOGGED_SILENTLY:
            self.say(message)

    def say(self, message: str) -> None:
        """Tell people what need not be on record."""
        for sink in self.sinks:
            sink.say(message)


class TensorBoardSink:
    """Scalars of steps and evaluations as a TensorBoard event file."""

    def __init__(self, folder: Path) -> None:
        """Raises EnvironmentFault where the package is missing."""
        _require("tensorboard", sink="tensorboard")
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        self._writer: Any = writer(log_dir=str(folder))

    def show_step(self, record: StepRecord, /) -> None:
        """Write a step's scalars."""
        for name, value in _step_scalars(record).items():
            self._writer.add_scalar(name, value, record.step)

    def show_evals(self, records: Sequence[EvalRecord], /) -> None:
        """Write an evaluation's scalars."""
        for record in records:
            self._writer.add_scalar(_eval_name(record), record.value, record.step)
        self._writer.flush()

    def say(self, message: str, /) -> None:
        """Leave lines to the run folder."""

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WandbSink:
    """Scalars of steps and evaluations as a Weights & Biases run.

    The key comes from wandb's own environment and login. `step` is a metric of ours, not wandb's
    counter, which refuses the steps that are taken again after a resume.
    """

    def __init__(self, folder: Path, *, run_name: str, run_id: str) -> None:
        """`run_id` joins a run's launches. Raises EnvironmentFault where wandb is missing."""
        wandb = _require("wandb", sink="wandb")
        self._run: Any = wandb.init(
            project="rewarm", name=run_name, id=run_id, resume="allow", dir=str(folder)
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def show_step(self, record: StepRecord, /) -> None:
        """Send a step's scalars."""
        self._run.log({"step": record.step, **_step_scalars(record)})

    def show_evals(self, records: Sequence[EvalRecord], /) -> None:
        """Send an evaluation's scalars."""
        for record in records:
            self._run.log({"step": record.step, _eval_name(record): record.value})

    def say(self, message: str, /) -> None:
        """Leave lines to the run folder."""

    def close(self) -> None:
        """Finish the upload."""
        self._run.finish()


def open_sink(
    name: str, run: RunFolder, *, run_name: str, fingerprint: str
) -> TensorBoardSink | WandbSink:
    """Return the sink of that name for a run; whoever opens it closes it.

    Raises UserError for an unknown name, EnvironmentFault where its package is missing.
    """
    check_sinks([name])
    if name == "tensorboard":
        return TensorBoardSink(run.path / "tensorboard")
    return WandbSink(run.path, run_name=run_name, run_id=f"{run_name}-{fingerprint[:8]}")


def check_sinks(names: Iterable[str]) -> None:
    """Raise UserError naming every unknown sink."""
    problems = Problems()
    for name in names:
        if name not in SINK_NAMES:
            near = difflib.get_close_matches(name, SINK_NAMES, n=1)
            problems.add(
                "--sink",
                f"{name!r} is not a sink",
                f"did you mean {near[0]}?" if near else f"use one of: {', '.join(SINK_NAMES)}",
            )
    problems.raise_as(UserError)


def _require(package: str, *, sink: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise EnvironmentFault(
            f"the sink {sink} needs the package {package}, which cannot be imported ({error})",
            f"pip install 'rewarm[{sink}]', or leave the sink out: the run folder holds all of it",
        ) from error


def _step_scalars(record: StepRecord) -> dict[str, float]:
    return {
        "train/loss_nats_per_token": record.loss,
        "train/lr": record.lr,
        "train/grad_norm": record.grad_norm,
        "train/num_tokens": record.num_tokens,
        "train/step_s": record.step_s,
    }


def _eval_name(record: EvalRecord) -> str:
    return f"{record.metric}/{record.domain}"
