"""What `rewarm inspect` is pointed at: a recipe, a run folder, or one prepared folder."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rewarm.artifacts import MANIFEST_NAME, parse_json
from rewarm.corpus.bins import load_packing
from rewarm.corpus.place import FACTS, find_place, load_facts, read_facts
from rewarm.corpus.reject_log import REJECTED
from rewarm.errors import CorpusError, Problems, RecipeError, UserError
from rewarm.planning.plan import Plan, load_plan
from rewarm.planning.size import sequence_length_of
from rewarm.records.facts import CorpusFacts
from rewarm.records.packing import Packing
from rewarm.records.run_folder import RunFolder
from rewarm.stages.job import Job, open_job
from rewarm.stages.plan import plan_job
from rewarm.stages.selecting import with_selections
from rewarm.stages.survey import survey

__all__ = ["Target", "chosen_sources", "open_target"]


@dataclass(slots=True)
class Target:
    """Sources that can be looked at, and what else is known of them.

    `unprepared` are folders of sources of which only rejected documents are there; `missing` says
    why a source cannot be looked at. `job` is a recipe's, `plan` a run folder's.
    """

    title: str
    corpora: dict[str, CorpusFacts]
    tokenizer_folder: Path | None = None
    sequence_length: int | None = None
    packing: Packing | None = None
    unprepared: dict[str, Path] = field(default_factory=dict)
    missing: dict[str, UserError] = field(default_factory=dict)
    job: Job | None = None
    known_plan: Plan | None = None

    def plan(self) -> Plan:
        """Return the plan, of the run or of the recipe as it is; raises UserError."""
        if self.known_plan is not None:
            return self.known_plan
        if self.job is None:
            raise CorpusError.one(
                "--phase", "a prepared folder has no phases", "give the recipe, or a run folder"
            )
        return plan_job(self.job, estimates_allowed=False)


def open_target(path: Path, overrides: Iterable[str]) -> Target:
    """Return what a path stands for; raises UserError where it is none of the three."""
    if not path.is_dir():
        return _of_recipe(open_job(path, overrides))
    if list(overrides):
        raise RecipeError.one("-o", "a folder is as it is", "give the recipe to change its keys")
    if (path / "plan.json").is_file():
        return _of_run(RunFolder(path.resolve()))
    if any((path / name).is_file() for name in (FACTS, REJECTED)):
        return _of_prepared(path.resolve())
    inside = sorted(entry.parent.name for entry in path.glob(f"*/{FACTS}"))
    raise CorpusError.one(
        str(path),
        "it is neither a run folder nor one that `rewarm prepare` made",
        f"name one of those in it: {', '.join(inside[:10])}"
        if inside
        else "give a recipe, a run folder or a prepared folder",
    )


def _of_recipe(job: Job) -> Target:
    found = survey(job)
    if found.model is None:
        found.raise_as(CorpusError)
    assert found.model is not None
    target = Target(
        job.recipe.name,
        {},
        tokenizer_folder=found.base_folder,
        sequence_length=sequence_length_of(job.recipe, found.model),
        packing=job.recipe.batch.packing,
        job=job,
    )
    whole: dict[str, CorpusFacts] = {}
    for text in found.texts:
        try:
            facts = load_facts(text, job.prepared_root)
            folder = find_place(text, job.prepared_root).folder
        except UserError as error:
            target.missing[text.name] = error
            continue
        if facts is not None:
            whole[text.name] = facts
            continue
        target.missing[text.name] = _not_prepared(text.name)
        if (folder / REJECTED).is_file() or any(folder.glob(f"shard-*.{REJECTED}")):
            target.unprepared[text.name] = folder
    for name in job.recipe.sources:
        if name not in whole and name not in target.missing:
            target.missing[name] = _told_of(name, found.problems) or _not_prepared(name)
    problems = Problems()
    selected = with_selections(job.recipe, whole, found.model, problems, estimates_allowed=True)
    # What is not scored yet is looked at whole.
    target.corpora = {
        name: facts if facts.measured else whole[name] for name, facts in selected.items()
    }
    for name in whole:
        if name not in target.corpora:
            target.missing[name] = _told_of(name, problems) or _not_prepared(name)
    return target


def _told_of(name: str, problems: Problems) -> UserError | None:
    """Return those of the problems that are a source's own."""
    own = [
        problem
        for problem in problems.noted
        if problem.where == f"sources.{name}" or problem.where.startswith(f"sources.{name}.")
    ]
    return CorpusError(own) if own else None


def _not_prepared(name: str) -> UserError:
    return CorpusError.one(
        f"sources.{name}", "it is not prepared, or its text changed since", "run `rewarm prepare`"
    )


def _of_run(run: RunFolder) -> Target:
    plan = load_plan(run.plan)
    target = Target(
        plan.name,
        {name: facts for name, facts in plan.conduct.corpora.items() if facts.measured},
        tokenizer_folder=Path(plan.conduct.base_folder),
        sequence_length=plan.science.sequence_length,
        packing=plan.science.packing,
        known_plan=plan,
    )
    target.missing = {
        name: _not_prepared(name) for name in plan.conduct.corpora if name not in target.corpora
    }
    return target


def _of_prepared(folder: Path) -> Target:
    facts = read_facts(folder)
    if facts is None:
        return Target(
            folder.name,
            {},
            unprepared={folder.name: folder},
            missing={folder.name: _not_prepared(folder.name)},
        )
    facts = facts.model_copy(update={"folder": str(folder)})
    packed = {path.parent.name.split("-")[1] for path in folder.glob(f"bins-*/{MANIFEST_NAME}")}
    length = int(packed.pop()) if len(packed) == 1 else None
    is_packed = length is not None and load_packing(facts, length) is not None
    return Target(
        folder.name,
        {facts.name: facts},
        tokenizer_folder=_recorded_tokenizer(folder),
        sequence_length=length,
        packing="best-fit" if is_packed else "contiguous",
    )


def _recorded_tokenizer(folder: Path) -> Path | None:
    """Return the base's folder as `prepare` noted it, where it is still there."""
    try:
        noted = Path(parse_json((folder / MANIFEST_NAME).read_bytes())["tokenizer_folder"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return noted if (noted / "tokenizer.json").is_file() else None


def chosen_sources(target: Target, source: str | None) -> list[str]:
    """Return the names of the sources to look at: the one that is named, or all that can be.

    Raises CorpusError where there is no such source, with near names, or where none can be looked
    at, with the reasons.
    """
    known = [*target.corpora, *target.missing]
    if source is None:
        if not target.corpora and not target.unprepared:
            problems = Problems()
            for error in target.missing.values():
                problems.extend(error.problems)
            problems.raise_as(CorpusError)
        return list(target.corpora)
    if source not in known:
        near = difflib.get_close_matches(source, known, n=1, cutoff=0.4)
        raise CorpusError.one(
            "SOURCE",
            f"there is no source {source!r}",
            f"did you mean {near[0]!r}?" if near else f"its sources are {', '.join(known)}",
        )
    return [source]
