"""The runs of a comparison, planned: every arm with every seed, all mistakes told together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rewarm.comparison.arms import Arm, ArmProblems, pairing
from rewarm.comparison.experiment import Experiment
from rewarm.comparison.metrics import common_domains, known_once_loaded, measured_by
from rewarm.comparison.outcomes import Outcome, compared_arm, outcome_of
from rewarm.corpus.chat import OpenChat
from rewarm.errors import PlanError, Problems, UserError
from rewarm.planning.amended import amended_plan
from rewarm.planning.amendments import Amendments
from rewarm.planning.plan import Plan
from rewarm.recipe.schema import Recipe
from rewarm.records.comparison import ComparedArm
from rewarm.records.comparison_folder import ComparisonFolder
from rewarm.records.facts import CorpusFacts
from rewarm.records.run_folder import RunFolder
from rewarm.stages.job import Job, job_of
from rewarm.stages.launches import Launch, States, num_cores, threads_of_each
from rewarm.stages.plan import plan_job
from rewarm.units import format_count

__all__ = [
    "Jobs",
    "PlannedRun",
    "compared_arms",
    "jobs_of",
    "known_later",
    "outcomes_of",
    "plan_runs",
    "workers_of",
]

Jobs = dict[tuple[str, int], Job]
"""By name of the arm and seed."""


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One arm with one seed, planned."""

    arm: Arm
    seed: int
    job: Job
    plan: Plan

    @property
    def launch(self) -> Launch:
        """The run as it may be trained."""
        return Launch(f"{self.arm.name}, seed {self.seed}", self.plan, self.job.run)


def workers_of(experiment: Experiment, num_runs: int) -> tuple[int, int]:
    """Return how many runs go on at a time, and the CPU threads of each on this machine."""
    run = experiment.run
    if run.mode in ("slurm", "ray"):
        return run.workers or num_runs, run.threads_each or 1
    workers = 1 if run.mode == "sequential" else min(run.workers or num_cores(), num_runs)
    return workers, run.threads_each or threads_of_each(workers)


def jobs_of(
    experiment: Experiment,
    arms: Sequence[Arm],
    root: ComparisonFolder,
    *,
    with_base: Callable[[Arm, int, Recipe], Recipe] = lambda arm, seed, recipe: recipe,
) -> Jobs:
    """Return the job of every run; `with_base` gives arms that begin elsewhere their base."""
    jobs: Jobs = {}
    for arm in arms:
        for seed in experiment.seed_list:
            recipe = with_base(arm, seed, arm.recipe(seed))
            run = root.run(arm.name, seed).path
            jobs[arm.name, seed] = job_of(recipe, arm.folder, run)
    return jobs


def plan_runs(
    experiment: Experiment,
    arms: Sequence[Arm],
    jobs: Mapping[tuple[str, int], Job],
    *,
    estimates_allowed: bool,
    open_chat: OpenChat | None = None,
) -> list[PlannedRun]:
    """Return every run with its plan.

    Raises PlanError with the mistakes of all arms together: what `rewarm plan` would say of each,
    budgets that differ without a word, primary metrics that an arm does not measure, arms that are
    measured on other text than the control.
    """
    mistakes = ArmProblems()
    found: list[PlannedRun] = []
    for arm in arms:
        try:
            for seed in experiment.seed_list:
                job = jobs[arm.name, seed]
                plan = plan_job(job, estimates_allowed=estimates_allowed, open_chat=open_chat)
                found.append(PlannedRun(arm, seed, job, plan))
        except UserError as error:
            mistakes.add(arm.name, error)
    problems = Problems()
    problems.extend(mistakes.told(len(arms)))
    _check_budgets(experiment, jobs, arms, problems)
    _check_metrics(experiment, found, problems)
    _check_measured_alike(found, problems)
    problems.raise_as(PlanError)
    return found


def _check_budgets(
    experiment: Experiment,
    jobs: Mapping[tuple[str, int], Job],
    arms: Sequence[Arm],
    problems: Problems,
) -> None:
    """Note arms with another budget than the control's that do not say why, and the reverse."""
    seed = experiment.seed_list[0]
    tokens = {arm.name: jobs[arm.name, seed].recipe.budget.tokens for arm in arms}
    one = tokens[experiment.control]
    for arm in arms:
        same = tokens[arm.name] == one
        if not same and arm.budget_differs is None:
            problems.add(
                f"arms.{arm.name}",
                f"its budget is {format_count(tokens[arm.name])} tokens, the control's "
                f"{format_count(one)}",
                'give it the same, or say why not: budget_differs = "reason"',
            )
        elif same and arm.budget_differs is not None and arm.kind != "noise floor":
            problems.add(
                f"arms.{arm.name}.budget_differs", "its budget is the control's", "leave it out"
            )


def _check_metrics(experiment: Experiment, runs: Sequence[PlannedRun], problems: Problems) -> None:
    """Note primary metrics that an arm of a contrast will not have."""
    common = common_domains([run.plan for run in runs])
    measured = {run.arm.name: _measured(run, common) for run in runs}
    named = dict.fromkeys(name for pair in experiment.pairs() for name in pair[:2])
    later = known_later(experiment, runs)
    for index, primary in enumerate(experiment.primary):
        if primary.metric in later:
            continue
        lacking = [n for n in named if n in measured and primary.metric not in measured[n]]
        if lacking:
            problems.add(
                f"primary[{index}].metric",
                f"{primary.metric!r} is not measured of {', '.join(lacking)}",
                f"measured are: {', '.join(measured[lacking[0]])}",
            )


def known_later(experiment: Experiment, runs: Sequence[PlannedRun]) -> list[str]:
    """Return the primary metrics of which only loaded tasks of the harness can tell."""
    return [
        primary.metric
        for primary in experiment.primary
        if any(known_once_loaded(primary.metric, run.plan) for run in runs)
    ]


def _check_measured_alike(runs: Sequence[PlannedRun], problems: Problems) -> None:
    """Note arms that are measured on other items than the control: nothing could be subtracted."""
    control = next((run.plan for run in runs if run.arm.kind == "control"), None)
    if control is None:
        return
    first = {run.arm.name: run.plan for run in reversed(runs)}
    for name, plan in first.items():
        one, other = (
            p.conduct.evaluation.model_dump(exclude=_NOT_ITS_TEXT) for p in (plan, control)
        )
        for key in one:
            if one[key] != other[key]:
                problems.add(
                    f"arms.{name}: evaluation.{key}",
                    f"it is {one[key]!r}, the control's {other[key]!r}: they would be measured on "
                    "other text",
                    "give all arms the same",
                )
        theirs = control.conduct.corpora
        for source, facts in plan.conduct.corpora.items():
            if source in theirs and _held_out(facts) != _held_out(theirs[source]):
                problems.add(
                    f"arms.{name}: sources.{source}",
                    "it holds out other text than the control's source of this name",
                    "give both the same text and the same held_out, or call it otherwise",
                )


# When it is measured and what is done about it; a cap's effect on the text stands in its place.
_NOT_ITS_TEXT = {
    "every_steps",
    "choices_every_evaluation",
    "average",
    "max_share",
    "on_forgetting",
}


def _held_out(facts: CorpusFacts) -> tuple[int, int]:
    return facts.held_out_documents, facts.held_out_bytes


def _measured(run: PlannedRun, common: frozenset[str]) -> list[str]:
    """Return an arm's metrics; a gap needs the base at its beginning."""
    names = measured_by(run.plan, common)
    return [n for n in names if not (run.arm.from_scratch and n.startswith("stability_gap"))]


def compared_arms(runs: Sequence[PlannedRun]) -> list[ComparedArm]:
    """Return what each arm was given, by the plan of its first seed."""
    first = {run.arm.name: run for run in reversed(runs)}
    return [
        compared_arm(run.arm, run.plan, _pairing(run.arm.name, runs))
        for run in (first[name] for name in dict.fromkeys(run.arm.name for run in runs))
    ]


def _pairing(arm: str, runs: Sequence[PlannedRun]) -> str:
    """Return what runs of an arm share with the control's, as amendments have left both."""
    dealt = {(run.arm.name, run.seed): _as_dealt(run) for run in runs}
    control = next(run.arm.name for run in runs if run.arm.kind == "control")
    seeds_of: dict[str, list[str]] = {}
    for name, seed in dealt:
        if name == arm:
            shared = pairing(dealt[arm, seed], dealt[control, seed])
            seeds_of.setdefault(shared, []).append(str(seed))
    if len(seeds_of) == 1:
        return next(iter(seeds_of))
    return "; ".join(f"{shared} (seed {', '.join(own)})" for shared, own in seeds_of.items())


def _as_dealt(run: PlannedRun) -> Plan:
    chain = Amendments(run.plan.fingerprint, tuple(run.job.run.amended()))
    return amended_plan(run.plan, chain)


def outcomes_of(runs: Sequence[PlannedRun], states: States, root: Path) -> list[Outcome]:
    """Return what every run came to; `states` are by the launches' names."""
    controls = {run.seed: run for run in runs if run.arm.kind == "control"}
    common = common_domains([run.plan for run in runs])
    found: list[Outcome] = []
    for run in runs:
        control = controls[run.seed]
        elsewhere = run.plan.science.base_weights != control.plan.science.base_weights
        state = states[run.launch.name]
        found.append(
            outcome_of(
                run.arm,
                run.seed,
                run.plan,
                RunFolder(run.job.run.path),
                root=root,
                state="done"
                if state == "done"
                else "failed"
                if state == "failed"
                else "unfinished",
                why=run.job.run.last_lines() if state == "failed" else "",
                base=control.job.run.evals() if elsewhere else None,
                common=common,
            )
        )
    return found
