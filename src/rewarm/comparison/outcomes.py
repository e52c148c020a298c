"""What a run of a comparison came to, read from its folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rewarm.comparison.arms import Arm, order_seed
from rewarm.comparison.metrics import against_base, planned_values, values_of
from rewarm.evaluation.curves import domain_curves
from rewarm.planning.plan import Plan
from rewarm.planning.schedule import area_under
from rewarm.records.comparison import ComparedArm, ComparedRun
from rewarm.records.curves import DomainCurve
from rewarm.records.facts import Amendment, EvalRecord, StepRecord
from rewarm.records.run_folder import RunFolder

__all__ = ["Outcome", "compared_arm", "outcome_of", "planned_exposure"]

State = Literal["done", "failed", "unfinished"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run and its evaluations, step 0 being the base that all arms are measured against.

    `curves` are of runs that begin from that base alone.
    """

    run: ComparedRun
    records: tuple[EvalRecord, ...]
    curves: tuple[DomainCurve, ...] = ()
    common: frozenset[str] | None = None
    """The domains that means are over; None: all."""
    from_base: bool = True
    """Whether the run itself begins where it is measured against."""


def outcome_of(
    arm: Arm,
    seed: int,
    plan: Plan,
    folder: RunFolder,
    *,
    root: Path,
    state: State,
    why: str,
    base: Sequence[EvalRecord] | None,
    common: frozenset[str] | None = None,
) -> Outcome:
    """Return what is on record of a run.

    `base` holds the records of the control's run of this seed where the arm begins elsewhere,
    `common` the domains that means are over; None: all.
    """
    records = against_base(folder.evals(), base) if state == "done" else []
    steps = folder.steps()
    training_s = sum(record.step_s for record in steps)
    values: dict[str, float] = {}
    if records:
        values = {
            **values_of(records, from_base=base is None, common=common),
            **planned_values(plan),
            "training_s": training_s,
        }
        peak_bytes = folder.peak_bytes()
        if peak_bytes is not None:
            values["peak_mib"] = peak_bytes / 2**20
    run = ComparedRun(
        arm=arm.name,
        seed=seed,
        order_seed=order_seed(seed) if arm.kind == "noise floor" else seed,
        state=state,
        folder=folder.path.relative_to(root).as_posix(),
        fingerprint=plan.fingerprint,
        values=values,
        lr_area=sum(record.lr for record in steps),
        exposure=_exposure(plan, steps),
        amended=tuple(_in_words(folder.amended())),
        training_s=training_s,
        why=why,
    )
    curves = domain_curves(records) if base is None else ()
    return Outcome(run, tuple(records), curves, common, base is None)


def _exposure(plan: Plan, steps: Sequence[StepRecord]) -> dict[str, int]:
    """Return the tokens of each source that these steps showed; nothing where there are none."""
    length = plan.science.sequence_length
    names = [source.name for source in plan.science.sources]
    counts = zip(*(record.samples for record in steps), strict=True)
    return {name: sum(own) * length for name, own in zip(names, counts, strict=bool(steps))}


def _in_words(amendments: Sequence[Amendment]) -> Iterator[str]:
    for amendment in amendments:
        if amendment.change == "replay":
            yield f"old text at least {amendment.share:.3g} from step {amendment.from_step}"
        elif amendment.change == "freeze":
            yield f"lowest layers frozen from step {amendment.from_step}: {amendment.layers}"
        else:
            yield f"steps {amendment.from_step} to {amendment.until_step - 1} left out"


def compared_arm(arm: Arm, plan: Plan, pairing: str) -> ComparedArm:
    """Return what an arm was given, by the plan of one of its runs; the others differ in seed."""
    science = plan.science
    seconds = next(estimate.value for estimate in plan.estimates if estimate.name == "time")
    return ComparedArm(
        name=arm.name,
        description=arm.description,
        kind=arm.kind,
        num_tokens=science.num_tokens,
        num_steps=science.num_steps,
        budget_differs=arm.budget_differs,
        lr_area=area_under(science.schedule),
        exposure=planned_exposure(plan),
        estimated_s=seconds,
        from_scratch=arm.from_scratch,
        pairing=pairing,
    )


def planned_exposure(plan: Plan) -> dict[str, int]:
    """Return the tokens of each source that the whole run shows."""
    science = plan.science
    return {
        source.name: sum(phase.samples[index] for phase in science.phases) * science.sequence_length
        for index, source in enumerate(science.sources)
    }
