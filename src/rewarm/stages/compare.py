"""`rewarm compare`: arms by seeds from one base at one budget, and what may be said of them.

Every run is a run as any other, in a folder of its own; a run that is done is not made again, so
the same command goes on wherever it was stopped. What is claimed is written down first.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from rewarm.artifacts import make_folder, provenance, write_json
from rewarm.comparison.arms import Arm, arms_of
from rewarm.comparison.experiment import Experiment, WrittenExperiment, read_experiment
from rewarm.comparison.metrics import harness_problems
from rewarm.comparison.paired import LEVEL
from rewarm.comparison.registration import claims_of, register
from rewarm.comparison.student import detectable_in_errors, margin_in_errors
from rewarm.comparison.verdict import conclude
from rewarm.corpus.chat import OpenChat
from rewarm.errors import PlanError, Problem, Problems, RecipeError, RunFolderError
from rewarm.recipe.schema import Recipe
from rewarm.records.comparison import ComparisonResult, Registration
from rewarm.records.comparison_folder import ComparisonFolder
from rewarm.records.margins import num_ends
from rewarm.reporting.comparison_terminal import comparison_plan, comparison_verdict
from rewarm.stages.board import Board
from rewarm.stages.compared_runs import (
    PlannedRun,
    compared_arms,
    jobs_of,
    known_later,
    outcomes_of,
    plan_runs,
    workers_of,
)
from rewarm.stages.held_plans import FIX, check_done_run
from rewarm.stages.job import Job, command_line, keep_plan, trouble_with_folder
from rewarm.stages.launches import Launch, States, run_here, seen_whole, state_on_disk
from rewarm.stages.memberships import note_memberships
from rewarm.stages.terminated import TerminatedError, sigterm_raises, tell_stopped
from rewarm.training.lock import hold_lock
from rewarm.units import counted

__all__ = ["FAILED", "run_compare"]

FINISHED = 0
FAILED = 1
"""Exit code where an arm failed; the others are compared."""

_PACKAGES = ("rewarm", "torch", "transformers", "tokenizers", "numpy")


def run_compare(path: Path, *, dry_run: bool, open_chat: OpenChat | None = None) -> int:
    """Carry out an experiment from wherever it stands; return the exit code.

    SIGTERM lets the runs under way save and end, as a key press does.

    With `dry_run` it is planned and shown, and nothing is written.
    """
    console = Console()
    written = read_experiment(path)
    arms = arms_of(written)
    comparison = _Comparison(written, arms, console)
    comparison.check_folder()
    # Mistakes of all arms show before hours of tokenization and training.
    comparison.check_claims()
    planned = comparison.planned(estimates_allowed=True, open_chat=open_chat)
    comparison.show_plan(planned)
    if dry_run:
        comparison.say("\nnothing was run: leave out --dry-run to begin")
        return FINISHED
    make_folder(comparison.folder.path, fix="name another `folder` in the experiment")
    try:
        with sigterm_raises(), hold_lock(comparison.folder.lock, comparison.say):
            return comparison.carry_out()
    except TerminatedError:
        return tell_stopped(comparison.command, comparison.say)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """An experiment with its arms, and where it is carried out."""

    written: WrittenExperiment
    arms: Sequence[Arm]
    console: Console

    @property
    def experiment(self) -> Experiment:
        return self.written.experiment

    @property
    def folder(self) -> ComparisonFolder:
        return self.written.folder

    @property
    def command(self) -> str:
        return command_line("compare", self.written.path)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def check_folder(self) -> None:
        trouble = trouble_with_folder(self.folder.path)
        if trouble is not None:
            raise RecipeError.one("folder", trouble, "name another one")

    def check_claims(self) -> None:
        """Raise where what is claimed is not what was written down when the runs began."""
        self._register(write=False)

    def _register(self, *, write: bool) -> Registration:
        # Runs of other seeds, or of arms that were called otherwise, have shown something as well.
        begun = any(run.has_begun() for run in self.folder.runs())
        claims = claims_of(self.written, self.arms)
        return register(self.written, claims, has_begun=begun, write=write)

    def planned(
        self, *, estimates_allowed: bool, open_chat: OpenChat | None = None
    ) -> list[PlannedRun]:
        # Before anything runs, an arm from scratch is planned on the base whose shape it will have.
        with_base = _as_it_is if estimates_allowed else self._with_base
        jobs = jobs_of(self.experiment, self.arms, self.folder, with_base=with_base)
        return plan_runs(
            self.experiment,
            self.arms,
            jobs,
            estimates_allowed=estimates_allowed,
            open_chat=open_chat,
        )

    def _with_base(self, arm: Arm, seed: int, recipe: Recipe) -> Recipe:
        """Return the recipe with the base that this arm begins from, drawn where it has to be."""
        if not arm.from_scratch:
            return recipe
        from rewarm.stages.base import find_base
        from rewarm.stages.fresh_base import make_fresh_base

        shape = find_base(recipe.base, arm.folder)
        drawn = make_fresh_base(shape, self.folder.path / "bases", seed)
        update = {"path": str(drawn), "revision": None, "optimizer_state": None}
        return recipe.model_copy(update={"base": recipe.base.model_copy(update=update)})

    def show_plan(self, planned: Sequence[PlannedRun]) -> None:
        workers, _ = workers_of(self.experiment, len(planned))
        shown = comparison_plan(
            name=self.experiment.name,
            claims=claims_of(self.written, self.arms),
            arms=compared_arms(planned),
            measured=all(run.plan.measured for run in planned),
            known_later=known_later(self.experiment, planned),
            power=_power(self.experiment),
            how=f"{self.experiment.run.mode}, {workers} at a time",
            num_at_a_time=workers,
            folder=self.folder.path,
        )
        self.console.print(shown)

    def carry_out(self) -> int:
        """Prepare, train what is not trained, and conclude; the comparison's lock is held."""
        registration = self._register(write=True)
        self._prepare()
        planned = self.planned(estimates_allowed=False)
        self._check_kept(planned)
        launches = [run.launch for run in planned]
        states: States = {launch.name: state_on_disk(launch) for launch in launches}
        under_way, has_ended = self._job_of_cluster()
        # A job that ended is concluded upon, whatever came of it; the next command tries again.
        may_train = under_way is None and not has_ended
        if may_train and any(state != "done" for state in states.values()):
            self._check_harness(planned)
            for run in planned:
                if states[run.launch.name] != "done":
                    keep_plan(run.plan, run.job, fix=FIX)
                    run.job.run.make_log_folder()
            note_memberships(planned, registration, self.folder.page)
            states, under_way = self._train(launches)
        if under_way is not None:
            done = sum(state == "done" for state in states.values())
            self.console.print(Board(launches, self.console).table(states))
            self.say(
                f"job {under_way}: {done} of {len(launches)} runs are done; `{self.command}` tells "
                "how far the others are and, once they ended, what came of it"
            )
            return FINISHED
        states = seen_whole(launches, states)
        self._drop_checkpoints(launches, states)
        self._tell_failures(launches, states)
        return self._conclude(registration, planned, states)

    def _check_kept(self, planned: Sequence[PlannedRun]) -> None:
        """Raise RunFolderError where text has changed behind runs that have begun or are done.

        Recipes are held to by what was claimed; text lies outside of them.
        """
        problems: dict[str, Problem] = {}
        for run in planned:
            try:
                check_done_run(run.plan, run.job.run)
            except RunFolderError as error:
                for problem in error.problems:
                    problems.setdefault(problem.what, problem)  # one change shows in many runs
        if problems:
            raise RunFolderError(list(problems.values()))

    def _prepare(self) -> None:
        """Sample and prepare the text of every arm; what is there already is left as it is."""
        from rewarm.stages.model_tools import MODEL_TOOLS
        from rewarm.stages.prepare import prepare_job
        from rewarm.stages.rehearse import rehearse_job

        seen: list[Recipe] = []
        for job in jobs_of(self.experiment, self.arms, self.folder).values():
            text = _text_of(job)
            if text not in seen:
                seen.append(text)
                rehearse_job(job)
                prepare_job(job, MODEL_TOOLS)

    def _check_harness(self, planned: Sequence[PlannedRun]) -> None:
        """Raise for primary metrics that no task of lm-evaluation-harness comes to.

        Its tasks have to be loaded for that: here at the latest, before hours of training.
        """
        metrics = known_later(self.experiment, planned)
        if not metrics:
            return
        from rewarm.stages.harness import harness_of

        harness = harness_of(next(run.plan for run in planned if run.arm.kind == "control"))
        assert harness is not None
        named = [primary.metric for primary in self.experiment.primary]
        problems = Problems()
        for metric, what, fix in harness_problems(metrics, harness.figures()):
            problems.add(f"primary[{named.index(metric)}].metric", f"{metric!r}: {what}", fix)
        problems.raise_as(PlanError)

    def _job_of_cluster(self) -> tuple[str | None, bool]:
        """Return the number of a Slurm job that is still at it, and whether one has ended since."""
        if self.experiment.run.mode != "slurm":
            return None, False
        from rewarm.stages.slurm import take_job

        return take_job(self.folder.path, self.say)

    def _train(self, launches: Sequence[Launch]) -> tuple[States, str | None]:
        """Train what is not done; return the states, and the number of a job left to itself."""
        settings = self.experiment.run
        if settings.mode == "slurm":
            from rewarm.stages.slurm import submit

            waiting = [launch.run for launch in launches if not launch.is_done]
            number = submit(self.experiment.name, self.folder.path, waiting, settings)
            return {launch.name: state_on_disk(launch) for launch in launches}, number
        with Board(launches, self.console) as board:
            if settings.mode == "ray":
                from rewarm.stages.ray_runs import run_on_ray

                return run_on_ray(launches, settings, command=self.command, show=board.show), None
            workers, threads = workers_of(self.experiment, len(launches))
            states = run_here(
                launches,
                command=self.command,
                num_workers=workers,
                num_threads=threads,
                gpus_each=settings.gpus_each,
                show=board.show,
            )
            return states, None

    def _drop_checkpoints(self, launches: Sequence[Launch], states: States) -> None:
        if self.experiment.run.keep_checkpoints:
            return
        for launch in launches:
            if states[launch.name] == "done" and launch.run.checkpoints.exists():
                with hold_lock(launch.run.lock, self.say):
                    shutil.rmtree(launch.run.checkpoints)

    def _tell_failures(self, launches: Sequence[Launch], states: States) -> None:
        for launch in launches:
            if states[launch.name] == "failed":
                self.say(f"\n{launch.name} failed; the last it said ({launch.run.output}):")
                for line in launch.run.last_lines().splitlines():
                    self.say(f"    {line}")

    def _conclude(
        self, registration: Registration, planned: Sequence[PlannedRun], states: States
    ) -> int:
        from rewarm.reporting.comparison_page import write_comparison_page
        from rewarm.reporting.report import write_run_report

        result = conclude(
            self.experiment,
            registration,
            compared_arms(planned),
            outcomes_of(planned, states, self.folder.path),
            provenance(_PACKAGES),
        )
        write_json(self.folder.result, result.model_dump(mode="json"))
        note_memberships(planned, registration, self.folder.page, result)
        for run in planned:
            if states[run.launch.name] == "done":
                write_run_report(run.job.run)
        page = write_comparison_page(result, self.folder)
        self.console.print(comparison_verdict(result))
        self.say(f"\n{page.resolve()}, one file that opens offline\n{self.folder.result}")
        return self._code(result)

    def _code(self, result: ComparisonResult) -> int:
        failed = [run for run in result.runs if run.state != "done"]
        if failed:
            self.say(
                f"{len(failed)} of {len(result.runs)} runs are not done; `{self.command}` tries "
                "them again"
            )
        return FAILED if failed else FINISHED


def _power(experiment: Experiment) -> str:
    """Return in words what the tests that share the level can find; empty for a single seed."""
    num_tests = len(experiment.primary) * len(experiment.pairs())
    num_seeds = len(experiment.seed_list)
    if num_seeds < 2:
        return ""
    strictest = LEVEL / num_tests
    expected = {
        expects.get(primary.metric, primary.expect)
        for primary in experiment.primary
        for _, _, expects in experiment.pairs()
    }
    kinds = sorted({num_ends(expect) for expect in expected})
    found = [_found(num_seeds, ends, strictest) for ends in kinds]
    return (
        f"{counted(num_tests, 'test')} of {num_seeds} pairs at {LEVEL:.0%} together (Holm): with "
        f"80 % power the strictest finds {' and '.join(found)}, in standard errors of the paired "
        "differences"
    )


def _found(num_pairs: int, ends: int, level: float) -> str:
    """Return in words what a test finds of a difference (no ends), or of a margin's ends."""
    if not ends:
        return f"a difference of {detectable_in_errors(num_pairs, level=level):.1f}"
    margin = margin_in_errors(num_pairs, num_ends=ends, level=level)
    return f"that there is none up to a margin of {'±' if ends == 2 else ''}{margin:.1f}"


def _as_it_is(arm: Arm, seed: int, recipe: Recipe) -> Recipe:
    return recipe


def _text_of(job: Job) -> Recipe:
    """Return of a recipe what its prepared text can hang on."""
    return job.recipe.model_copy(update={"name": "x", "seed": 0, "run_folder": None})
