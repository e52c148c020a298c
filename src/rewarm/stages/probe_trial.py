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

from rich.console import Console

from rewarm.artifacts import read_json, write_json
from rewarm.errors import RewarmError, RunFolderError, is_out_of_memory
from rewarm.model.load import import_family
from rewarm.planning.footprint import peak_of_placement
from rewarm.planning.plan import Placement, Plan, load_plan, save_plan
from rewarm.recipe.steps import GuardRecipe
from rewarm.records.facts import StepRecord
from rewarm.records.probe import Trial
from rewarm.records.probe_trial import TrialReply, TrialRequest
from rewarm.records.run_folder import RunFolder
from rewarm.stages.train import train_plan
from rewarm.training.placement import choose_placement
from rewarm.training.state import TrainState
from rewarm.training.usage import MemoryMeter, PowerMeter, process_age_s
from rewarm.units import format_bytes

__all__ = ["main"]

# The first steps fault memory in and choose kernels.
_WARM_UP_STEPS = 2
_FEWEST_STEPS, _MOST_STEPS = 4, 40
_ENOUGH_S = 12.0
# Of what the machine has left, or of a GPU's memory.
_LIMIT_SHARE = 0.9
# Beyond what the estimate is ever off: on a CPU what does not fit would end other processes too.
_HOPELESS = 1.2


class StopWatch:
    """Times the steps of a launch from one's end to the next one's, and ends it after some."""

    def __init__(self, device: str) -> None:
        self.power = PowerMeter(device)
        self.start_s = 0.0
        self.num_trained: int | None = None
        self._ends: list[float] = []

    def before_train(self, state: TrainState, /) -> None:
        """Note that the launch is ready; what loading took is no step's.

        It is told again where another stage of freezing begins.
        """
        if self._ends:
            return
        self.start_s = process_age_s()
        trained = (p for group in state.optimizer.param_groups for p in group["params"])
        self.num_trained = sum(parameter.numel() for parameter in trained)
        self.power.begin()
        self._ends = [time.perf_counter()]

    def after_step(self, state: TrainState, record: StepRecord | None, /) -> None:
        """Note the step, and stop where enough were taken."""
        self._ends.append(time.perf_counter())
        num, took = len(self.steps_s), sum(self.steps_s)
        if num >= _MOST_STEPS or (num >= _FEWEST_STEPS and took > _ENOUGH_S):
            self.power.end()
            os.kill(os.getpid(), signal.SIGTERM)  # as whoever ends a launch in good order

    def on_stop(self, state: TrainState, /) -> None:
        """All steps are timed."""

    @property
    def steps_s(self) -> list[float]:
        """Seconds of each step after those that warm up; of a run that has no more, of all."""
        pairs = zip(self._ends[:-1], self._ends[1:], strict=True)
        steps = [after - before for before, after in pairs]
        return steps[_WARM_UP_STEPS:] or steps


def main(path: Path) -> None:
    """Answer one request."""
    value = read_json(path, what="a trial's request", error=RunFolderError)
    request = TrialRequest.model_validate(value)
    folder = Path(request.folder)
    plan = _as_asked(load_plan(folder / "plan.json"), request)
    science, conduct = plan.science, plan.conduct
    placement, _ = choose_placement(conduct.training, science, conduct.model)
    # What the library takes is the process's own, as in a launch.
    import_family(Path(conduct.base_folder))
    memory = MemoryMeter(placement.device)
    watch = StopWatch(placement.device)
    limit = int(memory.limit_bytes() * _LIMIT_SHARE)
    predicted = peak_of_placement(placement, science, conduct.model, conduct.model.num_parameters)

    def reply(trial: Trial, placement: Placement = placement) -> None:
        answer = TrialReply(
            trial=trial,
            placement=placement.model_dump(mode="json"),
            limit_bytes=limit,
            num_trained=watch.num_trained or conduct.model.num_parameters,
        )
        write_json(folder / "reply.json", answer.model_dump(mode="json"))

    unfit = Trial(
        micro_batch_sequences=placement.micro_batch_sequences,
        checkpointing=placement.checkpointing,
        fits=False,
        process_bytes=memory.process_bytes,
        predicted_bytes=predicted,
    )
    if placement.device == "cpu" and memory.process_bytes + predicted > _HOPELESS * limit:
        reply(unfit.model_copy(update={"why": f"would take some {format_bytes(predicted)}"}))
        return
    reply(unfit)
    run = RunFolder(folder / "run")
    run.path.mkdir()
    save_plan(plan, run.plan)
    try:
        train_plan(plan, run, command="", console=Console(quiet=True), hooks=[watch])
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reply(unfit.model_copy(update={"why": "out of memory"}))
        return
    found = Placement.model_validate(
        read_json(run.placement, what="a trial's placement", error=RunFolderError)
    )
    reply(_trial(plan, request, run, watch, found, limit), found)


def _as_asked(plan: Plan, request: TrialRequest) -> Plan:
    """Return the plan laid as the request says, measured at the base where it says so."""
    conduct = plan.conduct
    wanted = {
        "micro_batch_sequences": request.micro_batch_sequences,
        "activation_checkpointing": request.checkpointing,
    }
    training = conduct.training.model_copy(
        update={name: value for name, value in wanted.items() if value is not None}
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


def _trial(
    plan: Plan,
    request: TrialRequest,
    run: RunFolder,
    watch: StopWatch,
    placement: Placement,
    limit: int,
) -> Trial:
    """Return what the steps of a launch that has ended came to."""
    evals = run.evals()
    saves = [event.details for event in run.events() if event.kind == "checkpoint"]
    evaluation_s = sum(record.seconds for record in evals)
    model = plan.conduct.model
    memory = run.memory()
    assert memory is not None, "it ended in good order"
    return Trial(
        micro_batch_sequences=placement.micro_batch_sequences,
        checkpointing=placement.checkpointing,
        fits=max(memory.held_bytes, memory.other_bytes) <= limit,
        num_steps=len(watch.steps_s),
        step_s=statistics.median(watch.steps_s),
        slowest_step_s=max(watch.steps_s),
        peak_bytes=memory.held_bytes,
        other_peak_bytes=memory.other_bytes,
        process_bytes=memory.process_bytes,
        steps_bytes=memory.steps_bytes if memory.told_apart else None,
        predicted_bytes=peak_of_placement(
            placement, plan.science, model, watch.num_trained or model.num_parameters
        ),
        start_s=max(0.0, watch.start_s - evaluation_s),
        evaluation_tokens=sum(measure.tokens for measure in plan.evaluation) if evals else 0,
        evaluation_s=evaluation_s,
        checkpoint_bytes=_size_of(run.checkpoints) if request.measures_all else 0,
        checkpoint_s=float(str(saves[-1]["blocked_s"])) if saves else 0.0,
        watts=watch.power.mean_watts,
    )


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except RewarmError as error:
        sys.exit(" ".join(str(error).split()))
