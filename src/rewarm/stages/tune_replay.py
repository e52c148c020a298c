"""`rewarm tune --replay`: how much old text a run needs, by a law fitted to short runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from rewarm.artifacts import write_atomically, write_json
from rewarm.errors import PlanError, Problems, UserError
from rewarm.evaluation.forgetting import NEW_ROLES, OLD_ROLES
from rewarm.evaluation.mixture_law import FEWEST_RUNS
from rewarm.evaluation.replay_search import (
    CHECK_LENGTH,
    CHECK_SHARE,
    LENGTHS,
    RULE,
    SHARES,
    ReplayFinding,
    ReplayTrial,
    find_share,
    try_share,
)
from rewarm.planning.plan import Plan
from rewarm.recipe.phases import PhaseRecipe, Until
from rewarm.recipe.schedule import ScheduleRecipe
from rewarm.reporting.replay_tuning import replay_svg, replay_table
from rewarm.stages.job import Job, command_line, open_job
from rewarm.stages.plan import plan_job
from rewarm.stages.short_run import ShortRun, plan_short_run, short_recipe, train_short_run
from rewarm.stages.train import FINISHED
from rewarm.units import counted, format_count, format_duration, parse_count

__all__ = ["DEFAULT_TOLERANCE", "run_tune_replay"]

DEFAULT_TOLERANCE = 0.05
_SHARE_OF_BUDGET = 50
_LEAST_STEPS = 40


class _Trial(NamedTuple):
    replay: float
    run: ShortRun


class _Search(NamedTuple):
    """The runs as planned, the one that checks the law last; nothing has begun."""

    trials: tuple[_Trial, ...]
    plan: Plan  # the recipe's own


def run_tune_replay(
    path: Path, overrides: Iterable[str], *, tolerance: float | None, tokens: str | None
) -> int:
    """Make the short runs, fit the law, say which share to take; return training's exit code.

    Raises UserError for what was asked wrongly, and for what the verbs before it refuse.
    """
    overrides = list(overrides)
    job = open_job(path, overrides)
    search = _plan_search(job, tokens, tolerance)
    tolerance = DEFAULT_TOLERANCE if tolerance is None else tolerance
    console = Console()
    _announce(search, tolerance, console)
    command = _command(path, overrides, tolerance, tokens)
    for number, trial in enumerate(search.trials, start=1):
        done = " was made before" if trial.run.is_done() else ""
        size = format_count(trial.run.plan.science.num_tokens)
        told = f"replay {trial.replay:.0%}, {size} tokens{done}"
        _say(console, f"\nrun {number} of {len(search.trials)}, {told}")
        code = train_short_run(trial.run, command=command, console=console)
        if code != FINISHED:
            return code
    finding = _finding(search, job.recipe.seed, tolerance)
    folder = job.run.path / "tune"
    runs = [str(trial.run.folder.path.relative_to(job.run.path)) for trial in search.trials]
    write_json(folder / "replay.json", {"runs": runs, **finding.model_dump(mode="json")})
    write_atomically(folder / "replay.svg", replay_svg(finding))
    console.print()
    console.print(replay_table(finding))
    _tell_next(finding, search.plan, console)
    _say(console, f"written to {folder / 'replay.json'} and {folder / 'replay.svg'}")
    return FINISHED


def _plan_search(job: Job, tokens: str | None, tolerance: float | None) -> _Search:
    """Return the runs as planned, or raise with everything that is wrong with what was asked."""
    problems = Problems()
    if tolerance is not None and not 0 <= tolerance < 10:
        problems.add(
            "--tolerance", f"{tolerance:g} bits per byte cannot be meant", "e.g. --tolerance 0.05"
        )
    longest = _longest(job, tokens, problems)
    _check_schedule(job.recipe.schedule, problems)
    problems.raise_as(UserError)
    plan = plan_job(job, estimates_allowed=False)
    _check_sides(plan)
    sizes = [(share, longest * length) for length in LENGTHS for share in SHARES]
    sizes.append((CHECK_SHARE, longest * CHECK_LENGTH))
    trials = [_Trial(share, _short_run(job, plan, share, round(size))) for share, size in sizes]
    # What there is to be warned of is much the same for all, and is told once.
    told = [trials[0], *(_Trial(share, _without_warnings(run)) for share, run in trials[1:])]
    return _Search(tuple(told), plan)


def _longest(job: Job, tokens: str | None, problems: Problems) -> float:
    """Return the tokens of the longest run that the law is fitted to."""
    budget, batch = job.recipe.budget.tokens, job.recipe.batch.tokens
    least = _LEAST_STEPS * batch / min(LENGTHS)
    if tokens is None:
        return max(budget / _SHARE_OF_BUDGET, least)
    try:
        number = parse_count(tokens)
    except ValueError as error:
        problems.add("--tokens", str(error), "write e.g. --tokens 10M")
        return least
    if number * min(LENGTHS) < 4 * batch:
        problems.add(
            "--tokens",
            f"of {number} tokens the shortest run has a quarter, which is not four steps of "
            f"{batch}",
            f"give {format_count(round(least))}, or leave it out",
        )
    return float(number)


def _check_schedule(schedule: ScheduleRecipe, problems: Problems) -> None:
    """Note what in a schedule is a length of its own, and so no schedule of a shorter run."""
    if schedule.match_area is not None:
        problems.add(
            "schedule.match_area",
            "short runs have a smaller area by nature",
            "leave it out while tuning: -o schedule.match_area=none, or give peak_lr",
        )
    if any(piece.tokens or piece.steps for piece in schedule.pieces):
        problems.add(
            "schedule.pieces",
            "pieces of so many tokens or steps do not shrink with a short run",
            "give their lengths as fractions",
        )


def _check_sides(plan: Plan) -> None:
    """Raise where old or new text is not there to be shown and measured."""
    problems = Problems()
    for name, roles in (("old", OLD_ROLES), ("new", NEW_ROLES)):
        corpora = [c for c in plan.conduct.corpora.values() if c.role in roles]
        shown = {source.name for source in plan.science.sources}
        if not any(corpus.name in shown for corpus in corpora):
            problems.add(
                "phases",
                f"no phase shows {name} text, so its share cannot be varied",
                f"add a source of {name} text to a blend, with any share",
            )
        elif not any(corpus.held_out_documents for corpus in corpora):
            problems.add(
                "sources",
                f"no {name} text is held out, so that no run could be measured on it",
                "set held_out of a source, e.g. sources.NAME.held_out = 0.01, and prepare again",
            )
    problems.raise_as(PlanError)


def _short_run(job: Job, plan: Plan, replay: float, num_tokens: int) -> ShortRun:
    """Return a run of the recipe's shape, with `replay` of every blend old text."""
    recipe = short_recipe(
        job.recipe,
        name=f"{job.recipe.name[:40]}-replay-{replay:g}-{num_tokens}",
        num_tokens=num_tokens,
        schedule=_shrunk(job.recipe.schedule, plan.science.num_steps),
        phases=_phases(plan, replay),
    )
    return plan_short_run(job, recipe, f"replay/{replay:g}-{format_count(num_tokens)}")


def _shrunk(schedule: ScheduleRecipe, num_steps: int) -> ScheduleRecipe:
    """Return the schedule with its warm-up as a share of the steps."""
    if schedule.warmup_steps is None:
        return schedule
    share = min(1.0, schedule.warmup_steps / num_steps)
    kept = schedule.model_dump(exclude={"warmup_steps"}, exclude_unset=True, mode="python")
    return ScheduleRecipe.model_validate({**kept, "warmup_fraction": share})


def _phases(plan: Plan, replay: float) -> list[PhaseRecipe]:
    """Return the plan's phases with `replay` of each old text.

    Within old and within new text the shares stay in proportion; a phase without one side takes
    the other phases' mean of it.
    """
    science = plan.science
    names = [source.name for source in science.sources]
    roles = {source.name: source.role for source in science.sources}
    phases = []
    for phase in science.phases:
        own = dict(zip(names, phase.weights, strict=True))
        weights: dict[str, float] = {}
        for side, share in ((OLD_ROLES, replay), (NEW_ROLES, 1.0 - replay)):
            of_side = {name: own[name] for name in names if roles[name] in side}
            if not any(of_side.values()):
                of_side = {
                    name: sum(
                        p.weights[names.index(name)] * (p.end_step - p.start_step)
                        for p in science.phases
                    )
                    for name in of_side
                }
            total = sum(of_side.values())
            weights |= {n: share * w / total for n, w in of_side.items() if share and w}
        is_last = phase is science.phases[-1]
        until = None if is_last else Until(fraction=phase.end_step / science.num_steps)
        phases.append(PhaseRecipe(name=phase.name, weights=weights, until=until))
    return phases


def _without_warnings(short: ShortRun) -> ShortRun:
    return ShortRun(short.plan.model_copy(update={"warnings": ()}), short.job)


def _announce(search: _Search, tolerance: float, console: Console) -> None:
    """Say what will be done, at what cost, and by which rule the answer will be picked."""
    plans = [trial.run.plan for trial in search.trials]
    spent = sum(plan.science.num_tokens for plan in plans)
    seconds = sum({e.name: e.value for e in plan.estimates}["time"] for plan in plans)
    lengths = ", ".join(
        format_count(num) for num in sorted({plan.science.num_tokens for plan in plans[:-1]})
    )
    budget = search.plan.science.num_tokens
    _say(
        console,
        f"{len(plans)} short runs: replay {', '.join(f'{share:.0%}' for share in SHARES)} at "
        f"{lengths} tokens each, and {CHECK_SHARE:.0%} at "
        f"{format_count(plans[-1].science.num_tokens)} to check the law by. In all "
        f"{format_count(spent)} tokens, {spent / budget:.0%} of the budget of "
        f"{format_count(budget)}; about {format_duration(seconds)}, if the plan's estimate holds.",
    )
    shortest = min(plan.science.num_steps for plan in plans)
    if shortest < _LEAST_STEPS:
        _say(
            console,
            f"The shortest has {counted(shortest, 'step')}: old loss jumps within the first "
            f"{_LEAST_STEPS} and comes back, which the law cannot follow. Longer runs (--tokens) "
            "would tell more.",
        )
    _say(console, f"{RULE} Tolerance: {tolerance:g} bits per byte.")


def _finding(search: _Search, seed: int, tolerance: float) -> ReplayFinding:
    trials = [_trial(trial, seed) for trial in search.trials]
    if sum(trial.old is not None for trial in trials[:-1]) < FEWEST_RUNS:
        raise PlanError.one(
            "schedule.peak_lr",
            f"only {sum(t.old is not None for t in trials[:-1])} of the runs did not diverge",
            "lower the rate (rewarm tune --lr), then tune the replay",
        )
    return find_share(
        trials[:-1],
        trials[-1],
        tolerance=tolerance,
        num_tokens=search.plan.science.num_tokens,
        seed=seed,
    )


def _trial(trial: _Trial, seed: int) -> ReplayTrial:
    num_tokens = trial.run.plan.science.num_tokens
    return try_share(trial.replay, num_tokens, trial.run.records(), seed=seed)


def _tell_next(finding: ReplayFinding, plan: Plan, console: Console) -> None:
    share = finding.finding.share
    if share is None:
        return
    lines = [
        f"    {phase.name}: weights = {{ {_written(phase)} }}" for phase in _phases(plan, share)
    ]
    _say(console, "\nIn the recipe's phases:\n" + "\n".join(lines))


def _written(phase: PhaseRecipe) -> str:
    assert isinstance(phase.weights, dict)
    return ", ".join(f"{name} = {weight:.4g}" for name, weight in phase.weights.items())


def _command(path: Path, overrides: Sequence[str], tolerance: float, tokens: str | None) -> str:
    given = ["--replay", "--tolerance", f"{tolerance:g}"]
    given += [] if tokens is None else ["--tokens", tokens]
    return f"{command_line('tune', path, overrides)} {shlex.join(given)}"


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
