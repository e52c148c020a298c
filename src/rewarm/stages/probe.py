"""`rewarm plan --probe`: a few real steps on the machine at hand, before hours of them are spent.

Each way to lay the plan on the machine is tried in a process of its own (`probe_trial.py`), so that
its peak of memory is its own and what does not fit ends nothing but itself. The fastest that fits
is what launches in this run folder take over.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rewarm.artifacts import read_json, write_json
from rewarm.errors import EnvironmentFault, PlanError, RunFolderError
from rewarm.planning.footprint import micro_batch_on_cpu
from rewarm.planning.plan import Placement, Plan
from rewarm.planning.probed import probe_key
from rewarm.records.probe import Checkpointing, Probe, Trial
from rewarm.records.probe_trial import TrialReply, TrialRequest
from rewarm.records.run_folder import RunFolder
from rewarm.training.lock import hold_lock
from rewarm.units import counted, format_bytes

__all__ = ["Say", "probe_plan"]

Say = Callable[[str], None]

_ORDER: tuple[Checkpointing, ...] = ("none", "selective", "full")
_MOST_TRIALS = 5
_TRIAL_TIMEOUT_S = 1800.0


def probe_plan(plan: Plan, run: RunFolder, *, say: Say = lambda line: None) -> Probe:
    """Take a few steps of a plan, keep `probe.json` and `placement.json`, return what was found.

    Nothing of the run itself begins: weights, checkpoints and logs of the trials are thrown away.
    Raises PlanError for a plan on estimates, RunFolderError while a launch is under way there, and
    EnvironmentFault where no way fits.
    """
    if not plan.measured:
        raise PlanError.one(
            "--probe",
            "the plan stands on estimates of the text, and a probe trains on it",
            "run `rewarm prepare` first",
        )
    run.path.mkdir(parents=True, exist_ok=True)
    replies: list[TrialReply] = []
    with (
        hold_lock(run.lock, lambda message: None),
        tempfile.TemporaryDirectory(dir=run.path, prefix=".probe-") as folder,
    ):
        for size, checkpointing in _ways(plan, replies):
            say(f"probe: {counted(size, 'sequence')} at a time{_said(checkpointing)} …")
            request = TrialRequest(
                folder=f"{folder}/{len(replies)}",
                micro_batch_sequences=size,
                checkpointing=checkpointing,
                measures_all=not any(reply.trial.fits for reply in replies),
            )
            reply = _try(plan, request)
            say(f"probe: {_told(plan, reply.trial)}")
            replies.append(reply)
        fitting = [index for index, reply in enumerate(replies) if reply.trial.fits]
        if not fitting:
            raise _nothing_fits(replies)
        probe = _probe(plan, replies, fitting)
        write_json(run.probe, probe.model_dump(mode="json"))
        if not run.has_begun():
            # What a launch ran on is its own record.
            placement = replies[probe.chosen].placement
            assert placement is not None
            write_json(run.placement, Placement.model_validate(placement).model_dump(mode="json"))
    return probe


def _ways(plan: Plan, replies: list[TrialReply]) -> Iterator[tuple[int, Checkpointing]]:
    """Yield what to try next, by what the last trials came to: smaller until it fits, then faster.

    What the recipe names is not varied.
    """
    training, science = plan.conduct.training, plan.science
    asked = training.activation_checkpointing
    kinds = _ORDER if asked == "auto" else (asked,)
    all_of_step = science.sequences_per_step
    first = micro_batch_on_cpu(training, plan.conduct.model, science.sequence_length, all_of_step)
    sizes = [size for size in range(1, all_of_step + 1) if all_of_step % size == 0]
    if training.micro_batch_sequences is not None:
        sizes = [first]
    tried: set[tuple[int, Checkpointing]] = set()
    place, kind = sizes.index(first), 0
    while len(replies) < _MOST_TRIALS:
        way = sizes[place], kinds[kind]
        tried.add(way)
        yield way
        if replies[-1].trial.fits:
            break
        # First what costs a fraction of the time, then what costs the batch's shape.
        if kind + 1 < len(kinds):
            kind += 1
        elif place > 0:
            place -= 1
        else:
            return
    for near in (place - 1, place + 1):
        way = sizes[min(max(near, 0), len(sizes) - 1)], kinds[kind]
        if way not in tried and len(replies) < _MOST_TRIALS:
            tried.add(way)
            yield way


def _try(plan: Plan, request: TrialRequest) -> TrialReply:
    """Run one trial in a process of its own."""
    folder = Path(request.folder)
    folder.mkdir()
    asked, answered = folder / "request.json", folder / "reply.json"
    write_json(folder / "plan.json", plan.model_dump(mode="json"))
    write_json(asked, request.model_dump(mode="json"))
    command = [sys.executable, "-m", "rewarm.stages.probe_trial", str(asked)]
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TRIAL_TIMEOUT_S,
        )
        why = _last_line(done.stderr) or f"it ended with {done.returncode}"
    except subprocess.TimeoutExpired:
        why = f"no step within {_TRIAL_TIMEOUT_S / 60:.0f} minutes"
    if answered.exists():
        found = read_json(answered, what="a trial's reply", error=RunFolderError)
        return TrialReply.model_validate(found)
    failed = Trial(
        micro_batch_sequences=request.micro_batch_sequences,
        checkpointing=request.checkpointing,
        fits=False,
        why=why,
    )
    return TrialReply(trial=failed)


def _probe(plan: Plan, replies: list[TrialReply], fitting: list[int]) -> Probe:
    chosen = min(fitting, key=lambda index: replies[index].trial.step_s)
    reply = replies[chosen]
    placement = Placement.model_validate(reply.placement)
    # Evaluation and checkpoint were measured once.
    whole = next(replies[index].trial for index in fitting)
    best = reply.trial.model_copy(
        update={
            "evaluation_tokens": whole.evaluation_tokens,
            "evaluation_s": whole.evaluation_s,
            "checkpoint_bytes": whole.checkpoint_bytes,
            "checkpoint_s": whole.checkpoint_s,
        }
    )
    trials = [other.trial for other in replies]
    trials[chosen] = best
    return Probe(
        key=probe_key(plan),
        device=placement.device,
        device_name=placement.device_name,
        num_threads=placement.num_threads,
        limit_bytes=reply.limit_bytes,
        tokens_per_step=plan.science.tokens_per_step,
        trials=tuple(trials),
        chosen=chosen,
    )


def _nothing_fits(replies: list[TrialReply]) -> EnvironmentFault:
    last = replies[-1]
    limit = f" of {format_bytes(last.limit_bytes)}" if last.limit_bytes else ""
    return EnvironmentFault(
        f"no way of {counted(len(replies), 'trial')} fits the memory{limit}; the last: "
        f"{last.trial.why or format_bytes(last.trial.peak_bytes)}",
        "use a smaller base, a shorter batch.sequence_length, a machine with more memory, or many "
        "devices (torchrun)",
    )


def _said(checkpointing: Checkpointing) -> str:
    return "" if checkpointing == "none" else f", {checkpointing} checkpointing"


def _told(plan: Plan, trial: Trial) -> str:
    if not trial.num_steps:
        return f"does not run: {trial.why}"
    rate = plan.science.tokens_per_step / trial.step_s
    fits = "" if trial.fits else ": too much"
    return f"{rate:,.0f} tokens/s, peak {format_bytes(trial.peak_bytes)}{fits}"


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "").strip()[:300]
