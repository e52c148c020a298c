"""`rewarm train`: picks the concrete model, text, measures and sinks for `training/run.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from torch import nn

from rewarm.corpus.overlap import check_held_out_apart
from rewarm.corpus.packed import PackedView, open_windows
from rewarm.corpus.sealed import verify_prepared
from rewarm.corpus.top_k import SourceTopK, open_top_k
from rewarm.corpus.views import View
from rewarm.distributed.fsdp import Root
from rewarm.distributed.world import ALONE, World
from rewarm.errors import CheckpointError, CorpusError, PlanError, Problems
from rewarm.evaluation.forgetting_rule import evidence_of_forgetting
from rewarm.model.load import import_family
from rewarm.planning.plan import Plan
from rewarm.records.facts import EvalRecord
from rewarm.records.run_folder import RunFolder
from rewarm.stages.base_on_ranks import fill_base, planned_base_without_weights
from rewarm.stages.console import TrainConsole
from rewarm.stages.harness import harness_of
from rewarm.stages.job import command_line, keep_plan, open_job, open_run
from rewarm.stages.lost_evaluations import measure_lost_ends, tell_lost_ends
from rewarm.stages.measuring import suites_of
from rewarm.stages.objective import Objective
from rewarm.stages.optimizer_state import check_planned_optimizer_state
from rewarm.stages.plan import plan_job, probe_of
from rewarm.stages.ranks import join_ranks
from rewarm.stages.terminated import STOPPED
from rewarm.stages.trained import load_planned_base
from rewarm.training.base_moments import take_over_moments
from rewarm.training.eight_bit import import_adamw8bit
from rewarm.training.half_gain import half_gain
from rewarm.training.hooks import Hook
from rewarm.training.laps import Laps
from rewarm.training.materials import Materials
from rewarm.training.mirror.remote import url_problem
from rewarm.training.placement import choose_device, choose_placement
from rewarm.training.profiling import Profile
from rewarm.training.run import run_training
from rewarm.training.sinks import Sink, check_sinks, open_sink
from rewarm.training.spans import Spans
from rewarm.training.state import TrainState
from rewarm.training.usage import process_age_s

if TYPE_CHECKING:
    from rewarm.evaluation.harness import HarnessTasks

__all__ = ["FINISHED", "FORGOT", "open_views", "run_train", "train_plan"]

FINISHED = 0
FORGOT = 3
"""Exit code where the launch ended for what the run has forgotten, as the recipe says."""


def run_train(
    path: Path,
    overrides: Iterable[str],
    *,
    until_step: int | None,
    sinks: tuple[str, ...],
    watches: bool = False,
) -> int:
    """Train the run of a recipe or run folder from wherever it stands; return the exit code.

    With `watches` some steps are profiled.
    Under torchrun every rank calls this; the main one alone plans, writes and tells.
    """
    check_sinks(sinks)
    laps = Laps({"Python and libraries": process_age_s()})
    overrides = list(overrides)
    command = command_line("train", path, overrides, sinks)
    with join_ranks(path, overrides) as world:
        if not world.is_alone:
            command = f"torchrun … -m {command}"
        plan, folder = world.ranks.on_main(lambda: _plan_of(path, overrides))
        laps.lap("planned")
        return train_plan(
            plan,
            RunFolder(folder),
            command=command,
            until_step=until_step,
            sinks=sinks if world.is_main else (),
            console=None if world.is_main else Console(quiet=True),
            world=world,
            laps=laps,
            watches=watches,
        )


def _plan_of(path: Path, overrides: list[str]) -> tuple[Plan, Path]:
    if path.is_dir():
        plan, run = open_run(path, overrides)
    else:
        job = open_job(path, overrides)
        plan = plan_job(job, estimates_allowed=False)
        keep_plan(plan, job)
        run = job.run
    return plan, run.path


def train_plan(
    plan: Plan,
    run: RunFolder,
    *,
    command: str,
    console: Console | None = None,
    until_step: int | None = None,
    sinks: tuple[str, ...] = (),
    world: World = ALONE,
    hooks: Sequence[Hook] = (),
    laps: Laps | None = None,
    watches: bool = False,
) -> int:
    """Train a plan on measured facts in its run folder; `command` is what resumes it.

    `hooks` look at every step beside the run's own, before it is saved; `laps` has what came
    before. With `watches` the main rank profiles some steps.
    Raises PlanError for a plan on estimates and CorpusError where prepared text changed.
    """
    ranks = world.ranks
    laps = laps or Laps()
    ranks.on_main(lambda: _check_launch(plan, run, world))
    world = replace(world, tensor_parallel=plan.conduct.training.tensor_parallel)
    if plan.science.optimizer.kind == "adamw8bit":
        ranks.together(lambda: bool(import_adamw8bit()))
    ranks.on_main(lambda: _check_mirror(plan, run))
    views: dict[str, View | PackedView] = {}
    ranks.together(lambda: views.update(open_views(plan)))
    stored: dict[str, SourceTopK] = {}
    ranks.together(lambda: stored.update(_open_stored(plan, views)))
    ranks.on_main(lambda: check_held_out_apart(list(plan.conduct.corpora.values()), views))
    placement, warnings = choose_placement(
        plan.conduct.training,
        plan.science,
        plan.conduct.model,
        world,
        probe=probe_of(plan, run),
        gain=_agreed_gain(plan, world),
    )
    suites = suites_of(plan)
    harness: list[HarnessTasks | None] = []
    ranks.together(lambda: harness.append(harness_of(plan)))
    objective = Objective.of(plan, placement, world)
    laps.lap("text and measures opened")
    # What the library takes is the process's own, no step's: it is there before that is noted.
    ranks.together(lambda: import_family(Path(plan.conduct.base_folder)))
    laps.lap("library loaded")

    def load() -> nn.Module:
        if not world.is_alone:
            return planned_base_without_weights(plan, world)
        return load_planned_base(plan, device=placement.device)

    def fill(root: Root) -> list[str]:
        notices: list[str] = []
        if not world.is_alone:
            folder = Path(plan.conduct.base_folder)
            notices += fill_base(root, folder, world, device=placement.device)
        return notices + objective.settle(root)

    def begin_optimizer(state: TrainState) -> None:
        _check_begins_from_the_base(plan, run)
        facts = plan.conduct.optimizer_state
        if facts is None:
            return
        world.ranks.on_main_at_length(lambda: check_planned_optimizer_state(plan))
        taken = take_over_moments(facts, state.model, state.optimizer, world)
        live.say(str(taken))
        if facts.betas is None and taken.betas not in (None, plan.science.optimizer.betas):
            live.say(f"warning: its moments were taken with betas {taken.betas}")

    def measure(root: Root, step: int) -> list[EvalRecord]:
        suite = suites.at(step)
        more = harness[0] if suite is suites.full else None
        return objective.measure(root.model, suite, step=step, within=root, more=more)

    def find_forgetting(step: int, since_step: int) -> str | None:
        rule = plan.conduct.evaluation.on_forgetting
        return evidence_of_forgetting(rule, run.evals(), step=step, since_step=since_step)

    with ExitStack() as stack:
        live = stack.enter_context(TrainConsole(plan, console, recorded=run.evals))
        for warning in (*plan.warnings, *warnings, *suites.full.warnings):
            live.say(f"warning: {warning}")
        more = [stack.enter_context(_opened(name, plan, run)) for name in sinks]
        spans = Spans()
        watching: list[Hook] = []
        if watches and world.is_main:
            watching.append(Profile(run.profile, spans, device_name=placement.device_name))
        materials = Materials(
            load_model=load,
            fill_model=fill,
            settled=objective.settled,
            begin_optimizer=begin_optimizer,
            loss=objective.loss,
            views=views,
            stored=stored,
            progress=live.show_preparation,
            evaluator=measure,
            find_forgetting=find_forgetting,
            sinks=[live, *more],
            hooks=[*hooks, *watching],
            laps=laps,
            spans=spans,
        )
        ending = run_training(
            plan,
            placement,
            run,
            materials,
            resume_with=command,
            until_step=until_step,
            world=world,
        )
        # A launch that found it finished has taken no step, and measured nothing.
        if ending.finished and world.is_alone:
            told = console or Console()
            measure_lost_ends(plan, run, suites.full, placement, harness[0], told, live.say)
        elif ending.finished and world.is_main:
            tell_lost_ends(plan, run, live.say)
    if ending.forgot:
        return FORGOT
    return FINISHED if ending.signal is None else STOPPED


def _agreed_gain(plan: Plan, world: World) -> Callable[[str], float]:
    """Return what a device gains from bf16, as one rank measures it: all compute in one type."""
    if plan.science.precision != "auto" or world.is_alone:
        return half_gain
    device = choose_device(plan.conduct.training.device)
    measured = world.ranks.on_main(lambda: half_gain(device.type))
    return lambda device_type: measured


def _check_launch(plan: Plan, run: RunFolder, world: World) -> None:
    """Raise PlanError for a plan that cannot be trained yet, or not by so many processes."""
    if not plan.measured:
        raise PlanError.one(
            str(run.plan),
            "it stands on estimates of the text",
            "run `rewarm prepare`, then `rewarm train` with the recipe",
        )
    if plan.science.parameters.adapter is not None and not world.is_alone:
        raise PlanError.one(
            "parameters.adapter",
            "adapters train in one process; this launch has several",
            "launch without torchrun, or train a subset of the weights (parameters.train)",
        )
    count = plan.conduct.training.tensor_parallel
    if world.size % count or world.local_size % count:
        raise PlanError.one(
            "training.tensor_parallel",
            f"{count} ranks of a node are to share each matrix; this launch has {world.size}, "
            f"{world.local_size} a node",
            f"launch a multiple of {count} on each node with torchrun, or set it to 1",
        )


def _check_begins_from_the_base(plan: Plan, run: RunFolder) -> None:
    """Raise CheckpointError for a branch without a checkpoint: it begins from another run's."""
    origin = plan.science.origin
    if origin is not None:
        raise CheckpointError.one(
            str(run.checkpoints),
            f"this run goes on from step {origin.step} of another one, and there is no checkpoint",
            "give the `rewarm branch` or `rewarm extend` that made it once more",
        )


def _check_mirror(plan: Plan, run: RunFolder) -> None:
    """Raise PlanError where this machine lacks what reaches the mirror; another one planned."""
    url = plan.conduct.checkpoints.mirror
    problem = None if url is None else url_problem(url, run.path)
    if problem is not None:
        raise PlanError(problem)


def open_views(plan: Plan) -> dict[str, View | PackedView]:
    """Return the windows of every source that is trained on, verified against its manifest.

    Raises CorpusError naming every file that changed since it was prepared, of sources that are
    only evaluated too.
    """
    problems = Problems()
    science = plan.science
    read = {source.name: source.bins for source in (*science.sources, *science.memory)}
    views: dict[str, View | PackedView] = {}
    for name, facts in plan.conduct.corpora.items():
        try:
            verify_prepared(facts)
            windows = open_windows(facts, science.sequence_length, read.get(name))
        except CorpusError as error:
            problems.extend(error.problems)
            continue
        if name in read:
            views[name] = windows
    problems.raise_as(CorpusError)
    return views


def _open_stored(plan: Plan, views: dict[str, View | PackedView]) -> dict[str, SourceTopK]:
    """Return what the base said of the sources that are held to it by what is stored.

    Raises CorpusError naming every source of which nothing is stored.
    """
    recipe = plan.science.retention.distill
    if recipe is None or recipe.teacher != "stored":
        return {}
    problems = Problems()
    found: dict[str, SourceTopK] = {}
    for name in recipe.on:
        rows = open_top_k(plan.conduct.corpora[name])
        if rows is None:
            problems.add(
                f"sources.{name}",
                "the base's distribution is not stored beside its tokens",
                "delete its prepared folder and run `rewarm rehearse` and `rewarm prepare` again",
            )
        else:
            found[name] = SourceTopK(rows, views[name])
    problems.raise_as(CorpusError)
    return found


@contextmanager
def _opened(name: str, plan: Plan, run: RunFolder) -> Iterator[Sink]:
    with closing(open_sink(name, run, run_name=plan.name, fingerprint=plan.fingerprint)) as sink:
        yield sink
