"""A plan's estimates, corrected by what a probe of the machine at hand has measured."""

from __future__ import annotations

from rewarm.artifacts import fingerprint
from rewarm.planning.budget import AT_ASSUMED
from rewarm.planning.footprint import disk_estimate, energy_estimate
from rewarm.planning.gpu import Gpu, is_of_planned_device
from rewarm.planning.plan import Estimate, Plan, PlannedMeasure
from rewarm.records.probe import Probe
from rewarm.units import counted, format_bytes, format_count, format_duration

__all__ = ["probe_key", "with_probe"]


def probe_key(plan: Plan) -> str:
    """Return the fingerprint of all that decides what one step of a plan costs."""
    science = plan.science
    return fingerprint(
        {
            "base": science.base_weights,
            "step": [science.sequence_length, science.sequences_per_step],
            "documents": [science.mask_documents, science.packing],
            "optimizer": science.optimizer.kind,
            "parameters": science.parameters.model_dump(mode="json"),
            "freezing": science.freezing.model_dump(mode="json"),
            "retention": science.retention.model_dump(mode="json"),
            "precision": science.precision,
            "training": plan.conduct.training.model_dump(mode="json"),
        }
    )


def with_probe(plan: Plan, probe: Probe, *, num_devices: int = 1, gpu: Gpu | None = None) -> Plan:
    """Return a plan whose time, cost, memory, disk and energy are what a probe says.

    `gpu` is what the plan is for; None: a CPU. A probe is of one device; several are taken to share
    the work without loss, which is said. A probe of another plan, or of another kind of device than
    it is for, changes nothing but that a warning says so.
    """
    warning = _why_not(plan, probe, gpu)
    if warning:
        return plan.model_copy(update={"warnings": (*plan.warnings, warning)})
    trial = probe.best
    old = {estimate.name: estimate for estimate in plan.estimates}
    evaluation = _timed(plan, probe, num_devices)
    time = _time(plan, probe, num_devices, sum(measure.all_s or 0.0 for measure in evaluation))
    found = {"time": time, "peak memory": _peak(probe, old["peak memory"])}
    if "cost" in old:
        found["cost"] = _scaled(old["cost"], old["time"], time)
    if trial.checkpoint_bytes:
        conduct = plan.conduct
        found["disk"] = disk_estimate(
            conduct.checkpoints,
            plan.science.num_steps,
            conduct.model,
            trial.checkpoint_bytes,
            measured=True,
        )
    if "energy" in old:
        found["energy"] = _scaled(old["energy"], old["time"], time)
    elif trial.watts is not None:
        found["energy"] = energy_estimate(time.value, trial.watts, num_devices, "as measured")
    kept = [found.pop(name, estimate) for name, estimate in old.items()]
    return plan.model_copy(update={"estimates": (*kept, *found.values()), "evaluation": evaluation})


def _why_not(plan: Plan, probe: Probe, gpu: Gpu | None) -> str:
    """Return why a probe says nothing of a plan, or ""."""
    if probe.key != probe_key(plan):
        return "the probe in the run folder is of other settings; measure these with --probe"
    if is_of_planned_device(gpu, probe.device, probe.device_name):
        return ""
    told = f"the probe was on {probe.device_name}, and the plan is for "
    if gpu is None:
        return (
            f"{told}a CPU: it corrects nothing here (hardware.memory_gib_per_device tells of a GPU "
            "that is not at hand)"
        )
    return f"{told}{gpu.name}: it corrects nothing here; probe where the run is to be"


def _timed(plan: Plan, probe: Probe, num_devices: int) -> tuple[PlannedMeasure, ...]:
    """Return what is measured with its seconds, by the tokens of the evaluation that was."""
    trial = probe.best
    if not trial.evaluation_s or not trial.evaluation_tokens:
        return plan.evaluation
    token_s = trial.evaluation_s / trial.evaluation_tokens / num_devices
    return tuple(
        measure.model_copy(update={"all_s": measure.tokens * measure.times * token_s})
        for measure in plan.evaluation
    )


def _time(plan: Plan, probe: Probe, num_devices: int, evaluation_s: float) -> Estimate:
    """Return the time of a whole run on the machine that was probed."""
    trial, science = probe.best, plan.science
    steps_s = science.num_steps * trial.step_s / num_devices
    saves_s = -(-science.num_steps // plan.conduct.checkpoint_every) * trial.checkpoint_s
    speed = format_count(probe.tokens_per_step / trial.step_s)
    notes = []
    if num_devices > 1:
        notes.append(f"{num_devices} devices taken to share it without loss")
    if len(science.stages) > 1:
        notes.append("layers that freeze later are not counted")
    return Estimate(
        name="time",
        value=trial.start_s + steps_s + evaluation_s + saves_s,
        unit="s",
        formula=f"measured on {probe.device_name}: {counted(trial.num_steps, 'step')} at "
        f"{speed} tokens/s ({trial.step_s:.3g} s each), so {format_duration(steps_s)} of steps, "
        f"{format_duration(evaluation_s)} of evaluation, {format_duration(saves_s)} of "
        f"checkpoints, {format_duration(trial.start_s)} to begin"
        + "".join(f"; {note}" for note in notes),
    )


def _peak(probe: Probe, by_shapes: Estimate) -> Estimate:
    """Return what steps take beside the process's own, as by shapes, and in words what has to fit.

    Where the probe does not tell it apart, the value stays that by shapes.
    """
    trial = probe.best
    whole = max(trial.peak_bytes, trial.other_peak_bytes)
    around = " (loading, evaluation or a save)" if trial.other_peak_bytes > trial.peak_bytes else ""
    own = f", the process's own {format_bytes(trial.process_bytes)} with it"
    fits = (
        f"{format_bytes(whole)} in all{around}{own if trial.process_bytes else ''}; "
        f"{format_bytes(probe.limit_bytes)} may be taken"
    )
    where = f"measured on {probe.device_name}"
    if trial.steps_bytes is None:
        return by_shapes.model_copy(update={"formula": f"{by_shapes.formula}; {where}: {fits}"})
    way = "" if trial.checkpointing == "none" else f", {trial.checkpointing} checkpointing"
    at_a_time = f"{counted(trial.micro_batch_sequences, 'sequence')} at a time{way}"
    return by_shapes.model_copy(
        update={"value": trial.steps_bytes, "formula": f"{where}, {at_a_time}; {fits}"}
    )


def _scaled(old: Estimate, old_time: Estimate, time: Estimate) -> Estimate:
    """Return an estimate that goes with time."""
    share = time.value / old_time.value if old_time.value else 1.0
    formula = old.formula.partition(AT_ASSUMED)[0]
    return old.model_copy(
        update={"value": old.value * share, "formula": f"{formula}, the time as measured"}
    )
