"""`rewarm stream` over corpora: a language model learns one after the other, in the main engine.

All runs are planned before the first is trained. Each is then trained as any run is, in a folder of
its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from rewarm.artifacts import write_json
from rewarm.comparison.registration import register
from rewarm.records.comparison import Registration
from rewarm.records.run_folder import RunFolder
from rewarm.records.stream import StreamResult
from rewarm.records.stream_folder import StreamFolder
from rewarm.reporting.stream_page import write_stream_page
from rewarm.reporting.stream_terminal import print_stream, stream_plan
from rewarm.stages.board import Board
from rewarm.stages.job import command_line
from rewarm.stages.launches import Launch, run_here, seen_whole, threads_of_each
from rewarm.stages.stream_corpora_keep import keep_plans
from rewarm.stages.stream_corpora_plans import CorporaPlans, CorpusSizes, PlannedCourse
from rewarm.stages.stream_corpora_records import about_corpora, plan_facts, run_records
from rewarm.stages.stream_result import claims_of, conclude_stream
from rewarm.stream.experiment import StreamExperiment, WrittenStream
from rewarm.training.lock import hold_lock

__all__ = ["run_corpora"]

FINISHED = 0
FAILED = 1


def run_corpora(written: WrittenStream, console: Console, *, dry_run: bool) -> int:
    """Carry out an experiment over corpora from wherever it stands; return the exit code."""
    stream = _CorporaStream(written, CorporaPlans(written), console)
    # Mistakes show before hours of tokenization and training.
    sizes = stream.plans.sizes(estimates_allowed=True)
    stream.plans.check_recipes(sizes)
    console.print(stream_plan(written.experiment.name, plan_facts(written.experiment, sizes)))
    if dry_run:
        stream.register(write=False)
        console.print("\nnothing was run: leave out --dry-run to begin")
        return FINISHED
    written.make_folder()
    with hold_lock(written.folder / "lock.json", console.print):
        return stream.carry_out()


@dataclass(frozen=True, slots=True)
class _CorporaStream:
    written: WrittenStream
    plans: CorporaPlans
    console: Console

    @property
    def experiment(self) -> StreamExperiment:
        return self.written.experiment

    def carry_out(self) -> int:
        """Prepare, plan, train what is not trained, and conclude; the lock is held."""
        registration = self.register(write=True)
        self.plans.prepare()
        planned = self.plans.planned()
        keep_plans(planned)
        if not self._train([run.launch for run in planned]):
            return FAILED
        sizes = self.plans.sizes(estimates_allowed=False)
        result = self._conclude(planned, sizes, registration)
        write_json(self.written.folder / "result.json", result.model_dump(mode="json"))
        page = write_stream_page(result, self.written.folder)
        print_stream(result, self.console)
        self._say(f"\n{page}")
        return FINISHED

    def register(self, *, write: bool) -> Registration | None:
        """Hold the contrasts to what they were before the first run; None where there are none."""
        if not self.experiment.contrasts:
            return None
        left = StreamFolder(self.written.folder).left()
        logs = (RunFolder(path).steps_log for path in left)
        has_begun = any(log.exists() and log.stat().st_size for log in logs)
        return register(self.written, claims_of(self.experiment), has_begun=has_begun, write=write)

    def _train(self, launches: Sequence[Launch]) -> bool:
        """Train what is not done, one after the other; tell whether all is done then."""
        command = command_line("stream", self.written.path)
        with Board(launches, self.console) as board:
            states = run_here(
                launches,
                command=command,
                num_workers=1,
                num_threads=threads_of_each(1),
                show=board.show,
            )
        states = seen_whole(launches, states)
        failed = [launch for launch in launches if states[launch.name] != "done"]
        for launch in launches:
            if states[launch.name] == "done" and launch.run.checkpoints.exists():
                with hold_lock(launch.run.lock, self._say):
                    shutil.rmtree(launch.run.checkpoints)
        for launch in failed:
            self._say(f"\n{launch.name} failed; the last it said ({launch.run.output}):")
            for line in launch.run.last_lines().splitlines():
                self._say(f"    {line}")
        if failed:
            self._say(f"{len(failed)} of {len(launches)} runs are not done; `{command}` goes on")
        return not failed

    def _conclude(
        self,
        planned: Sequence[PlannedCourse],
        sizes: Mapping[str, CorpusSizes],
        registration: Registration | None,
    ) -> StreamResult:
        runs = run_records(planned, self.experiment.scenario.evaluate_every)
        about = about_corpora(self.experiment, sizes, runs)
        return conclude_stream(self.experiment, about, runs, [], registration)

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
