"""A run that goes on from another one's checkpoint: a branch that anneals, or an extension.

Its science is the other's up to a step where the rate is constant (there a schedule can be left
without a trace), and then that of a plan of its own, moved to begin there. Sources that both show
go on counting, so that no window comes again before its epoch is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rewarm.errors import PlanError, Problems
from rewarm.order.position import samples_in_phase
from rewarm.planning.amended import amended
from rewarm.planning.amendments import Amendments
from rewarm.planning.plan import Origin, Plan, PlannedPhase, PlannedSource, Science
from rewarm.planning.schedule import Schedule
from rewarm.planning.trainable import Stage
from rewarm.recipe.parameters import FreezingRecipe
from rewarm.recipe.retention import RetentionRecipe
from rewarm.recipe.sources import OLD_ROLES

__all__ = [
    "constant_steps",
    "freezing_to_go_on_with",
    "graft",
    "rate_to_go_on_from",
    "retention_to_go_on_with",
]


def constant_steps(schedule: Schedule) -> list[tuple[int, int]]:
    """Return the stretches [first, last] of numbers of updates after which a run may be left."""
    return [(piece.start_step, piece.end_step) for piece in schedule if piece.shape == "constant"]


def rate_to_go_on_from(science: Science, step: int) -> float:
    """Return the constant rate at which a run stands after `step` updates.

    Raises PlanError where its rate is not constant there: the schedule that follows would not be
    the one that led there.
    """
    for piece in science.schedule:
        if piece.shape == "constant" and piece.start_step <= step <= piece.end_step:
            return piece.start_lr
    stretches = constant_steps(science.schedule)
    where = ", ".join(f"{first} to {last}" for first, last in stretches)
    raise PlanError.one(
        "--at-step",
        f"the rate is not constant at step {step}, so nothing can go on from there without a jump",
        f"it is constant at steps {where}"
        if stretches
        else "only schedules with a constant "
        "stretch can be left on the way: infinite, wsd, constant, or pieces of your own",
    )


def freezing_to_go_on_with(trunk: Science) -> FreezingRecipe:
    """Return how layers freeze in what follows a run.

    What its gradients have frozen stays so, and nothing more is decided: the intervals at which
    they are compared are shares of the run's own length. Raises PlanError for FreezeOut with rates
    of its own: these fall over the length of the whole run, so no step has a constant one.
    """
    freezing = trunk.freezing
    if freezing.kind == "freezeout" and freezing.scale_rate:
        raise PlanError.one(
            "freezing.kind",
            "under freezeout each layer's rate falls over the length of the whole run: nowhere is "
            "it constant, so nothing can go on from there without a jump",
            "branch or extend a run without it, or one with freezing.scale_rate = false",
        )
    return FreezingRecipe() if freezing.kind == "auto" else freezing


def retention_to_go_on_with(trunk: Science) -> RetentionRecipe:
    """Return what holds on to the base in what follows a run.

    A divergence that acts on all new text of the run, or on all old text, acts on that of what
    follows, whatever its sources are called.
    """
    distill = trunk.retention.distill
    if distill is None:
        return trunk.retention
    groups: dict[Literal["new", "replay", "all"], set[str]] = {
        "new": {s.name for s in trunk.sources if s.role not in OLD_ROLES},
        "replay": {s.name for s in trunk.sources if s.role in OLD_ROLES},
        "all": {s.name for s in trunk.sources},
    }
    group = next((key for key, names in groups.items() if names == set(distill.on)), distill.on)
    return trunk.retention.model_copy(update={"distill": distill.model_copy(update={"on": group})})


def _retention(trunk: Science, more: Science) -> RetentionRecipe:
    """Return what holds on to the base over the whole: a divergence on the text of both parts."""
    before, after = trunk.retention.distill, more.retention.distill
    if before is None or after is None:
        return trunk.retention
    on = list(dict.fromkeys([*before.on, *after.on]))
    return trunk.retention.model_copy(update={"distill": before.model_copy(update={"on": on})})


def graft(trunk: Science, more: Science, *, at_step: int, amendments: Amendments) -> Science:
    """Return the trunk's science up to `at_step`, gone on with by `more`, which begins at step 0.

    `amendments` are the trunk's: layers that they have frozen by then stay so, and its blends up to
    there are those that they have made of them. Raises PlanError,
    with everything that does not fit, where the two are not about one base, one batch and one
    objective, or where a source of one name has another text.
    """
    freezing = freezing_to_go_on_with(trunk)
    problems = Problems()
    for name in (
        "base_weights",
        "tokenizer",
        "sequence_length",
        "sequences_per_step",
        "mask_documents",
        "packing",
        "seed",
        "optimizer",
        "precision",
    ):
        if getattr(trunk, name) != getattr(more, name):
            problems.add(
                name,
                f"it differs from the run's that is gone on with ({getattr(more, name)} instead "
                f"of {getattr(trunk, name)})",
                "leave it as that run has it",
            )
    sources = _merged(trunk.sources, more.sources, problems)
    if trunk.memory != more.memory:
        for source in more.memory:
            if source not in trunk.memory:
                problems.add(
                    f"sources.{source.name}",
                    "retention reads it, and the run that is gone on with has a source of this "
                    "name with another text",
                    "leave it the text that it has there",
                )
    problems.raise_as(PlanError)
    names = [source.name for source in sources]
    seen = amended(trunk, amendments).phases
    phases = [
        *_moved(seen, trunk.sources, names, until=at_step),
        *_moved(more.phases, more.sources, names, by=at_step, taken=seen),
    ]
    science = trunk.model_copy(
        update={
            "num_steps": at_step + more.num_steps,
            "sources": sources,
            "phases": tuple(phases),
            "schedule": (*_until(trunk.schedule, at_step), *_later(more.schedule, at_step)),
            "freezing": freezing,
            "retention": _retention(trunk, more),
            "stages": _stages(trunk, more, at_step, amendments),
            "origin": Origin(plan=Plan.science_fingerprint(trunk), step=at_step),
        }
    )
    return science.model_copy(update={"phases": _counted(science)})


def _stages(
    trunk: Science, more: Science, at_step: int, amendments: Amendments
) -> tuple[Stage, ...]:
    """Return what trains when: milestones stay at the trunk's steps, its own halves go on.

    The half that trains goes on doing so until the next phase of what follows draws another.
    """
    freezes = [(at, amendments.frozen_layers(at)) for at in amendments.freeze_steps()]
    freezes = [(at, layers) for at, layers in freezes if at <= at_step]
    last_half = trunk.stage_at(at_step - 1, Amendments()).half
    halves: dict[int, int] = {}
    if last_half is not None:
        used = max(stage.half for stage in trunk.stages if stage.half is not None)
        halves = {
            at_step + phase.start_step: used + number
            for number, phase in enumerate(more.phases)
            if number
        }
    starts = {stage.start_step for stage in trunk.stages} | {at for at, _ in freezes} | {*halves}
    stages: list[Stage] = []
    for start in sorted(starts):
        planned = trunk.stage_at(start, Amendments())
        drawn = [half for at, half in halves.items() if at <= start]
        stage = Stage(
            start_step=start,
            frozen_layers=max(
                planned.frozen_layers, *(layers for at, layers in freezes if at <= start), 0
            ),
            half=drawn[-1] if drawn else planned.half if start < at_step else last_half,
        )
        if not stages or stage != stages[-1].model_copy(update={"start_step": start}):
            stages.append(stage)
    return tuple(stages)


def _merged(
    trunk: Sequence[PlannedSource], more: Sequence[PlannedSource], problems: Problems
) -> tuple[PlannedSource, ...]:
    known = {source.name: source for source in trunk}
    added: list[PlannedSource] = []
    for source in more:
        if source.name not in known:
            added.append(source)
        elif source != known[source.name]:
            problems.add(
                f"sources.{source.name}",
                "the run that is gone on with has a source of this name with another text, or "
                "shows another part of it",
                "give the new one a name of its own",
            )
    return (*trunk, *added)


def _moved(
    phases: Sequence[PlannedPhase],
    own: Sequence[PlannedSource],
    names: Sequence[str],
    *,
    by: int = 0,
    until: int | None = None,
    taken: Sequence[PlannedPhase] = (),
) -> list[PlannedPhase]:
    """Return phases moved by some steps, or cut at one, with weights by all sources' names."""
    moved: list[PlannedPhase] = []
    used = {phase.name for phase in taken}
    for phase in phases:
        if until is not None and phase.start_step >= until:
            break
        by_name = dict(zip((source.name for source in own), phase.weights, strict=True))
        name = phase.name
        while name in used:
            name += "+"
        used.add(name)
        end = phase.end_step if until is None else min(phase.end_step, until)
        moved.append(
            PlannedPhase(
                name=name,
                start_step=phase.start_step + by,
                end_step=end + by,
                weights=tuple(by_name.get(name, 0) for name in names),
                samples=(),
            )
        )
    return moved


def _counted(science: Science) -> tuple[PlannedPhase, ...]:
    order = science.order()
    return tuple(
        phase.model_copy(update={"samples": tuple(int(n) for n in samples_in_phase(order, index))})
        for index, phase in enumerate(science.phases)
    )


def _until(schedule: Schedule, step: int) -> Schedule:
    """Return the pieces before a step; only a constant one is ever cut."""
    return tuple(
        piece.model_copy(update={"end_step": min(piece.end_step, step)})
        for piece in schedule
        if piece.start_step < step
    )


def _later(schedule: Schedule, by: int) -> Schedule:
    return tuple(
        piece.model_copy(
            update={"start_step": piece.start_step + by, "end_step": piece.end_step + by}
        )
        for piece in schedule
    )
