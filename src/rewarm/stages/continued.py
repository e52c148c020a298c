"""`rewarm branch` and `rewarm extend`: a run that goes on from another one's checkpoint.

A branch anneals a copy of a run from a step of constant rate, while the run itself may go on; an
extension goes on at that rate, on the same text or on another recipe's. Each is a run folder of its
own that begins with the other's checkpoint and records: from then on it is a run as any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from rewarm.artifacts import read_json
from rewarm.corpus.overlap import check_held_out_apart
from rewarm.errors import CheckpointError, PlanError, RecipeError, RunFolderError
from rewarm.planning.amended import amended
from rewarm.planning.amendments import Amendments, read_amendments
from rewarm.planning.cadence import evaluation_steps
from rewarm.planning.continuation import (
    freezing_to_go_on_with,
    graft,
    rate_to_go_on_from,
    retention_to_go_on_with,
)
from rewarm.planning.plan import Plan, Reason, Science
from rewarm.recipe.load import load_recipe
from rewarm.recipe.phases import PhaseRecipe
from rewarm.recipe.records import CheckpointRecipe
from rewarm.recipe.schedule import ScheduleRecipe
from rewarm.recipe.schema import Recipe
from rewarm.recipe.steps import BatchRecipe, BudgetRecipe
from rewarm.records.run_folder import RunFolder
from rewarm.reporting.plan_terminal import plan_summary
from rewarm.stages.continued_folder import make_folder
from rewarm.stages.continued_trunk import (
    check_start,
    check_what_trains,
    counting_from,
    notes_of_the_whole,
    reason_of_the_rule,
    rule_that_can_act,
    shown_before,
    sized_as_before,
)
from rewarm.stages.job import Job, command_line, open_run
from rewarm.stages.model_tools import MODEL_TOOLS
from rewarm.stages.plan import plan_job
from rewarm.stages.prepare import prepare_job
from rewarm.stages.train import train_plan
from rewarm.training.checkpoint import checkpoint_problems, step_of

__all__ = ["Anneal", "Extension", "run_branch", "run_extend"]


@dataclass(frozen=True, slots=True)
class Anneal:
    """How a branch ends: over so many tokens, in a shape, to a rate (None: the run's own)."""

    tokens: int
    shape: str = "exponential"
    final_lr: float | None = None
    weights: dict[str, float] | None = None
    """Share by source while it anneals; None: the blend of the step that it leaves."""


@dataclass(frozen=True, slots=True)
class Extension:
    """How a run goes on: over so many tokens, on another recipe's text where one is given.

    `anneal` of the tokens, at the end, anneal to `final_lr`; 0 leaves the run at its rate.
    """

    tokens: int
    recipe: Path | None = None
    overrides: tuple[str, ...] = ()
    anneal: int = 0
    final_lr: float | None = None


def run_branch(
    path: Path, *, at_step: int | None, anneal: Anneal, name: str | None, plan_only: bool
) -> int:
    """Anneal a copy of a run from a step on; return the exit code of its training."""
    trunk, run = open_run(path)
    start = _start(trunk, run, at_step)
    rate = rate_to_go_on_from(trunk.science, start.step)
    final = _final_rate(trunk.science, rate, anneal.final_lr)
    pieces = [{"shape": anneal.shape, "start_lr": rate, "end_lr": final}]
    job = _own_job(trunk, run, anneal.tokens, pieces, anneal.weights, start.step)
    name = name or f"{trunk.name}-anneal-{start.step}"
    return _go_on(trunk, run, start, job, name=name, plan_only=plan_only)


def run_extend(
    path: Path, *, at_step: int | None, extension: Extension, name: str | None, plan_only: bool
) -> int:
    """Go on with a run at its constant rate; return the exit code of its training."""
    trunk, run = open_run(path)
    start = _start(trunk, run, at_step)
    rate = rate_to_go_on_from(trunk.science, start.step)
    pieces: list[dict[str, object]] = [{"shape": "constant", "start_lr": rate}]
    if extension.anneal:
        if extension.anneal >= extension.tokens:
            raise PlanError.one(
                "--anneal", "it takes the whole extension", "anneal a branch instead, or less of it"
            )
        pieces[0]["tokens"] = extension.tokens - extension.anneal
        final = _final_rate(trunk.science, rate, extension.final_lr)
        pieces.append({"shape": "exponential", "end_lr": final})
    if extension.recipe is None:
        job = _own_job(trunk, run, extension.tokens, pieces, None, start.step)
    else:
        job = _job_of_recipe(trunk, extension, pieces)
    name = name or f"{trunk.name}-extended-{start.step}"
    return _go_on(trunk, run, start, job, name=name, plan_only=plan_only)


@dataclass(frozen=True, slots=True)
class _Start:
    """The checkpoint that is gone on from."""

    path: Path
    step: int


def _start(trunk: Plan, run: RunFolder, at_step: int | None) -> _Start:
    """Return the checkpoint of a step, or the newest one at a constant rate.

    Raises RunFolderError naming those there are, PlanError where the rate is not constant there.
    """
    found = sorted(
        (path for path in run.checkpoints.glob("step-*") if path.name[5:].isdigit()), key=step_of
    )
    steps = [step_of(path) for path in found]
    told = ", ".join(map(str, steps)) or "none yet"
    if at_step is not None:
        if at_step not in steps:
            raise RunFolderError.one(
                str(run.path),
                f"it has no checkpoint of step {at_step}; those kept are: {told}",
                "name one of them; checkpoints.keep_every_steps keeps some for good",
            )
        rate_to_go_on_from(trunk.science, at_step)
        return _checked(found[steps.index(at_step)])
    for path in reversed(found):
        try:
            rate_to_go_on_from(trunk.science, step_of(path))
        except PlanError:
            continue
        return _checked(path)
    if steps:
        rate_to_go_on_from(trunk.science, steps[-1])  # raises: says where the rate is constant
    raise RunFolderError.one(
        str(run.path), "it has no checkpoint yet", "run `rewarm train` with it first"
    )


def _checked(path: Path) -> _Start:
    problems = checkpoint_problems(path, step_of(path))
    if problems:
        raise CheckpointError.one(
            str(path), "; ".join(problems), "choose another step (--at-step), or restore it"
        )
    return _Start(path, step_of(path))


def _final_rate(science: Science, rate: float, wanted: float | None) -> float:
    """Return the rate that is wanted; without one where the run itself would have ended, or a tenth
    of a rate that never falls. Raises RecipeError for one above that which is annealed.
    """
    if wanted is not None:
        if wanted > rate:
            raise RecipeError.one(
                "--final-lr",
                f"{wanted:g} is above the rate that is annealed, {rate:.4g}",
                "give a lower one, or leave it out",
            )
        return wanted
    last = science.schedule[-1]
    return last.end_lr if last.shape != "constant" and 0 < last.end_lr < rate else rate / 10


def _own_job(
    trunk: Plan,
    run: RunFolder,
    tokens: int,
    pieces: list[dict[str, object]],
    weights: dict[str, float] | None,
    step: int,
) -> Job:
    """Return the run's own recipe as the job of what follows."""
    value = read_json(
        run.recipe, what="the recipe that the run was planned from", error=RunFolderError
    )
    try:
        recipe = Recipe.model_validate(value)
    except ValidationError as error:
        raise RunFolderError.one(
            str(run.recipe),
            f"it is not the recipe that the run was planned from ({error.error_count()} problems)",
            "restore the file; rewarm itself wrote it",
        ) from error
    if weights is None:
        amendments = read_amendments(run.amendments, trunk.fingerprint)
        science = amended(trunk.science, amendments)
        phase = science.phase_at(min(step, science.num_steps - 1))
        names = [source.name for source in trunk.science.sources]
        weights = {
            name: weight / 65_536
            for name, weight in zip(names, phase.weights, strict=True)
            if weight
        }
    unknown = sorted(weights.keys() - recipe.sources.keys())
    if unknown:
        raise RecipeError.one(
            "--weights",
            f"the run has no source {', '.join(map(repr, unknown))}",
            f"name some of: {', '.join(recipe.sources)}",
        )
    last = "anneal" if len(pieces) == 1 and pieces[0]["shape"] != "constant" else "extension"
    update = {
        "phases": [PhaseRecipe(name=last, weights=weights)],
        "evaluation": rule_that_can_act(recipe, weights),
    }
    return _job(
        trunk,
        recipe.model_copy(update=update),
        tokens,
        pieces,
        Path(trunk.conduct.recipe_folder),
    )


def _job_of_recipe(trunk: Plan, extension: Extension, pieces: list[dict[str, object]]) -> Job:
    assert extension.recipe is not None
    recipe = load_recipe(extension.recipe, extension.overrides)
    check_what_trains(recipe, trunk.science)
    folder = extension.recipe.resolve().parent
    return _job(trunk, recipe, extension.tokens, pieces, folder)


def _job(
    trunk: Plan,
    recipe: Recipe,
    tokens: int,
    pieces: list[dict[str, object]],
    folder: Path,
) -> Job:
    """Return a recipe with what the trunk decides for what follows: batch, optimizer, seed."""
    science = trunk.science
    update = {
        "sources": sized_as_before(recipe.sources, science),
        "budget": BudgetRecipe(tokens=tokens),
        "schedule": ScheduleRecipe.model_validate({"kind": "pieces", "pieces": pieces}),
        "batch": BatchRecipe(
            tokens=science.tokens_per_step,
            sequence_length=science.sequence_length,
            mask_documents=science.mask_documents,
            packing=science.packing,
        ),
        "optimizer": science.optimizer,
        "parameters": science.parameters,
        "freezing": freezing_to_go_on_with(science),
        "retention": retention_to_go_on_with(science),
        "seed": science.seed,
        "training": recipe.training.model_copy(update={"precision": science.precision}),
        "preset": None,
    }
    changed = recipe.model_copy(update=update)
    # Nothing is written there: what follows gets a folder beside the trunk's.
    run = RunFolder(folder / (recipe.run_folder or f"runs/{recipe.name}"))
    before = {name: facts for name, facts in trunk.conduct.corpora.items() if facts.measured}
    return Job(changed, folder, run, folder / recipe.prepared_folder, before)


def _go_on(
    trunk: Plan, run: RunFolder, start: _Start, job: Job, *, name: str, plan_only: bool
) -> int:
    console = Console()
    amendments = read_amendments(run.amendments, trunk.fingerprint)
    check_start(start.path, run, amendments)
    prepare_job(job, MODEL_TOOLS)
    shown = shown_before(amended(trunk.science, amendments), start.step)
    more = plan_job(job, estimates_allowed=False, shown_before=shown)
    plan = _grafted(trunk, amendments, more, start.step, name, job.recipe)
    # Before there is a folder: training would refuse it there, and its name be taken.
    check_held_out_apart(
        list(plan.conduct.corpora.values()), {source.name for source in plan.science.sources}
    )
    console.print(plan_summary(plan))
    folder = RunFolder(run.path.parent / name)
    command = command_line("train", folder.path)
    if make_folder(trunk, run, start.path, job.recipe, plan, folder):
        console.print(
            f"{folder.path} begins with {start.path.name} of {run.path}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if plan_only:
        console.print(f"next: {command}", markup=False, highlight=False, soft_wrap=True)
        return 0
    return train_plan(plan, folder, command=command)


def _grafted(
    trunk: Plan, amendments: Amendments, more: Plan, at_step: int, name: str, recipe: Recipe
) -> Plan:
    science = graft(trunk.science, more.science, at_step=at_step, amendments=amendments)
    notes = notes_of_the_whole(science, more, recipe)
    every = more.conduct.evaluation.every_steps or max(1, more.science.num_steps // 20)
    steps = {at_step + step for step in evaluation_steps(more.science.num_steps, every)}
    conduct = more.conduct.model_copy(
        update={
            "corpora": {**trunk.conduct.corpora, **more.conduct.corpora},
            "packing": {**trunk.conduct.packing, **more.conduct.packing},
            "evaluation": counting_from(more.conduct.evaluation, at_step),
            "evaluation_steps": tuple(sorted(steps)),
            "checkpoints": _with_own_mirror(more.conduct.checkpoints, name),
        }
    )
    why = Reason(
        field="origin",
        value=f"step {at_step} of {trunk.name}",
        reason=f"goes on at the rate of {rate_to_go_on_from(trunk.science, at_step):.4g} with its "
        "weights and moments, without a warm-up",
        source="Ibrahim et al. 2024, arXiv 2403.08763",
    )
    return more.model_copy(
        update={
            "name": name,
            "science": science,
            "fingerprint": Plan.science_fingerprint(science),
            "conduct": conduct,
            "reasons": (why, *reason_of_the_rule(trunk, more), *notes.reasons),
            "warnings": tuple(notes.warnings),
        }
    )


def _with_own_mirror(checkpoints: CheckpointRecipe, name: str) -> CheckpointRecipe:
    """Return when and where to save: a mirror holds one run, so this one's is a folder in it."""
    if checkpoints.mirror is None:
        return checkpoints
    return checkpoints.model_copy(update={"mirror": f"{checkpoints.mirror}/{name}"})
