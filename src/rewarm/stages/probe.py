"""`rewarm plan --probe`: a few real steps on the machine at hand, before hours of them are spent.

Each way to lay the plan on the machine is tried in a process of its own (`probe_trial.py`), so that
its peak of memory is its own and what does not fit ends nothing but itself. The fastest that fits
is what launches in this run folder take over; a run that has begun keeps the way it began with.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from rewarm.artifacts import make_folder, read_json, write_json
from rewarm.errors import EnvironmentFault, PlanError, RunFolderError
from rewarm.planning.plan import Placement, Plan
from rewarm.planning.probed import probe_key
from rewarm.records.probe import Probe, Trial
from rewarm.records.probe_trial import TrialReply, TrialRequest
from rewarm.records.run_folder import RunFolder
from rewarm.stages.probe_search import Way, chosen_of, ways
from rewarm.training.lock import hold_lock
from rewarm.units import counted, format_bytes

__all__ = ["Say", "probe_plan"]

Say = Callable[[str], None]

_TRIAL_TIMEOUT_S = 1800.0
_PREFIX = ".probe-"


def probe_plan(plan: Plan, run: RunFolder, *, say: Say = lambda line: None) -> Probe:
    """Take a few steps of a plan, keep `probe.json` and `placement.json`, return what was found.

    Nothing of the run itself begins: weights, checkpoints and logs of the trials are thrown away.
    Raises PlanError for a plan on estimates, RunFolderError while a launch is under way there, and
    EnvironmentFault where no trial ran, or none fits.
    """
    if not plan.measured:
        raise PlanError.one(
            "--probe",
            "the plan stands on estimates of the text, and a probe trains on it",
            "run `rewarm prepare` first",
        )
    make_folder(run.path)
    with ExitStack() as stack:
        stack.enter_context(hold_lock(run.lock, lambda message: None))
        for left in run.path.glob(f"{_PREFIX}*"):  # of a probe that was killed
            shutil.rmtree(left, ignore_errors=True)
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=run.path, prefix=_PREFIX))
        begun = _begun(run)
        replies = list(_tried(plan, Path(folder), begun, say))
        chosen = chosen_of(replies)
        if chosen is None:
            raise _nothing_fits(replies)
        probe = _probe(plan, replies, chosen)
        write_json(run.probe, probe.model_dump(mode="json"))
        if begun is None and not run.has_begun():
            # What a launch ran on is its own record.
            write_json(run.placement, replies[chosen].placement)
    return probe


def _begun(run: RunFolder) -> Placement | None:
    """Return how a run that has begun is laid on its machine, which its last bits depend on."""
    if not (run.has_begun() and run.placement.exists()):
        return None
    value = read_json(run.placement, what="the last placement", error=RunFolderError)
    placement = Placement.model_validate(value)
    return placement if placement.world_size == 1 else None


def _tried(plan: Plan, folder: Path, begun: Placement | None, say: Say) -> Iterator[TrialReply]:
    """Yield what trials came to, until the search has seen enough."""
    replies: list[TrialReply] = []
    for way in ways(plan, replies, begun):
        say(f"probe: {_words(way)} …")
        request = TrialRequest(
            folder=str(folder / str(len(replies))),
            micro_batch_sequences=None if way is None else way.micro_batch_sequences,
            checkpointing=None if way is None else way.checkpointing,
            measures_all=not any(reply.trial.fits for reply in replies),
        )
        reply = _try(plan, request)
        say(f"probe: {_told(plan, reply.trial)}")
        replies.append(reply)
        yield reply


def _try(plan: Plan, request: TrialRequest) -> TrialReply:
    """Run one trial in a process of its own; raises EnvironmentFault where it could not try."""
    folder = Path(request.folder)
    folder.mkdir()
    asked, answered = folder / "request.json", folder / "reply.json"
    write_json(folder / "plan.json", plan.model_dump(mode="json"))
    write_json(asked, request.model_dump(mode="json"))
    why = _run([sys.executable, "-m", "rewarm.stages.probe_trial", str(asked)])
    if not answered.exists():
        raise _did_not_run(why)
    found = read_json(answered, what="a trial's reply", error=RunFolderError)
    reply = TrialReply.model_validate(found)
    if reply.trial.num_steps or reply.trial.why:
        return reply
    return reply.model_copy(update={"trial": reply.trial.model_copy(update={"why": why})})


def _run(command: list[str]) -> str:
    """Run a trial and return what cut it short, if something did.

    Raises EnvironmentFault where it failed for another reason than what it was to find out.
    """
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TRIAL_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return f"it took more than {_TRIAL_TIMEOUT_S / 60:.0f} minutes"
    if done.returncode > 0:
        raise _did_not_run(_last_line(done.stderr) or f"it ended with {done.returncode}")
    if done.returncode < 0:
        return f"ended by {signal.Signals(-done.returncode).name}, as for want of memory"
    return "it said nothing"


def _did_not_run(why: str) -> EnvironmentFault:
    return EnvironmentFault(f"a trial of the plan failed: {why}", "`rewarm train` says more")


def _probe(plan: Plan, replies: list[TrialReply], chosen: int) -> Probe:
    placement = Placement.model_validate(replies[chosen].placement)
    trials = [reply.trial for reply in replies]
    # Evaluation and checkpoint were measured once.
    whole = next(trial for trial in trials if trial.fits)
    trials[chosen] = trials[chosen].model_copy(
        update={
            "evaluation_tokens": whole.evaluation_tokens,
            "evaluation_s": whole.evaluation_s,
            "checkpoint_bytes": whole.checkpoint_bytes,
            "checkpoint_s": whole.checkpoint_s,
        }
    )
    return Probe(
        key=probe_key(plan),
        device=placement.device,
        device_name=placement.device_name,
        num_threads=placement.num_threads,
        limit_bytes=replies[chosen].limit_bytes,
        tokens_per_step=plan.science.tokens_per_step,
        trials=tuple(trials),
        chosen=chosen,
    )


def _nothing_fits(replies: list[TrialReply]) -> EnvironmentFault:
    last = replies[-1]
    peak = format_bytes(max(last.trial.peak_bytes, last.trial.other_peak_bytes))
    return EnvironmentFault(
        f"none of {counted(len(replies), 'trial')} fits the {format_bytes(last.limit_bytes)} of "
        f"memory that may be taken; the last: {last.trial.why or f'a peak of {peak}'}",
        "use a smaller base, a shorter batch.sequence_length, a machine with more memory, or many "
        "devices (torchrun)",
    )


def _words(way: Way | None) -> str:
    if way is None:
        return "as launches are laid by default"
    kind = "" if way.checkpointing == "none" else f", {way.checkpointing} checkpointing"
    return f"{counted(way.micro_batch_sequences, 'sequence')} at a time{kind}"


def _told(plan: Plan, trial: Trial) -> str:
    way = _words(Way(trial.micro_batch_sequences, trial.checkpointing))
    if not trial.num_steps:
        return f"{way}: {trial.why}"
    rate = plan.science.tokens_per_step / trial.step_s
    fits = "" if trial.fits else ", which is too much"
    peak = format_bytes(max(trial.peak_bytes, trial.other_peak_bytes))
    return f"{way}: {rate:,.0f} tokens/s, peak {peak}{fits}"


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "").strip()[:300]
