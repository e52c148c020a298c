"""`rewarm tune`: measures, in short runs, what the plan would otherwise assume.

`--lr` holds three constant rates around the one that the recipe leads to, on the recipe's first
blend. The rule that picks one is printed before the runs begin; the recipe is never edited.
`--replay` is in `tune_replay.py`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from rewarm.artifacts import write_json
from rewarm.errors import PlanError, Problem, Problems, UserError
from rewarm.evaluation.forgetting import NEW_ROLES, OLD_ROLES
from rewarm.evaluation.lr_search import (
    RULE,
    LrFinding,
    LrTrial,
    candidate_rates,
    find_rate,
    try_rate,
)
from rewarm.planning.plan import Plan
from rewarm.planning.schedule import lr_at, peak_step
from rewarm.recipe.schedule import LrExpression, ScheduleRecipe
from rewarm.recipe.schema import Recipe
from rewarm.reporting.lr_tuning import finding_table
from rewarm.reporting.numbers import rate as written_rate
from rewarm.stages.job import Job, command_line, open_job
from rewarm.stages.plan import plan_job
from rewarm.stages.short_run import ShortRun, plan_short_run, short_recipe, train_short_run
from rewarm.stages.train import FINISHED
from rewarm.stages.tune_replay import run_tune_replay
from rewarm.units import format_count, format_duration, parse_count

__all__ = ["num_tokens_of", "run_tune"]

_SHARE_OF_BUDGET = 50
_LEAST_STEPS = 40
_LARGEST_LR = 1.0


def run_tune(
    path: Path | None,
    overrides: Iterable[str],
    *,
    lr: bool,
    replay: bool = False,
    around: float | None = None,
    tokens: str | None = None,
    tolerance: float | None = None,
) -> int:
    """Tune what is asked for; return the exit code, that of training where it was stopped.

    Raises UserError where not one thing is asked for, and for what the verbs before it refuse.
    """
    _check_asked(path, lr=lr, replay=replay, around=around, tolerance=tolerance)
    assert path is not None
    if replay:
        return run_tune_replay(path, overrides, tolerance=tolerance, tokens=tokens)
    overrides = list(overrides)
    job = open_job(path, overrides)
    search = _plan_search(job, around, tokens)
    command = _command(path, overrides, around, tokens)
    console = Console()
    _announce(search, console)
    for number, (rate, short) in enumerate(zip(search.rates, search.runs, strict=True), start=1):
        done = " was made before" if short.is_done() else ""
        _say(console, f"\nrun {number} of 3, constant rate {written_rate(rate)}{done}")
        code = train_short_run(short, command=command, console=console)
        if code != FINISHED:
            return code
    finding = _finding(search, job.recipe.seed)
    result = job.run.path / "tune" / "lr.json"
    runs = [str(short.folder.path.relative_to(job.run.path)) for short in search.runs]
    write_json(result, {**_as_written(search), "runs": runs, **finding.model_dump(mode="json")})
    console.print()
    console.print(finding_table(finding))
    _tell_next(finding, path, overrides, tokens, console)
    _say(console, f"written to {result}")
    return FINISHED


def _check_asked(
    path: Path | None, *, lr: bool, replay: bool, around: float | None, tolerance: float | None
) -> None:
    problems = Problems()
    if lr == replay:
        problems.add(
            "rewarm tune",
            "it tunes one thing at a time" if lr else "nothing to tune is named",
            "add --lr (three short runs around the rate that the recipe leads to) or --replay "
            "(thirteen that say how much old text it needs)",
        )
    verb = "rewarm tune" + (" --replay" if replay else " --lr" if lr else "")
    if path is None:
        problems.add(verb, "no recipe is named", f"give one: {verb} recipe.toml")
    if replay and around is not None:
        problems.add("--around", "it is the middle of --lr's rates", "leave it out")
    if lr and tolerance is not None:
        problems.add("--tolerance", "it is for --replay", "leave it out")
    problems.raise_as(UserError)


class _Search(NamedTuple):
    """Three rates and their runs, planned; nothing has begun."""

    around: float
    why: str
    rates: tuple[float, float, float]
    runs: Sequence[ShortRun]


def _plan_search(job: Job, around: float | None, tokens: str | None) -> _Search:
    """Return the runs as planned, or raise with everything that is wrong with what was asked."""
    problems = Problems()
    num_tokens = num_tokens_of(job.recipe, tokens, problems)
    if around is not None:
        _note_around(around, problems)
    problems.raise_as(UserError)
    why = "as --around says"
    if around is None:
        around, why = _rate_of_recipe(job)
    rates = candidate_rates(around)
    runs = [_short_run(job, rate, num_tokens) for rate in rates]
    _check_held_out(runs[0].plan)
    # What there is to be warned of is the same for all three, and is told once.
    told = [runs[0], *(_without_warnings(short) for short in runs[1:])]
    return _Search(around, why, rates, told)


def _note_around(around: float, problems: Problems) -> None:
    """Note a middle of which not all three rates are learning rates."""
    if not 0 < around < _LARGEST_LR:
        problems.add("--around", f"{around:g} is not a learning rate", "e.g. --around 3e-5")
        return
    lowest, _, highest = candidate_rates(around)
    wrong = [rate for rate in (lowest, highest) if not 0 < rate <= _LARGEST_LR]
    if wrong:
        problems.add(
            "--around",
            f"with {around:g} in the middle one of the three rates is {wrong[0]:g}",
            "e.g. --around 3e-5",
        )


def num_tokens_of(recipe: Recipe, tokens: str | None, problems: Problems) -> int:
    """Return the tokens of one short run: as asked, or the stated share of the budget."""
    batch = recipe.batch.tokens
    if tokens is None:
        wanted = max(recipe.budget.tokens // _SHARE_OF_BUDGET, _LEAST_STEPS * batch)
        return min(wanted, recipe.budget.tokens)
    try:
        number = parse_count(tokens)
    except ValueError as error:
        problems.add("--tokens", str(error), "write e.g. --tokens 10M")
        return recipe.budget.tokens
    if number < 2 * batch:
        problems.add(
            "--tokens",
            f"{number} tokens do not pay for two steps of {batch}",
            f"give at least {2 * batch}; {_LEAST_STEPS * batch} ({_LEAST_STEPS} steps) say more",
        )
    return number


def _rate_of_recipe(job: Job) -> tuple[float, str]:
    """Return the peak of the recipe's own schedule, with the plan's reason for it."""
    try:
        plan = plan_job(job, estimates_allowed=False)
    except PlanError as error:
        about_rates = ("schedule.peak_lr", "base.pretraining")
        if any(problem.where.startswith(about_rates) for problem in error.problems):
            hint = Problem(
                "--around", "the recipe leads to no rate to look around", "give one: --around 3e-5"
            )
            raise PlanError([*error.problems, hint]) from error
        raise
    schedule = plan.science.schedule
    reasons = {(reason.field, reason.source): reason.reason for reason in plan.reasons}
    assumed = reasons.get(("base.pretraining.final_lr", "assumption"))
    return lr_at(schedule, peak_step(schedule)), assumed or "the peak of the recipe's schedule"


def _short_run(job: Job, rate: float, num_tokens: int) -> ShortRun:
    recipe = short_recipe(
        job.recipe,
        name=f"{job.recipe.name[:50]}-lr-{rate:.3g}",
        num_tokens=num_tokens,
        schedule=ScheduleRecipe(kind="constant", peak_lr=LrExpression(factor=rate)),
        phases=[job.recipe.phases[0].model_copy(update={"until": None})],
    )
    return plan_short_run(job, recipe, f"lr/{rate:.3g}")


def _without_warnings(short: ShortRun) -> ShortRun:
    return ShortRun(short.plan.model_copy(update={"warnings": ()}), short.job)


def _check_held_out(plan: Plan) -> None:
    """Raise where nothing would be measured that the rule could weigh."""
    weighed = OLD_ROLES | NEW_ROLES
    corpora = plan.conduct.corpora.values()
    if not any(corpus.held_out_documents and corpus.role in weighed for corpus in corpora):
        raise PlanError.one(
            "sources",
            "none of them holds out any text, so that no run could be measured",
            "set held_out of a source, e.g. sources.NAME.held_out = 0.01, and prepare again",
        )


def _announce(search: _Search, console: Console) -> None:
    """Say what will be done, and by which rule the answer will be picked."""
    plan = search.runs[0].plan
    science = plan.science
    seconds = {estimate.name: estimate.value for estimate in plan.estimates}["time"]
    _say(
        console,
        f"Three short runs at constant rates {', '.join(map(written_rate, search.rates))}, around "
        f"{written_rate(search.around)} ({search.why}). Each takes {science.num_steps} steps "
        f"({format_count(science.num_tokens)} tokens) of the blend of phase "
        f"{science.phases[0].name!r}, the same data in the same order; about "
        f"{format_duration(3 * seconds)} in all, if the plan's estimate holds.",
    )
    _say(console, RULE)


def _finding(search: _Search, seed: int) -> LrFinding:
    trials = [
        LrTrial.of_divergence(rate) if short.has_diverged else try_rate(rate, short.records())
        for rate, short in zip(search.rates, search.runs, strict=True)
    ]
    records = [short.records() for short in search.runs]
    return find_rate(
        (trials[0], trials[1], trials[2]), (records[0], records[1], records[2]), seed=seed
    )


def _as_written(search: _Search) -> dict[str, object]:
    science = search.runs[0].plan.science
    return {
        "around": search.around,
        "why": search.why,
        "num_steps": science.num_steps,
        "num_tokens": science.num_tokens,
    }


def _tell_next(
    finding: LrFinding,
    path: Path,
    overrides: list[str],
    tokens: str | None,
    console: Console,
) -> None:
    if finding.rate is not None:
        _say(
            console,
            f"\nIn {path}, under [schedule]:\n    peak_lr = {finding.rate!r}\n"
            f"or, for once, -o schedule.peak_lr={finding.rate!r}",
        )
        return
    assert finding.next_rates is not None
    _say(console, f"\nGo on with: {_command(path, overrides, finding.next_rates[1], tokens)}")


def _command(path: Path, overrides: list[str], around: float | None, tokens: str | None) -> str:
    given = [] if around is None else ["--around", f"{around!r}"]
    given += [] if tokens is None else ["--tokens", tokens]
    return f"{command_line('tune', path, overrides)} {shlex.join(['--lr', *given])}"


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
