"""Measures merged models along one weight on a run's own held-out text, and chooses one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.console import Console

from rewarm.artifacts import write_atomically, write_json
from rewarm.errors import Problems, UserError
from rewarm.evaluation.forgetting import NEW_ROLES, OLD_ROLES, DomainVerdict, domain_verdicts
from rewarm.evaluation.trade_off import choose_weight, rule_in_words, swept_point
from rewarm.model.average import Merge, fill_merged
from rewarm.model.load import load_base
from rewarm.model.weight_stream import Header
from rewarm.records.facts import EvalRecord
from rewarm.records.merging import MergePoint, MergeSweep, SweptPoint
from rewarm.reporting.report import main_merge_svg, write_merge_report, write_run_report
from rewarm.reporting.trade_off_terminal import trade_off_summary
from rewarm.stages.bench import Bench
from rewarm.stages.measuring import suites_of
from rewarm.stages.merge_inputs import Input, RunStep
from rewarm.stages.train import open_views
from rewarm.training.lock import hold_lock
from rewarm.training.placement import choose_placement

__all__ = ["DEFAULT_GRID", "Chosen", "Sweep", "note_grid", "run_sweep"]

DEFAULT_GRID = tuple(k / 10 for k in range(11))
_MOST_POINTS = 101


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """What is swept: merges of `base` and `model` by weight, as `headers` would store them.

    `key` tells the models, the method and the type from any others.
    """

    method: str
    base: Input
    model: Input
    at: RunStep
    merge: Callable[[float], Merge]
    headers: Mapping[str, Header]
    key: str
    grid: tuple[float, ...] = DEFAULT_GRID
    tolerance: float | None = None


class Chosen(NamedTuple):
    """The weight that the rule picked, why, and what the model merged with it kept and learned."""

    weight: float
    reason: str
    verdicts: list[DomainVerdict]


def note_grid(grid: Sequence[float], tolerance: float | None, problems: Problems) -> None:
    """Note what is wrong with the weights of a sweep and the tolerance of its rule."""
    for weight in grid:
        if not 0.0 <= weight <= 1.0:  # NaN too
            problems.add("--grid", f"{weight:g} is not between 0 and 1", "give weights within")
    if len(grid) > _MOST_POINTS:
        problems.add("--grid", f"{len(grid)} weights", f"give {_MOST_POINTS} at most")
    if tolerance is not None and not 0.0 <= tolerance < float("inf"):
        problems.add(
            "--tolerance",
            f"{tolerance} is no tolerance",
            "give bits per byte that old text may lose, e.g. 0.01",
        )


def run_sweep(sweep: Sweep, console: Console) -> Chosen:
    """Measure every weight that is not on record, choose by the rule, and put all on record.

    One model is in memory, whose tensors are set anew for each weight. The rule is told first.
    Raises UserError where the run cannot tell what was forgotten, RunFolderError where a launch
    under way writes its records.
    """
    plan, run = sweep.at.plan, sweep.at.run
    _check_measured(sweep)
    rule = rule_in_words(sweep.tolerance)
    console.print(f"rule: {rule}", markup=False, highlight=False, soft_wrap=True)
    open_views(plan)
    placement, _ = choose_placement(plan.conduct.training, plan.science, plan.conduct.model)
    bench = Bench(plan, run, suites_of(plan).light, placement, console)
    with hold_lock(run.lock, bench.say):
        measured = _measured(sweep, bench)
        record = _record(sweep, measured, rule)
        write_json(run.merge_sweep, record.model_dump(mode="json"))
    write_atomically(run.merge_figure, main_merge_svg(record))
    write_merge_report(run, record)
    write_run_report(run)
    console.print(trade_off_summary(record))
    bench.say(f"the curve: {run.merge_report}")
    records = [*measured[0.0], *_as_later(measured[record.chosen], sweep.at.step)]
    verdicts = [
        verdict
        for metric in sorted({one.metric for one in records})
        for verdict in domain_verdicts(records, metric=metric)
    ]
    return Chosen(record.chosen, f"{record.rule}: {record.reason}.", verdicts)


def _check_measured(sweep: Sweep) -> None:
    """Raise UserError where old or new text is missing, or the base is not the run's."""
    problems = Problems()
    plan = sweep.at.plan
    if sweep.base.fingerprint != plan.science.base_weights:
        problems.add(
            "--base",
            f"{sweep.base.label} is not the base of {sweep.at.run.path}",
            "leave --base out: what was forgotten is measured against the run's own",
        )
    roles = {facts.role for facts in plan.conduct.corpora.values() if facts.held_out_documents}
    for kind, wanted in (("old", OLD_ROLES), ("new", NEW_ROLES)):
        if not roles & wanted:
            problems.add(
                str(sweep.at.run.path),
                f"it holds out no {kind} text, so there is no trade-off to measure",
                f"give its recipe a source with role {', '.join(sorted(wanted))}; it need not be "
                "trained on",
            )
    problems.raise_as(UserError)


def _measured(sweep: Sweep, bench: Bench) -> dict[float, Sequence[EvalRecord]]:
    """Return the records of every weight, the base's (weight 0) as those of step 0."""
    bench.record_base()
    measures = [batched.measure for batched in bench.suite.measures]
    wanted = {(measure.domain, measure.metric, measure.items_key) for measure in measures}
    base = [
        record
        for record in bench.recorded(0)
        if (record.domain, record.metric, record.items_key) in wanted
    ]
    if swept_point(0.0, base, _as_later(base, sweep.at.step)) is None:
        raise UserError.one(
            str(sweep.at.run.path),
            "of its old or new text nothing is left to score",
            "see the warnings of `rewarm evaluate`; hold out more text",
        )
    found: dict[float, Sequence[EvalRecord]] = {0.0: base}
    for weight, point in bench.run.merge_points_of(sweep.key).items():
        have = {(record.domain, record.metric, record.items_key) for record in point.records}
        if weight in sweep.grid and wanted <= have:
            found[weight] = point.records
    missing = [weight for weight in sweep.grid if weight not in found]
    if missing:
        # Without the adapters that a run may train: they are merged already.
        model = load_base(sweep.base.form.folder, device=bench.placement.device)
        for weight in missing:
            fill_merged(sweep.merge(weight), model, sweep.headers)
            records = bench.measured(model, sweep.at.step, f"weight {weight:g}")
            bench.run.append_merge_point(
                MergePoint(sweep=sweep.key, weight=weight, records=tuple(records))
            )
            found[weight] = records
    return found


def _record(sweep: Sweep, measured: Mapping[float, Sequence[EvalRecord]], rule: str) -> MergeSweep:
    points: list[SweptPoint] = []
    for weight in sorted(measured):
        point = swept_point(weight, measured[0.0], _as_later(measured[weight], sweep.at.step))
        assert point is not None  # as the base was
        points.append(point)
    choice = choose_weight(points, sweep.tolerance)
    text = [record for record in measured[0.0] if record.metric == "bits_per_byte"]
    new = [record.domain for record in text if record.role == "new"]
    return MergeSweep(
        sweep=sweep.key,
        method=sweep.method,
        base=sweep.base.name,
        model=sweep.model.name,
        step=sweep.at.step,
        old_domains=tuple(record.domain for record in text if record.role in OLD_ROLES),
        new_domains=tuple(new or [r.domain for r in text if r.role in NEW_ROLES]),
        points=tuple(points),
        rule=rule,
        chosen=choice.weight,
        reason=choice.reason,
    )


def _as_later(records: Sequence[EvalRecord], step: int) -> list[EvalRecord]:
    """Return records as those of a step after the base's: the base itself is a point too."""
    return [record.model_copy(update={"step": max(step, 1)}) for record in records]
