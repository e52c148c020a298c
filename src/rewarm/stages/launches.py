"""Runs that are trained beside each other on this machine, each in a process of its own.

What goes wrong in one (an error, memory, a signal) ends that one alone. A server process loads
torch once and every run is forked from it, so that short runs are not mostly imports. What a run
says goes to `train.log` in its folder.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from rich.console import Console

from rewarm.artifacts import write_atomically
from rewarm.errors import EnvironmentFault, PlanError, RewarmError, RunFolderError
from rewarm.evaluation.curves import lost_on_its_way
from rewarm.planning.plan import Plan, load_plan
from rewarm.records.run_folder import RunFolder
from rewarm.training.lock import hold_lock

__all__ = [
    "Launch",
    "States",
    "devices_of_slots",
    "num_cores",
    "run_here",
    "seen_whole",
    "settled",
    "state_on_disk",
    "threads_of_each",
    "train_here",
]

_LOOK_EVERY_S = 0.25
_PATIENCE_S = 120.0
_LOOK_AGAIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Launch:
    """A run that is planned and may be trained."""

    name: str
    plan: Plan
    run: RunFolder

    @property
    def is_done(self) -> bool:
        """Whether it was trained to its end, measured there and saved."""
        return self.run.is_done_after(self.plan.science.num_steps)


States = Mapping[str, str]
"""By name of the launch: waiting, running, done, failed."""


def num_cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_of_each(num_workers: int) -> int:
    """Return the CPU threads of each of so many runs at a time: the cores dealt out among them, and
    never more than OMP_NUM_THREADS, where it is a number."""
    share = max(1, num_cores() // num_workers)
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list: by level
    return min(share, int(given)) if given.isdecimal() and int(given) else share


def state_on_disk(launch: Launch) -> str:
    """Return how far a run is by its folder alone, where nobody here has started it."""
    return launch.run.state_after(launch.plan.science.num_steps)


def run_here(
    launches: Sequence[Launch],
    *,
    command: str,
    num_workers: int,
    num_threads: int,
    show: Callable[[States], None],
    gpus_each: int = 0,
) -> States:
    """Train the launches that are not done, so many at a time, and return what became of each.

    `num_threads` are a run's where its recipe says nothing of them.

    `show` is told again and again how they stand; `command` is what goes on after an interruption.
    A key press ends the runs under way in good order, then goes on its way. Raises EnvironmentFault
    where there are fewer GPUs than so many runs take.
    """
    devices = devices_of_slots(num_workers, gpus_each)
    context = get_context("forkserver")
    context.set_forkserver_preload(["rewarm.stages.train"])
    pool = _Pool(context, command, num_threads, devices)
    states = {launch.name: "done" if launch.is_done else "waiting" for launch in launches}
    waiting = [launch for launch in launches if states[launch.name] != "done"]
    try:
        while waiting or pool.running:
            for slot in pool.free_slots(num_workers)[: len(waiting)]:
                launch = waiting.pop(0)
                pool.start(launch, slot)
                states[launch.name] = "running"
            show(states)
            states |= pool.ended()
    finally:
        pool.stop()
    show(states)
    return states


def devices_of_slots(num_workers: int, gpus_each: int) -> list[str]:
    """Return the GPUs of each slot as CUDA_VISIBLE_DEVICES names them; empty: as they are.

    They are taken from those that this process may use: of a shared machine others are somebody
    else's.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    wanted = num_workers * gpus_each
    named = [str(number) for number in range(wanted)]
    if given is not None and wanted:
        named = [part.strip() for part in given.split(",") if part.strip()]
        if len(named) < wanted:
            raise EnvironmentFault(
                f"{num_workers} runs of {gpus_each} GPU(s) at a time need {wanted}, and "
                f"CUDA_VISIBLE_DEVICES names {len(named)}",
                "lower run.workers or run.gpus_each",
            )
    return [
        ",".join(named[slot * gpus_each : (slot + 1) * gpus_each]) for slot in range(num_workers)
    ]


@dataclass(slots=True)
class _Pool:
    """The processes under way, by the slot that each has."""

    context: ForkServerContext
    command: str
    num_threads: int
    devices: Sequence[str]
    running: dict[int, tuple[Launch, ForkServerProcess]] = field(default_factory=dict)

    def free_slots(self, num_workers: int) -> list[int]:
        return [slot for slot in range(num_workers) if slot not in self.running]

    def start(self, launch: Launch, slot: int) -> None:
        launch.run.exit_code.unlink(missing_ok=True)
        process = self.context.Process(
            target=_train_in_process,
            args=(launch.run.path, self.command, self.num_threads, self.devices[slot]),
        )
        process.start()
        self.running[slot] = (launch, process)

    def ended(self) -> dict[str, str]:
        """Wait a moment, and return what became of those that ended."""
        connection.wait([p.sentinel for _, p in self.running.values()], timeout=_LOOK_EVERY_S)
        found: dict[str, str] = {}
        for slot, (launch, process) in list(self.running.items()):
            if process.exitcode is None:
                continue
            del self.running[slot]
            found[launch.name] = settled(launch, process.exitcode)
        return found

    def stop(self) -> None:
        """Let what is still under way save and end."""
        for _, process in self.running.values():
            process.terminate()
        for _, process in self.running.values():
            process.join()


def settled(launch: Launch, code: int) -> str:
    """Return what became of a run whose process ended with a code, a signal's being negative."""
    if code == 0 and launch.is_done:
        return "done"
    if code < 0:
        name = signal.Signals(-code).name
        _append(launch.run, f"the process was ended by {name} (memory is out, or somebody did it)")
    elif code == 0:
        _append(
            launch.run,
            f"it ended without having been measured at its end, by {launch.run.evals_log}: move "
            f"{launch.run.path} away, and the same command trains it anew",
        )
    write_atomically(launch.run.exit_code, f"{code or 1}\n")
    return "failed"


def seen_whole(launches: Sequence[Launch], states: States) -> States:
    """Return what became of runs as far as it may be concluded upon, however they were launched.

    One whose log has lost evaluations on its way is none that is done: its curves would leave them
    out, and their weights are gone. Its own log says what to do.
    """
    found = dict(states)
    for launch in launches:
        lost = _lost(launch.run) if states[launch.name] == "done" else []
        if lost:
            found[launch.name] = "failed"
            _append(
                launch.run,
                f"{launch.run.evals_log}: lines of it are damaged or gone: what was measured after "
                f"{', '.join(map(str, lost))} steps is not on record: restore it from a copy; or "
                f"move {launch.run.path} away, and the same command trains this run anew",
            )
    return found


def _lost(run: RunFolder) -> list[int]:
    """Return what is lost by the plan that the run was trained by; one that cannot be read says
    nothing."""
    try:
        return lost_on_its_way(load_plan(run.plan), run.evals())
    except PlanError:
        return []


def _append(run: RunFolder, line: str) -> None:
    """Add a line to what the run said, unless it is the last one already."""
    if run.last_lines().endswith(line):
        return
    with run.output.open("a", encoding="utf-8") as log:
        log.write(f"{line}\n")


def _train_in_process(folder: Path, command: str, num_threads: int, devices: str) -> None:
    """Train a run in this process, which is its own, and leave with the code of the training."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    import torch

    torch.set_num_threads(num_threads)
    with RunFolder(folder).output.open("a", encoding="utf-8") as log:
        for stream in (1, 2):  # what libraries print by themselves, too
            os.dup2(log.fileno(), stream)
        code = train_here(folder, command, Console(file=log, width=120))
    sys.exit(code)


def _end_with_parent() -> None:
    """Ask this process to save and end once the one that started it is gone."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def train_here(folder: Path, command: str, console: Console) -> int:
    """Train a run as it is planned; what goes wrong is told on the console, as the verb would."""
    from rewarm.stages.train import train_plan

    run = RunFolder(folder)
    try:
        _wait_until_free(run, console)
        plan = load_plan(run.plan)
        return train_plan(plan, run, command=command, console=console)
    except RewarmError as error:
        console.print(f"rewarm: error: {error}", markup=False, highlight=False, soft_wrap=True)
        return error.exit_code
    except Exception:
        console.print(traceback.format_exc(), markup=False, highlight=False, soft_wrap=True)
        return 1


def _wait_until_free(run: RunFolder, console: Console) -> None:
    """Wait while a launch whose comparison was killed saves and ends; raises where it does not."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            with hold_lock(run.lock, lambda message: None):
                return
        except RunFolderError:
            if time.monotonic() > deadline:
                raise
            console.print("waiting for an earlier launch to save and end")
        time.sleep(_LOOK_AGAIN_S)
