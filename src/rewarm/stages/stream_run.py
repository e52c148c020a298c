"""One backbone with one learner and one seed over a stream, from wherever the run stands.

Its folder is laid out as any run's: `plan.json`, checkpoints, and append-only records of steps and
events. SIGTERM and a key press end it between two steps, with a checkpoint.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from rewarm.artifacts import parse_json, write_json
from rewarm.distributed.tensor_files import fill_from_safetensors, read_headers, write_tensors
from rewarm.distributed.world import ALONE
from rewarm.errors import CheckpointError, PlanError, Problem
from rewarm.records.run_folder import RunFolder
from rewarm.records.stream import StreamRun
from rewarm.records.stream_steps import StreamStep, StreamStepsLog
from rewarm.stages.stream_learners import BuiltLearner, build_learner, memory_of
from rewarm.stages.terminated import TerminatedError
from rewarm.stream.course import Progress, run_record, second_stage, take_course
from rewarm.stream.experiment import StreamExperiment
from rewarm.stream.inputs import Inputs
from rewarm.stream.learning import Learning, LossNotFinite, Update
from rewarm.stream.metrics import Look
from rewarm.stream.network import build_network
from rewarm.stream.scenario import Scenario
from rewarm.stream.sections import BackboneRecipe, LearnerRecipe
from rewarm.stream.state import State, part, under
from rewarm.training.checkpoint import CheckpointStore
from rewarm.training.signals import SignalRequests, listen_to_signals

__all__ = ["OneRun", "RunPlace"]

_FACTS = "progress.json"
_TENSORS = "state"


class RunPlace(NamedTuple):
    """Where a run leaves checkpoints and records, how often, and what all of it hangs on."""

    run: RunFolder
    every_s: float
    fingerprint: str
    tell: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class OneRun:
    """A run that was killed goes on from its newest checkpoint and comes to the same figures."""

    names: Mapping[str, str]
    seed: int
    backbone: BackboneRecipe
    recipe: LearnerRecipe
    experiment: StreamExperiment
    scenario: Scenario
    inputs: Inputs
    device: torch.device

    def carry_out(self, place: RunPlace) -> StreamRun:
        """Return what is written down of the run; raises PlanError where its loss runs away."""
        with torch.random.fork_rng():
            learning = self._learning()
            built = build_learner(self.recipe, self.experiment, learning, self.seed)
            try:
                return _Course(self, learning, built, place).take()
            except LossNotFinite as error:
                raise self._told(error) from error

    def _told(self, error: LossNotFinite) -> PlanError:
        backbone, learner = self.names["backbone"], self.names["learner"]
        fix = "give this backbone a lower one"
        if self.recipe.algorithm == "ewc++":
            # Plain SGD follows a pull to where it is only while lr · λ · F stays below 2.
            fix += f", or learners.{learner}.ewc, which is {self.recipe.ewc:g}"
        what = f"{learner}, seed {self.seed}: {error}"
        return PlanError([Problem(f"backbones.{backbone}.lr", what, fix)])

    @staticmethod
    def clear(place: RunPlace) -> None:
        """Delete the checkpoints of a run that is written down."""
        shutil.rmtree(place.run.checkpoints, ignore_errors=True)

    def _learning(self) -> Learning:
        num_classes = sum(map(len, self.scenario.tasks))
        example = self.inputs.rows(np.arange(1))
        network = build_network(self.backbone, num_classes, self.seed, example).to(self.device)
        network.train()
        return Learning(
            network=network,
            inputs=self.inputs,
            labels=torch.from_numpy(self.scenario.labels),
            memory=memory_of(self.experiment.memory),
            memory_batch=self.experiment.memory.num_examples_per_step,
            lr=self.backbone.learning_rate,
            seed=self.seed,
        )


class _Course:
    def __init__(
        self, run: OneRun, learning: Learning, built: BuiltLearner, place: RunPlace
    ) -> None:
        self._run, self._learning, self._built, self._place = run, learning, built, place
        self._store = CheckpointStore(place.run.checkpoints, keep=1)
        self._log = StreamStepsLog(place.run)
        self._elapsed_s = 0.0  # of launches before this one

    def take(self) -> StreamRun:
        """Take the course to its end; raises KeyboardInterrupt, with a checkpoint, where a signal
        asks for the end."""
        self._place.run.make_log_folder()
        progress = self._begin()
        with listen_to_signals() as requests:
            self._learning.on_update = partial(self._note, progress, requests)
            try:
                record = self._take(progress, requests)
            finally:
                self._log.write()
        self._log.flush()
        self._event("finish", f"finished after {self._learning.num_updates} updates")
        return record

    def _take(self, progress: Progress, requests: SignalRequests) -> StreamRun:
        scenario = self._run.scenario
        started = saved = time.perf_counter()
        every = self._run.experiment.scenario.evaluate_every
        for _ in take_course(
            self._built.learner, self._learning, scenario, progress, evaluate_every=every
        ):
            now = time.perf_counter()
            if now - saved >= self._place.every_s or requests.stop_signal is not None:
                self._save(progress, self._elapsed_s + now - started)
                saved = time.perf_counter()
            self._leave_if_asked(requests)
        second = None
        if num_epochs := self._run.recipe.second_stage_epochs:
            kept, moment = self._built.kept(), progress.moment
            second = second_stage(self._learning, scenario, kept, num_epochs, moment=moment)
        elapsed_s = self._elapsed_s + time.perf_counter() - started
        return run_record(self._run.names, self._run.seed, progress, second, elapsed_s)

    def _note(self, progress: Progress, requests: SignalRequests, update: Update) -> None:
        """Record an update."""
        self._log.append(
            StreamStep(
                step=update.number,
                loss=update.loss,
                lr=self._learning.lr,
                task=progress.task,
                part=update.part,
                num_examples=update.num_examples,
                step_s=update.elapsed_s,
            )
        )
        if update.part != "task":  # it is gone through again whole: there is nothing to save
            self._leave_if_asked(requests)

    def _leave_if_asked(self, requests: SignalRequests) -> None:
        name = requests.stop_signal
        if name is not None:
            self._log.flush()
            self._event("stop", f"stopped by {name}")
            raise TerminatedError if name == "SIGTERM" else KeyboardInterrupt

    def _event(self, kind: str, message: str) -> None:
        self._place.run.append_event(kind, self._learning.num_updates, message)

    def _begin(self) -> Progress:
        """Return where the run stands: what cannot be gone on from is thrown away."""
        self._store.remove_leftovers()
        try:
            found = self._store.find_newest_verified().path
            if found is not None:
                facts = parse_json((found / _FACTS).read_bytes())
                if facts["fingerprint"] == self._place.fingerprint:
                    return self._restore(found, facts)
        except CheckpointError as error:
            damage = "; ".join(problem.what for problem in error.problems)
            told = f"{self._place.run.checkpoints} is damaged ({damage}): begun again"
            self._event("passed_over", told)
            self._place.tell(told)
        self._store.discard(self._store.paths())
        self._event("launch", "begun")
        return Progress()

    def _restore(self, folder: Path, facts: Mapping[str, Any]) -> Progress:
        tensors = {
            name: torch.empty(header.shape, dtype=header.dtype)
            for name, header in read_headers(folder, _TENSORS).items()
        }
        fill_from_safetensors(folder / f"{_TENSORS}.safetensors", tensors)
        self._learning.restore(State(part("learning", tensors), facts["learning"]))
        self._built.own.restore(State(part("own", tensors), facts["own"]))
        self._elapsed_s = float(facts["elapsed_s"])
        looks = [
            Look(int(task), int(step), dict(enumerate(values)))
            for task, step, values in facts["looks"]
        ]
        task, step, moment = facts["place"]
        told = f"goes on at step {step} of task {task + 1}"
        self._event("resume", told)
        self._place.tell(told)
        return Progress(task, step, moment, facts["matrix"], looks)

    def _save(self, progress: Progress, elapsed_s: float) -> None:
        learning, own = self._learning.state(), self._built.own.state()
        together = {**under("learning", learning.tensors), **under("own", own.tensors)}
        # Copies: an anchor's Fisher information is the running one just after a task.
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in together.items()}
        looks = [[look.task, look.step, list(look.accuracy.values())] for look in progress.looks]
        facts = {
            "fingerprint": self._place.fingerprint,
            "place": [progress.task, progress.step, progress.moment],
            "matrix": progress.matrix,
            "looks": looks,
            "learning": learning.facts,
            "own": own.facts,
            "elapsed_s": elapsed_s,
        }

        self._log.flush()  # what a checkpoint has taken is never taken again

        def write(folder: Path) -> None:
            write_tensors(folder, {_TENSORS: tensors}, ALONE)
            write_json(folder / _FACTS, facts)

        self._store.save(progress.moment, write)
