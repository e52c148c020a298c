"""One trial of a probe: a real launch in a folder that is thrown away, stopped after some steps.

Run as `python -m rewarm.stages.probe_trial request.json`; the reply lies beside the request.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
from pathlib import Path

import torch
from rich.console import Console

from rewarm.artifacts import read_json, write_json
from rewarm.errors import RewarmError, RunFolderError
from rewarm.model.load import base_without_weights
from rewarm.planning.budget import state_bytes
from rewarm.planning.footprint import shape_of_placement
from rewarm.planning.memory import peak_memory
from rewarm.planning.plan import Placement, Plan, load_plan, save_plan
from rewarm.recipe.steps import GuardRecipe
from rewarm.records.facts import StepRecord
from rewarm.records.probe import Trial
from rewarm.records.probe_trial import TrialReply, TrialRequest
from rewarm.records.run_folder import RunFolder
from rewarm.stages.train import train_plan
from rewarm.training.state import TrainState
from rewarm.training.usage import MemoryMeter, PowerMeter, process_age_s

__all__ = ["main"]

# The first steps fault memory in and choose kernels.
_WARM_UP_STEPS = 2
_FEWEST_STEPS, _MOST_STEPS = 4, 40
_ENOUGH_S = 12.0
# Of what the machine has left, or of a GPU's memory.
_LIMIT_SHARE = 0.9


class StopWatch:
    """Times the steps of a launch from one's end to the next one's, and ends it after some."""

    def __init__(self, device: str) -> None:
        self.memory = MemoryMeter(device)
        self.power = PowerMeter(device)
        self.ends: list[float] = []
        self.start_s = 0.0
        self.num_trained = 0

    def before_train(self, state: TrainState, /) -> None:
        """Note that the launch is ready; what loading took is no step's."""
        self.start_s = process_age_s()
        trained = (p for group in state.optimizer.param_groups for p in group["params"])
        self.num_trained = sum(parameter.numel() for parameter in trained)
        self.memory.begin()
        self.power.begin()

    def after_step(self, state: TrainState, record: StepRecord | None, /) -> None:
        """Note the step, and stop where enough were taken."""
        self.memory.look()
        self.ends.append(time.perf_counter())
        steps = self.steps_s
        if len(steps) >= _MOST_STEPS or (len(steps) >= _FEWEST_STEPS and sum(steps) > _ENOUGH_S):
            self.power.end()
            os.kill(os.getpid(), signal.SIGTERM)  # as whoever ends a launch in good order

    def on_stop(self, state: TrainState, /) -> None:
        """All steps are noted."""

    @property
    def steps_s(self) -> list[float]:
        """Seconds of each step after those that warm up."""
        pairs = zip(self.ends[:-1], self.ends[1:], strict=True)
        return [after - before for before, after in pairs][_WARM_UP_STEPS - 1 :]


def main(path: Path) -> None:
    """Answer one request."""
    value = read_json(path, what="a trial's request", error=RunFolderError)
    request = TrialRequest.model_validate(value)
    folder = Path(request.folder)
    plan = _as_asked(load_plan(folder / "plan.json"), request)
    device = "cuda" if _wants_gpu(plan) else "cpu"
    # What the library takes is the process's own, and loaded with the first model.
    base_without_weights(Path(plan.conduct.base_folder))
    watch = StopWatch(device)
    limit = int(watch.memory.limit_bytes() * _LIMIT_SHARE)
    run = RunFolder(folder / "run")
    run.path.mkdir()
    save_plan(plan, run.plan)
    train_plan(plan, run, command="rewarm plan --probe", console=Console(quiet=True), hooks=[watch])
    write_json(folder / "reply.json", _reply(plan, request, run, watch, limit).model_dump())


def _wants_gpu(plan: Plan) -> bool:
    return plan.conduct.training.device != "cpu" and torch.cuda.is_available()


def _as_asked(plan: Plan, request: TrialRequest) -> Plan:
    """Return the plan laid as the request says, measured at the base where it says so."""
    conduct = plan.conduct
    training = conduct.training.model_copy(
        update={
            "micro_batch_sequences": request.micro_batch_sequences,
            "activation_checkpointing": request.checkpointing,
        }
    )
    never = plan.science.num_steps + 1
    changed = conduct.model_copy(
        update={
            "training": training,
            "guard": GuardRecipe(spike="off"),
            "evaluation_steps": (0,) if request.measures_all else (),
            "checkpoints": conduct.checkpoints.model_copy(
                update={"mirror": None, "keep_every_steps": None}
            ),
            "checkpoint_every": never,
        }
    )
    return plan.model_copy(update={"conduct": changed})


def _reply(
    plan: Plan, request: TrialRequest, run: RunFolder, watch: StopWatch, limit: int
) -> TrialReply:
    placement = Placement.model_validate(
        read_json(run.placement, what="a trial's placement", error=RunFolderError)
    )
    steps = watch.steps_s or watch.ends[-1:]
    evals = run.evals()
    saves = [event.details for event in run.events() if event.kind == "checkpoint"]
    shape = shape_of_placement(placement, plan.science)
    trained = watch.num_trained
    state = state_bytes(plan.conduct.model, plan.science.optimizer.kind, trained) - 4 * trained
    peak = peak_memory(plan.conduct.model, shape, state_bytes=state, num_trained=trained)
    evaluation_s = sum(record.seconds for record in evals)
    tokens = sum(measure.tokens for measure in plan.evaluation)
    trial = Trial(
        micro_batch_sequences=request.micro_batch_sequences,
        checkpointing=request.checkpointing,
        fits=watch.memory.peak_bytes <= limit,
        num_steps=len(steps),
        step_s=statistics.median(steps),
        slowest_step_s=max(steps),
        peak_bytes=watch.memory.peak_bytes,
        process_bytes=watch.memory.process_bytes,
        predicted_bytes=peak.total,
        start_s=max(0.0, watch.start_s - evaluation_s),
        evaluation_tokens=tokens if evals else 0,
        evaluation_s=evaluation_s,
        checkpoint_bytes=_size_of(run.checkpoints) if request.measures_all else 0,
        checkpoint_s=float(str(saves[-1]["blocked_s"])) if saves else 0.0,
        watts=watch.power.mean_watts,
    )
    return TrialReply(trial=trial, placement=placement.model_dump(mode="json"), limit_bytes=limit)


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except RewarmError as error:
        sys.exit(" ".join(str(error).split()))
