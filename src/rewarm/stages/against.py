"""What `rewarm evaluate` tells of a run beside others: a control, joint training, its base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from rewarm.artifacts import write_json
from rewarm.errors import Problems, RunFolderError, UserError
from rewarm.evaluation.against import against_control, recovered_fractions
from rewarm.evaluation.curves import domain_curves
from rewarm.evaluation.forgetting import NEW_ROLES, OLD_ROLES
from rewarm.model.weight_change import weight_change
from rewarm.model.weight_folder import WeightFolder
from rewarm.planning.plan import Plan, PlannedSource, Science, load_plan
from rewarm.records.against import AgainstControl, AgainstOthers
from rewarm.records.curves import DomainCurve
from rewarm.records.run_folder import RunFolder
from rewarm.reporting.against import (
    gap_table,
    on_terminal,
    recovered_table,
    weight_table,
    weights_sentence,
)
from rewarm.stages.job import open_run
from rewarm.stages.trained import Trained

__all__ = ["note_against", "note_weights", "open_others"]


def open_others(
    plan: Plan, of: RunFolder, control: Path | None, joint: Path | None
) -> dict[str, tuple[Path, RunFolder]]:
    """Return the runs that another is held against, by what they are to it.

    Raises RunFolderError with what is wrong with both: no run, none of its records, another base,
    the run `of` that they are to be held against itself.
    """
    problems = Problems()
    found: dict[str, tuple[Path, RunFolder]] = {}
    for what, path in (("control", control), ("joint", joint)):
        if path is None:
            continue
        try:
            other, run = open_run(path)
        except UserError as error:
            problems.extend(error.problems)
            continue
        if run.path.resolve() == of.path.resolve():
            problems.add(f"--{what}", f"{path} is this run itself", "name another run")
        elif not run.evals():
            problems.add(f"--{what}", f"{path} has no evaluations", "run `rewarm evaluate` on it")
        elif what == "control" and other.science.base_weights != plan.science.base_weights:
            problems.add(
                f"--{what}",
                f"{path} continues another base, so its gap is not this run's",
                "name a run from the same base, with the same schedule, on old text alone",
            )
        found[what] = (path, run)
    problems.raise_as(RunFolderError)
    return found


def note_against(
    run: RunFolder, others: dict[str, tuple[Path, RunFolder]], console: Console
) -> None:
    """Work out, print and write what a run comes to beside the others."""
    if not others:
        return
    mine = run.evals()
    control, joint = others.get("control"), others.get("joint")
    gaps = () if control is None else tuple(against_control(mine, control[1].evals()))
    recovered = () if joint is None else tuple(recovered_fractions(mine, joint[1].evals()))
    warnings = [
        f"{path} scored none of this run's items at the steps that count: the same held-out text "
        "and tokenizer are needed"
        for found, other in ((gaps, control), (recovered, joint))
        if other is not None and not found
        for path in [other[0]]
    ]
    if control is not None:
        warnings += _doubts(load_plan(run.plan), load_plan(control[1].plan), str(control[0]))
    if joint is not None:
        warnings += _joint_doubts(load_plan(run.plan), joint[1], str(joint[0]))
    told = AgainstOthers(
        control=None if control is None else str(control[0]),
        joint=None if joint is None else str(joint[0]),
        gaps=gaps,
        control_curves=() if control is None else _curves_of(gaps, control[1]),
        recovered=recovered,
        warnings=tuple(warnings),
    )
    write_json(run.against, told.model_dump(mode="json"))
    if gaps:
        note = "How much worse than the base, less how much worse the control is. One seed each."
        console.print(on_terminal("With the control taken off", gap_table(told), note))
    if recovered:
        note = "(base - run) / (base - joint), by domain. One seed each."
        console.print(on_terminal("Beside joint training", recovered_table(told), note))
    for warning in warnings:
        console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)


def _doubts(plan: Plan, control: Plan, name: str) -> Iterator[str]:
    """Yield why what is taken off may not be what re-warming alone does."""
    one, other = plan.science, control.science
    if (one.schedule, one.tokens_per_step) != (other.schedule, other.tokens_per_step):
        yield (
            f"{name} has another schedule or another batch than this run: its gap is not what this "
            "run's learning rate alone does"
        )
    new = [source.name for source in _trained_on(other) if source.role in NEW_ROLES]
    if new:
        yield (
            f"{name} was trained on {', '.join(new)}, which is not old text: what that does to old "
            "text is taken off too"
        )


def _joint_doubts(plan: Plan, joint: RunFolder, name: str) -> Iterator[str]:
    """Yield why what it gains may not be what training on old and new text together gains."""
    one, other = plan.science, load_plan(joint.plan).science
    if other.tokenizer != one.tokenizer:
        yield f"{name} has another tokenizer than this run: its figures are of other items"
    if other.base_weights != one.base_weights:
        yield (
            f"{name} began from other weights than this run: what it gains is counted from this "
            "run's base all the same, with what its own weights knew before"
        )
    theirs = _trained_on(other)
    known = {source.name for source in theirs} | {source.key for source in theirs}
    mine = [source for source in _trained_on(one) if source.role in NEW_ROLES]
    lacking = [source.name for source in mine if not {source.name, source.key} & known]
    if lacking:
        yield (
            f"{name} was not trained on {', '.join(lacking)}, which this run was: it is no joint "
            "training, and what it gains there is no bound"
        )
    if not any(source.role in OLD_ROLES for source in theirs):
        yield f"{name} was trained on no old text: it is no joint training of old and new"
    last = max((record.step for record in joint.evals()), default=0)
    if last < other.num_steps:
        yield (
            f"{name} was last measured after {last} of its {other.num_steps} steps: what joint "
            "training gains in the end is not known"
        )


def _trained_on(science: Science) -> list[PlannedSource]:
    """Return the sources of which some phase shows something."""
    return [
        source
        for index, source in enumerate(science.sources)
        if any(phase.samples[index] for phase in science.phases)
    ]


def _curves_of(gaps: Sequence[AgainstControl], control: RunFolder) -> tuple[DomainCurve, ...]:
    """Return the control's curves of those domains that a gap is told of."""
    told = {(gap.domain, gap.metric) for gap in gaps}
    curves = domain_curves(control.evals())
    return tuple(curve for curve in curves if (curve.domain, curve.metric) in told)


def note_weights(plan: Plan, run: RunFolder, trained: Trained, console: Console) -> None:
    """Work out, print and write how far a run's weights have gone from its base's.

    Adapters are matrices beside the base's weights, which have not moved: nothing is told of them.
    """
    if plan.science.parameters.adapter is not None:
        return
    with WeightFolder.read(Path(plan.conduct.base_folder)).open("the base") as base:
        change = weight_change(trained.model, base, step=trained.step)
    write_json(run.weight_change, change.model_dump(mode="json"))
    note = weights_sentence(change)
    console.print(on_terminal("How far the weights have gone", weight_table(change), note))
