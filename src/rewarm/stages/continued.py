"""`rewarm branch` and `rewarm extend`: a run that goes on from another one's checkpoint.

A branch anneals a copy of a run from a step of constant rate, while the run itself may go on; an
extension goes on at that rate, on the same text or on another recipe's. Each is a run folder of its
own that begins with the other's checkpoint and records: from then on it is a run as any other.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from rewarm.artifacts import MANIFEST_NAME, manifest_problems, parse_json, read_json, write_json
from rewarm.errors import CheckpointError, PlanError, RecipeError, RunFolderError
from rewarm.planning.cadence import evaluation_steps
from rewarm.planning.continuation import graft, rate_to_go_on_from
from rewarm.planning.plan import Plan, Reason, Science, load_plan, save_plan
from rewarm.recipe.load import load_recipe
from rewarm.recipe.schema import (
    BatchRecipe,
    BudgetRecipe,
    CheckpointRecipe,
    PhaseRecipe,
    Recipe,
    ScheduleRecipe,
)
from rewarm.records.run_folder import RunFolder
from rewarm.reporting.plan_terminal import plan_summary
from rewarm.stages.job import Job, command_line, open_run
from rewarm.stages.plan import plan_job
from rewarm.stages.prepare import prepare_job
from rewarm.stages.train import train_plan
from rewarm.training.checkpoint import CheckpointStore, checkpoint_problems, step_of
from rewarm.training.lock import hold_lock
from rewarm.training.saved import STATE_FILE, read_saved_state

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
    final = anneal.final_lr if anneal.final_lr is not None else _final_rate(trunk.science, rate)
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
        final = extension.final_lr
        pieces.append(
            {
                "shape": "exponential",
                "end_lr": final if final is not None else _final_rate(trunk.science, rate),
            }
        )
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


def _final_rate(science: Science, rate: float) -> float:
    """Return where the run itself would have ended, or a tenth of a rate that never falls."""
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
    recipe = Recipe.model_validate(value)
    if weights is None:
        phase = trunk.science.phase_at(min(step, trunk.science.num_steps - 1))
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
    return _job(
        trunk,
        recipe.model_copy(update={"phases": [PhaseRecipe(name=last, weights=weights)]}),
        tokens,
        pieces,
        Path(trunk.conduct.recipe_folder),
    )


def _job_of_recipe(trunk: Plan, extension: Extension, pieces: list[dict[str, object]]) -> Job:
    assert extension.recipe is not None
    recipe = load_recipe(extension.recipe, extension.overrides)
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
        "budget": BudgetRecipe(tokens=tokens),
        "schedule": ScheduleRecipe.model_validate({"kind": "pieces", "pieces": pieces}),
        "batch": BatchRecipe(
            tokens=science.tokens_per_step,
            sequence_length=science.sequence_length,
            mask_documents=science.mask_documents,
        ),
        "optimizer": science.optimizer,
        "seed": science.seed,
        "training": recipe.training.model_copy(update={"precision": science.precision}),
        "preset": None,
    }
    changed = recipe.model_copy(update=update)
    # Nothing is written there: what follows gets a folder beside the trunk's.
    run = RunFolder(folder / (recipe.run_folder or f"runs/{recipe.name}"))
    return Job(changed, folder, run, folder / recipe.prepared_folder)


def _go_on(
    trunk: Plan, run: RunFolder, start: _Start, job: Job, *, name: str, plan_only: bool
) -> int:
    console = Console()
    prepare_job(job)
    more = plan_job(job, estimates_allowed=False)
    plan = _grafted(trunk, more, start.step, name)
    console.print(plan_summary(plan))
    folder = RunFolder(run.path.parent / name)
    command = command_line("train", folder.path)
    if _make_folder(trunk, run, start, job.recipe, plan, folder):
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


def _grafted(trunk: Plan, more: Plan, at_step: int, name: str) -> Plan:
    science = graft(trunk.science, more.science, at_step=at_step)
    every = more.conduct.evaluation.every_steps or max(1, more.science.num_steps // 20)
    steps = {at_step + step for step in evaluation_steps(more.science.num_steps, every)}
    conduct = more.conduct.model_copy(
        update={
            "corpora": {**trunk.conduct.corpora, **more.conduct.corpora},
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
            "reasons": (why, *more.reasons),
        }
    )


def _with_own_mirror(checkpoints: CheckpointRecipe, name: str) -> CheckpointRecipe:
    """Return when and where to save: a mirror holds one run, so this one's is a folder in it."""
    if checkpoints.mirror is None:
        return checkpoints
    return checkpoints.model_copy(update={"mirror": f"{checkpoints.mirror}/{name}"})


def _make_folder(
    trunk: Plan, run: RunFolder, start: _Start, recipe: Recipe, plan: Plan, folder: RunFolder
) -> bool:
    """Make the new run's folder with the checkpoint that it begins with; False where it is there.

    Raises RunFolderError where another run is.
    """
    if folder.plan.exists():
        if load_plan(folder.plan).fingerprint == plan.fingerprint and folder.checkpoints.exists():
            return False
        if folder.has_begun():
            raise RunFolderError.one(
                str(folder.path), "another run is there already", "give this one a --name"
            )
    folder.path.mkdir(parents=True, exist_ok=True)
    with hold_lock(folder.lock, lambda message: None):
        folder.make_log_folder()
        _copy_records(run, folder, start.step)
        write_json(folder.recipe, recipe.model_dump(mode="json"))
        save_plan(plan, folder.plan)
        CheckpointStore(folder.checkpoints, keep=plan.conduct.checkpoints.keep).save(
            start.step, _rewritten(start, plan)
        )
        folder.append_event(
            "launch", start.step, f"begins with {start.path.name} of {trunk.name} ({run.path})"
        )
    return True


def _copy_records(run: RunFolder, folder: RunFolder, step: int) -> None:
    """Copy what was measured until a step: the base's figures above all, which forgetting needs."""
    for log in folder.logs:
        log.unlink(missing_ok=True)  # of an attempt that was cut off
    for record in run.steps():
        if record.step < step:
            folder.append_step(record)
    folder.append_evals(record for record in run.evals() if record.step <= step)
    folder.append_average_evals(record for record in run.average_evals() if 0 < record.step <= step)
    folder.flush_records()


def _rewritten(start: _Start, plan: Plan) -> Callable[[Path], None]:
    """Return what writes a checkpoint's files as the new plan's, the copies held to its hashes."""

    def write(folder: Path) -> None:
        manifest = parse_json((start.path / MANIFEST_NAME).read_bytes())
        for name in manifest["files"]:
            shutil.copyfile(start.path / name, folder / name)
        problems = manifest_problems(folder, manifest)
        if problems:
            raise CheckpointError.one(
                str(start.path), "; ".join(problems), "the run pruned or changed it; try again"
            )
        saved = read_saved_state(folder)
        changed = saved.model_copy(
            update={
                "plan": plan.fingerprint,
                "science": plan.science.model_dump(mode="json"),
                "amendments_head": "",
            }
        )
        write_json(folder / STATE_FILE, changed.model_dump(mode="json"))

    return write
