"""`rewarm plan`: recipe and facts to a plan that a person reads before spending a GPU-hour."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from rewarm.corpus.place import load_facts
from rewarm.errors import CorpusError, PlanError, Problems, UserError
from rewarm.planning.model_facts import read_model_facts
from rewarm.planning.plan import Plan
from rewarm.planning.resolve import resolve
from rewarm.records.facts import CorpusFacts, ModelFacts
from rewarm.stages.base import find_base
from rewarm.stages.job import Job, keep_plan, open_job

__all__ = ["plan_job", "run_plan"]


def run_plan(path: Path, overrides: Iterable[str], *, as_json: bool) -> Plan:
    """Resolve the recipe, write `plan.json` into the run folder, and show it."""
    job = open_job(path, overrides)
    plan = plan_job(job, estimates_allowed=True)
    keep_plan(plan, job)
    if as_json:
        sys.stdout.write(plan.model_dump_json(indent=2) + "\n")
    else:
        from rich.console import Console

        from rewarm.reporting.plan_terminal import plan_summary

        console = Console()
        console.print(plan_summary(plan))
        console.print(f"\nwritten to {job.run.plan}", markup=False, highlight=False, soft_wrap=True)
    return plan


def plan_job(job: Job, *, estimates_allowed: bool) -> Plan:
    """Return the plan of a job on prepared facts, or (where allowed) on sampled estimates.

    Problems of the base and of every source are told together.
    """
    base_folder = find_base(job.recipe.base, job.folder)
    problems = Problems()
    model: ModelFacts | None = None
    corpora: dict[str, CorpusFacts] = {}
    try:
        model = read_model_facts(base_folder)
    except UserError as error:
        problems.extend(error.problems)
    else:
        corpora = dict(_corpora(job, base_folder, model, estimates_allowed, problems))
    _check_tasks(job, problems)
    problems.raise_as(PlanError)
    assert model is not None
    return resolve(
        job.recipe, model, corpora, base_folder=str(base_folder), recipe_folder=str(job.folder)
    )


def _check_tasks(job: Job, problems: Problems) -> None:
    """Note every task file that cannot be read now rather than after hours of training."""
    for task in job.recipe.evaluation.tasks.values():
        from rewarm.evaluation.tasks import read_task

        try:
            read_task(job.folder / task.path, max_items=task.max_items)
        except CorpusError as error:
            problems.extend(error.problems)


def _corpora(
    job: Job,
    base_folder: Path,
    model: ModelFacts,
    estimates_allowed: bool,
    problems: Problems,
) -> Mapping[str, CorpusFacts]:
    found: dict[str, CorpusFacts] = {}
    for name, source in job.recipe.sources.items():
        common = {
            "recipe_folder": job.folder,
            "tokenizer_folder": base_folder,
            "tokenizer_recipe": job.recipe.tokenizer,
        }
        try:
            facts = load_facts(name, source, prepared_root=job.prepared_root, **common)  # type: ignore[arg-type]
            if facts is None and estimates_allowed:
                from rewarm.corpus.estimate import estimate_source

                facts = estimate_source(name, source, vocab_size=model.vocab_size, **common)  # type: ignore[arg-type]
        except CorpusError as error:
            problems.extend(error.problems)
            continue
        if facts is None:
            problems.add(
                f"sources.{name}",
                "it is not prepared, or its text changed since",
                "run `rewarm prepare` with this recipe",
            )
        else:
            found[name] = facts
    return found
