"""A run from launch to end: lock, newest checkpoint or base, loop. Read `loop.py` before it.

Everything concrete is handed in by the stage; what is composed here is what resuming needs.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from rewarm.artifacts import read_json, write_json
from rewarm.batches.loader import BatchLoader, PrefetchedBatches
from rewarm.distributed.world import ALONE, World, told_as_lost_rank
from rewarm.errors import EnvironmentFault, RunFolderError
from rewarm.planning.amended import amended
from rewarm.planning.amendments import Amendments
from rewarm.planning.plan import Placement, Plan, Science, load_plan
from rewarm.planning.trainable import Stage
from rewarm.records.memory import LaunchMemory, greatest
from rewarm.records.run_folder import RunFolder
from rewarm.training.checkpoint import CheckpointStore, Search, step_of
from rewarm.training.course import Course
from rewarm.training.forgetting import ActOnForgetting
from rewarm.training.guard import Guard, RollBack
from rewarm.training.hooks import (
    AverageWeights,
    Evaluate,
    Hook,
    LogSteps,
    MeasureMemory,
    SaveCheckpoints,
)
from rewarm.training.laps import Laps
from rewarm.training.lock import RunLock, hold_lock
from rewarm.training.loop import train
from rewarm.training.materials import Materials, load_root
from rewarm.training.mirror.launch import LaunchMirror
from rewarm.training.placement import placement_changes
from rewarm.training.retained import Retained
from rewarm.training.saved import check_plan, read_saved_state
from rewarm.training.saver import CheckpointSaver
from rewarm.training.settling import FreezeSettledLayers
from rewarm.training.signals import AgreedRequests, SignalRequests, listen_to_signals
from rewarm.training.sinks import Journal
from rewarm.training.stages import begin_stage, let_train_at, optimizer_before, turn_to_stage
from rewarm.training.state import TrainState, read_state
from rewarm.training.step import Stepper
from rewarm.training.usage import MemoryMeter, StepMemory

__all__ = ["Ending", "run_training"]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a launch ended: after `step` updates; `signal` names the one that asked, if one did.

    `forgot`: it stopped for what it has forgotten, as the recipe says.
    """

    step: int
    finished: bool
    signal: str | None = None
    forgot: bool = False


def run_training(
    plan: Plan,
    placement: Placement,
    run: RunFolder,
    materials: Materials,
    *,
    resume_with: str,
    until_step: int | None = None,
    world: World = ALONE,
) -> Ending:
    """Train a run to its end, or to `until_step` updates, from wherever it stands.

    `resume_with` is the command that goes on, for messages; `world` the ranks that train together,
    all of which call this (only the main one writes and tells). Raises RunFolderError (in use,
    another plan), CheckpointError (checkpoints, but none to be trusted), NonFiniteStep, LossSpike,
    NoSkipLeft, CorpusError, EnvironmentFault, and of many ranks LostRankFault and FaultElsewhere;
    whatever is raised, the same command then goes on from what is on the disk.
    """
    journal = Journal(run, tuple(materials.sinks), writes=world.is_main)
    with ExitStack() as stack:
        held = _hold(plan, run, journal, world, stack)
        mirror = held.mirror
        found = mirror.find_newest(held.course)
        if found.path is not None:
            check_plan(read_saved_state(found.path), plan.science, where=run.path)
            if step_of(found.path) == plan.science.num_steps:
                mirror.finish()
                journal.say(f"finished already, after {plan.science.num_steps} steps")
                return Ending(plan.science.num_steps, finished=True)
        requests = stack.enter_context(listen_to_signals(speaks=world.is_main))

        memory = StepMemory(MemoryMeter(placement.device))
        retained = Retained.of(plan, placement, materials, world, journal, held.notices)

        def begin(found: Search) -> TrainState:
            return _begin(plan, placement, materials, found, world, held, retained)

        state = begin(found)
        placement = materials.settled(placement)
        materials.laps.lap("optimizer made, checkpoint read")
        _tell_launch(journal, placement, found, held.notices, materials.laps)
        if world.is_main:
            write_json(run.placement, placement.model_dump(mode="json"))
        gear = _gear(
            plan, placement, materials, held, retained, requests, stack, until_step, memory
        )
        while (turn := _train(state, gear, world)) is not None:
            if isinstance(turn, RollBack):
                del state  # its memory is the next one's
                gear.saver.finish()
                state = begin(held.course.go_back(turn))
            elif turn is _NEW_BLEND:
                continue  # the next batches are dealt by it; the state is as it was
            elif world.is_alone:
                turn_to_stage(state, plan.science)
            else:
                # Sharded weights remember whether they take a gradient: the model is made anew.
                step = state.step
                del state
                state = begin(held.store.find_newest_verified(at_most=step))
        finished = state.step == plan.science.num_steps
        forgot = gear.has_forgotten and not finished
        ending = Ending(state.step, finished, gear.agreed.stop_signal, forgot)
        taken = greatest(
            world.ranks.together(lambda: memory.found(profiled=materials.spans.were_watched))
        )
        _tell_ending(journal, ending, resume_with, materials.laps.elapsed_s, taken)
        mirror.finish()
    return ending


@dataclass(frozen=True, slots=True)
class _Held:
    """A run folder that this launch alone writes into; `saving` are the ranks as savers.

    `notices` are what is to be told once the launch has begun.
    """

    journal: Journal
    lock: RunLock | None
    notices: list[str]
    saving: World
    store: CheckpointStore
    course: Course
    mirror: LaunchMirror


def _hold(plan: Plan, run: RunFolder, journal: Journal, world: World, stack: ExitStack) -> _Held:
    """Take a run folder for the length of the stack, and tidy up after whoever had it before."""
    notices: list[str] = []
    lock = _hold_lock(run, world, stack, notices)
    world.ranks.on_main(lambda: _check_planned(plan, run))
    run.make_log_folder()
    saving = world.on_a_group_of_its_own()
    wanted = plan.conduct.checkpoints
    store = CheckpointStore(
        run.checkpoints, keep=wanted.keep, keep_every=wanted.keep_every_steps, ranks=saving.ranks
    )
    store.remove_leftovers()
    course = Course(run, plan.fingerprint, store, journal, world.ranks)
    mirror = stack.enter_context(LaunchMirror(plan, run, store, journal, world.ranks))
    return _Held(journal, lock, notices, saving, store, course, mirror)


@dataclass(frozen=True, slots=True)
class _Gear:
    """What steps are taken with, from whichever state."""

    science: Science
    guard: Guard
    batches: Callable[[Amendments], PrefetchedBatches]
    hooks: Sequence[Hook]
    saver: CheckpointSaver
    agreed: AgreedRequests
    forgetting: ActOnForgetting | None
    last_step: int
    memory: StepMemory

    @property
    def has_forgotten(self) -> bool:
        """Tell whether the run is to stop for what it has forgotten."""
        return self.forgetting is not None and self.forgetting.has_stopped

    def is_over(self, state: TrainState) -> bool:
        """Tell whether no step is taken after this state, in this launch."""
        stops = self.agreed.stop_signal is not None or self.has_forgotten
        return state.step >= self.last_step or stops

    def stage_of(self, state: TrainState) -> Stage:
        """Return which parameters train in the state's next step."""
        return self.science.stage_at(state.step, state.amendments)


def _gear(
    plan: Plan,
    placement: Placement,
    materials: Materials,
    held: _Held,
    retained: Retained,
    requests: SignalRequests,
    stack: ExitStack,
    until_step: int | None,
    memory: StepMemory,
) -> _Gear:
    """Return what steps are taken with, up to `until_step` updates; the stack closes it."""
    world = retained.world
    last_step = min(plan.science.num_steps, until_step or plan.science.num_steps)
    stepper = Stepper(
        plan.science,
        placement,
        materials.loss,
        tell=held.journal.event,
        trace_with=f"rewarm trace {held.journal.run.path}",
        retention=retained.retention,
        spans=materials.spans,
    )
    guard = Guard(plan.conduct.guard, stepper, amend=held.course.skip, tell=held.journal.event)
    batches = functools.partial(_batches, plan, placement, materials, last_step, world)
    saver = stack.enter_context(
        CheckpointSaver(
            plan.science,
            held.store,
            held.journal,
            held.lock,
            training=world,
            saving=held.saving,
            background=_saves_in_background(plan, placement),
            saved=held.mirror.saved,
        )
    )
    agreed = AgreedRequests(requests, world, lambda: saver.has_failed)
    forgetting = _act_on_forgetting(plan, materials, held, world)
    hooks = _hooks(plan, materials, held.journal, saver, agreed, held.course, forgetting, memory)
    return _Gear(plan.science, guard, batches, hooks, saver, agreed, forgetting, last_step, memory)


def _act_on_forgetting(
    plan: Plan, materials: Materials, held: _Held, world: World
) -> ActOnForgetting | None:
    rule = plan.conduct.evaluation.on_forgetting
    if rule.action == "off" or materials.evaluator is None or materials.find_forgetting is None:
        return None
    return ActOnForgetting(
        rule,
        plan.science,
        plan.conduct.evaluation_steps,
        find=materials.find_forgetting,
        amend=held.course.raise_replay,
        journal=held.journal,
        ranks=world.ranks,
    )


class _NewBlend:
    """Says that batches are dealt by another blend from the state's step on."""


_NEW_BLEND = _NewBlend()


def _train(state: TrainState, gear: _Gear, world: World) -> RollBack | Stage | _NewBlend | None:
    """Train until it is over, or return how far to go back, or what begins now: stage or blend.

    A stage's last state is saved, as a launch's is; so is a blend's.
    """
    stage = gear.stage_of(state)
    blends = state.amendments.replay_steps()

    def until(state: TrainState) -> bool:
        is_dealt_anew = state.amendments.replay_steps() != blends
        return gear.is_over(state) or is_dealt_anew or gear.stage_of(state) != stage

    try:
        # What is gathered ahead is of the order that the amendments now make.
        with told_as_lost_rank(world), gear.batches(state.amendments) as batches:
            for _ in train(state, gear.guard, batches, gear.hooks, until):
                pass
    except RollBack as back:
        gear.memory.end_steps()
        return back.with_traceback(None)  # whose frames would keep the state
    if gear.is_over(state):
        return None
    return gear.stage_of(state) if gear.stage_of(state) != stage else _NEW_BLEND


def _hold_lock(
    run: RunFolder, world: World, stack: ExitStack, notices: list[str]
) -> RunLock | None:
    """Hold the run's lock on the main rank, and see that all ranks see the same folder."""
    held: list[RunLock] = []

    def hold() -> None:
        held.append(
            stack.enter_context(hold_lock(run.lock, notices.append, patient=not world.is_alone))
        )

    def check_shared() -> None:
        if not run.lock.exists():
            raise EnvironmentFault(
                f"{run.path} is not the same folder on every node: {socket.gethostname()} does not "
                "see the lock that the main rank has just written there",
                "put the run folder on a file system that all nodes share",
            )

    world.ranks.on_main(hold)
    world.ranks.together(check_shared)
    return held[0] if held else None


def _saves_in_background(plan: Plan, placement: Placement) -> bool:
    """On a CPU of its own a save would take the cores from the steps, and its memory is scarce."""
    wanted = plan.conduct.checkpoints.background
    if wanted is not None:
        return wanted
    return placement.device != "cpu" or placement.world_size > 1


def _check_planned(plan: Plan, run: RunFolder) -> None:
    """Raise RunFolderError where another plan was written here before the lock was held."""
    if run.plan.exists() and load_plan(run.plan).fingerprint != plan.fingerprint:
        raise RunFolderError.one(
            str(run.path),
            "another command has planned this run anew in the meantime",
            "look at its plan, then launch again",
        )


def _begin(
    plan: Plan,
    placement: Placement,
    materials: Materials,
    found: Search,
    world: World,
    held: _Held,
    retained: Retained,
) -> TrainState:
    """Return the state of the newest verified checkpoint, or of the base where there is none."""
    amendments = held.course.amendments()
    step = 0 if found.path is None else step_of(found.path)
    root = load_root(
        placement,
        materials,
        world,
        held.notices,
        let_train=lambda model: let_train_at(model, plan.science, step, amendments),
    )
    optimizer = optimizer_before(root.model, plan.science, step, amendments)
    state = TrainState(root, optimizer, world=world, amendments=amendments)
    retained.hold(state)
    if found.path is not None:
        read_state(found.path, state, plan.science)
    else:
        materials.begin_optimizer(state)
    begin_stage(state, plan.science)
    return state


def _batches(
    plan: Plan,
    placement: Placement,
    materials: Materials,
    last_step: int,
    world: World,
    amendments: Amendments,
) -> PrefetchedBatches:
    loader = BatchLoader(
        amended(plan.science, amendments).order(),
        materials.views,
        sequence_length=plan.science.sequence_length,
        vocab_size=plan.conduct.model.vocab_size,
        mask_documents=plan.science.mask_documents,
        rank=world.data_rank,
        num_ranks=world.data_size,
        stored=materials.stored,
    )
    return PrefetchedBatches(loader, last_step, pins=placement.device != "cpu")


def _hooks(
    plan: Plan,
    materials: Materials,
    journal: Journal,
    saver: CheckpointSaver,
    agreed: AgreedRequests,
    course: Course,
    forgetting: ActOnForgetting | None,
    memory: StepMemory,
) -> list[Hook]:
    """Return the hooks in the order that makes a kill between any two of them harmless."""

    def is_due(step: int) -> bool:
        if agreed.save_failed:
            saver.finish()  # raises
        wanted = (plan.conduct.checkpoint_every, plan.conduct.checkpoints.keep_every_steps)
        return agreed.take_save_request() or any(every and step % every == 0 for every in wanted)

    hooks: list[Hook] = [LogSteps(journal)]
    if plan.science.retention.ema is not None:
        hooks.append(AverageWeights())
    if materials.evaluator is not None:
        conduct = plan.conduct
        hooks.append(
            Evaluate(
                materials.evaluator,
                conduct.evaluation_steps,
                journal,
                of_average=conduct.evaluation.average,
                apart=memory.apart,
            )
        )
    if forgetting is not None:
        hooks.append(forgetting)
    if plan.science.freezing.kind == "auto":
        hooks.append(FreezeSettledLayers(plan.science, course.freeze))
    save = SaveCheckpoints(saver, is_due, apart=memory.apart)
    return [*hooks, *materials.hooks, agreed, save, MeasureMemory(memory)]


def _tell_launch(
    journal: Journal, placement: Placement, found: Search, notices: Sequence[str], laps: Laps
) -> None:
    """Put on record how this launch begins: from what, on what, past what."""
    step = 0 if found.path is None else step_of(found.path)
    for message in notices:
        journal.event("warning", step, message)
    for path, problems in found.passed_over:
        journal.event("passed_over", step, f"{path.name} is damaged: {'; '.join(problems)}")
    message = "begins from the base" if found.path is None else f"resumed from {found.path.name}"
    if placement.document_attention is not None:
        message += f"; document attention: {placement.document_attention}"
    changes = _changes_of_placement(journal.run, placement)
    if changes and found.path is not None:
        message += f"; the last bits may differ from those of one launch, for {', '.join(changes)}"
    kind = "launch" if found.path is None else "resume"
    journal.event(
        kind,
        step,
        message,
        placement=placement.model_dump(mode="json"),
        start_s=laps.rounded(),
    )


def _changes_of_placement(run: RunFolder, placement: Placement) -> list[str]:
    if not run.placement.exists():
        return []
    old = read_json(run.placement, what="the last placement", error=RunFolderError)
    return placement_changes(Placement.model_validate(old), placement)


def _tell_ending(
    journal: Journal, ending: Ending, resume_with: str, elapsed_s: float, taken: LaunchMemory
) -> None:
    took = {"elapsed_s": round(elapsed_s, 3), "memory": taken.model_dump(mode="json")}
    if ending.finished:
        journal.event("finish", ending.step, f"finished after {ending.step} steps", **took)
        return
    why = f"stopped by {ending.signal}" if ending.signal else "stopped as asked"
    if ending.forgot:
        why = "stopped for what it has forgotten, as evaluation.on_forgetting says,"
    line = f"{why} after {ending.step} steps; go on: {resume_with}"
    journal.event("stop", ending.step, line, **took)
