"""`rewarm plan`: recipe and facts to a plan that a person reads before spending a GPU-hour."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from rewarm.artifacts import read_json
from rewarm.corpus.bins import ensure_packing, load_packing
from rewarm.corpus.chat import OpenChat
from rewarm.corpus.place import load_facts
from rewarm.corpus.rehearsed import estimate_rehearsal
from rewarm.errors import PlanError, RunFolderError, UserError
from rewarm.planning.gpu import planned_gpu
from rewarm.planning.plan import Plan
from rewarm.planning.probed import probe_key, with_probe
from rewarm.planning.resolve import resolve
from rewarm.planning.size import sequence_length_of
from rewarm.recipe.advice import Advice, advise
from rewarm.recipe.presets import declared_in
from rewarm.recipe.schema import Recipe
from rewarm.records.facts import CorpusFacts
from rewarm.records.packing import PackingFacts
from rewarm.records.probe import Probe
from rewarm.records.run_folder import RunFolder
from rewarm.stages.curating import with_curation
from rewarm.stages.job import Job, keep_plan, open_job
from rewarm.stages.probe import probe_plan
from rewarm.stages.selecting import with_selections
from rewarm.stages.survey import Survey, note_unmade, survey

__all__ = ["plan_job", "probe_of", "read_probe", "run_plan"]


def run_plan(
    path: Path,
    overrides: Iterable[str],
    *,
    as_json: bool,
    why: bool = False,
    probe: bool = False,
    open_chat: OpenChat | None = None,
) -> Plan:
    """Resolve the recipe, write `plan.json` into the run folder, and show it.

    With `probe` a few steps are measured on this machine first, which the estimates then stand on.
    With `why` the choice of the preset is explained first. `open_chat` is what `plan_job` takes.
    """
    job = open_job(path, overrides)
    plan = plan_job(job, estimates_allowed=not probe, open_chat=open_chat)
    keep_plan(plan, job)
    if probe:
        probe_plan(plan, job.run, say=_say)
        plan = plan_job(job, estimates_allowed=False)
        keep_plan(plan, job)
    if as_json:
        sys.stdout.write(plan.model_dump_json(indent=2) + "\n")
    else:
        from rich.console import Console

        from rewarm.reporting.plan_terminal import advice_summary, plan_summary

        console = Console()
        if why:
            console.print(advice_summary(_advice(job.recipe, plan), job.recipe.preset))
        console.print(plan_summary(plan))
        console.print(f"\nwritten to {job.run.plan}", markup=False, highlight=False, soft_wrap=True)
    return plan


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def plan_job(
    job: Job,
    *,
    estimates_allowed: bool,
    open_chat: OpenChat | None = None,
    shown_before: Mapping[str, int] | None = None,
) -> Plan:
    """Return the plan of a job on prepared facts, or (where allowed) on sampled estimates.

    `open_chat` opens the template that conversations are written by, for estimates of them;
    `shown_before` is what `resolve` takes.
    Problems of the base, of every source and of the recipe's own arithmetic are told together.
    """
    found = survey(job)
    corpora = _corpora(job, found, estimates_allowed, open_chat)
    packings = _packings(job, found, corpora)
    try:
        plan = resolve(
            job.recipe,
            found.model,
            corpora,
            base_folder=str(found.base_folder),
            recipe_folder=str(job.folder),
            optimizer_state=found.optimizer_state,
            packings=packings,
            shown_before=shown_before,
            measured_before=job.measured_before,
            task_bytes=found.task_bytes,
            problems=found.problems,
        )
    except PlanError:
        found.raise_as(PlanError)
        raise
    probe = read_probe(job.run)
    if probe is None:
        return plan
    hardware = job.recipe.hardware
    gpu = planned_gpu(job.recipe.training, hardware)
    return with_probe(plan, probe, num_devices=hardware.num_devices, gpu=gpu)


def read_probe(run: RunFolder) -> Probe | None:
    """Return what a probe has measured for a run; None where there was none.

    Raises RunFolderError for a file that cannot be read.
    """
    if not run.probe.exists():
        return None
    fix = "delete it, or measure again with `rewarm plan --probe`"
    value = read_json(run.probe, what="the probe", error=RunFolderError)
    try:
        return Probe.model_validate(value)
    except ValidationError as error:
        raise RunFolderError.one(str(run.probe), "it is damaged", fix) from error


def probe_of(plan: Plan, run: RunFolder) -> Probe | None:
    """Return the probe that launches of a plan take over, if there is one of its settings."""
    probe = read_probe(run)
    return probe if probe is not None and probe.key == probe_key(plan) else None


def _advice(recipe: Recipe, plan: Plan) -> Advice:
    new_tokens = [
        facts.num_tokens for facts in plan.conduct.corpora.values() if facts.role == "new"
    ]
    base = recipe.base.model_copy(update={"pretraining": plan.conduct.base_pretraining})
    return advise(
        declared_in(recipe.model_copy(update={"base": base})),
        budget_tokens=recipe.budget.tokens,
        new_tokens=sum(new_tokens) if new_tokens else None,
    )


def _corpora(
    job: Job,
    found: Survey,
    estimates_allowed: bool,
    open_chat: OpenChat | None,
) -> dict[str, CorpusFacts]:
    """Return the facts of every source that has them, noting as problems where there are none."""
    corpora: dict[str, CorpusFacts] = {}
    for text in found.texts:
        assert found.model is not None
        try:
            facts = load_facts(text, job.prepared_root)
            if facts is None and estimates_allowed:
                from rewarm.corpus.estimate import estimate_source

                facts = estimate_source(
                    text, vocab_size=found.model.vocab_size, open_chat=open_chat
                )
        except UserError as error:
            found.problems.extend(error.problems)
            continue
        if facts is None:
            found.problems.add(
                f"sources.{text.name}",
                "it is not prepared, or its text changed since",
                "run `rewarm prepare` with this recipe",
            )
        else:
            corpora[text.name] = facts
    for rehearsal in found.unmade():
        if estimates_allowed:
            corpora[rehearsal.name] = estimate_rehearsal(rehearsal)
        else:
            note_unmade(rehearsal, found.problems)
    if found.model is None:
        return corpora
    corpora = with_curation(job, corpora, found, estimates_allowed=estimates_allowed)
    return with_selections(job.recipe, corpora, found, estimates_allowed=estimates_allowed)


def _packings(
    job: Job, found: Survey, corpora: Mapping[str, CorpusFacts]
) -> dict[str, PackingFacts]:
    """Return what is known of both ways of packing what is kept of each prepared source.

    `prepare` packs for the recipe's sequence length; a plan of best-fit windows of another length,
    or of another selection, has to know how many there are, and packs then and there. One of
    contiguous windows can do without the comparison. What cannot be packed is noted as a problem.
    """
    length = sequence_length_of(job.recipe, found.model)
    packings: dict[str, PackingFacts] = {}
    if length is None:
        return packings
    for name, facts in corpora.items():
        if not facts.measured:
            continue
        try:
            if job.recipe.batch.packing == "contiguous":
                packing = load_packing(facts, length)
            else:
                packing = ensure_packing(facts, length)
        except UserError as error:
            found.problems.extend(error.problems)
            continue
        if packing is not None:
            packings[name] = packing
    return packings
