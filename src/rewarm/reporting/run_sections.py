"""The parts of a run's report: figures and tables made from what the run folder tells."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rewarm.evaluation.forgetting import KEPT_WITHIN, DomainVerdict, delta_curve
from rewarm.planning.exposure import shown_by_phase
from rewarm.planning.plan import Estimate as PlannedEstimate
from rewarm.planning.schedule import lr_curve
from rewarm.records.facts import LOSS_METRICS, SHARE_METRICS, CorpusFacts, Metric
from rewarm.reporting import numbers
from rewarm.reporting.curves import LineChart, Point, Series, Span, line_figure
from rewarm.reporting.figures import Axis, Estimate, Figure, LegendEntry, color_class, thinned
from rewarm.reporting.intervals import IntervalChart, IntervalRow, interval_figure
from rewarm.reporting.run_view import METRICS, MetricWords, RunView
from rewarm.reporting.shares import ShareBar, ShareChart, ShareGroup, share_figure
from rewarm.reporting.smoothed import MOST_DRAWN, STEP_AXIS, smoothed_figure
from rewarm.reporting.tables import Cell, Table, numeric, words
from rewarm.reporting.wording import mood_of, written_change, written_ends, written_value
from rewarm.units import format_bytes, format_count, format_duration

__all__ = [
    "UPDATE_AXIS",
    "Block",
    "average_table",
    "blend_figure",
    "change_axis",
    "curve_blocks",
    "estimates_table",
    "events_table",
    "exposure_table",
    "ledger_table",
    "lr_figure",
    "lr_sentence",
    "phase_spans",
    "provenance_table",
    "reasons_table",
    "recipe_text",
    "training_figures",
    "verdict_blocks",
    "verdict_table",
]

UPDATE_AXIS = Axis("updates, log scale", kind="steps", form="count", short="after update")


@dataclass(frozen=True, slots=True)
class Block:
    """A heading with the figures under it."""

    heading: str
    figures: tuple[Figure, ...]
    text: str = ""


def change_axis(metric: MetricWords) -> Axis:
    """Return the axis of changes against step 0 in a metric's unit."""
    if metric.metric in LOSS_METRICS:
        return Axis("bits per byte against step 0", form="signed", short="change")
    if metric.metric not in SHARE_METRICS:
        return Axis("the task's own unit against step 0", form="signed", short="change")
    return Axis("points of accuracy against step 0", form="points", short="change")


def phase_spans(view: RunView) -> tuple[Span, ...]:
    """Return the phases for shading; a single phase needs none."""
    phases = view.plan.science.phases
    if len(phases) == 1:
        return ()
    return tuple(Span(phase.start_step, phase.end_step, phase.name) for phase in phases)


# What was learned and what was forgotten


def verdict_blocks(view: RunView) -> list[Block]:
    """Return a dot-and-interval figure per metric."""
    blocks: list[Block] = []
    for metric in METRICS:
        rows = tuple(
            IntervalRow(
                name=verdict.domain,
                note=_role_words(verdict.role),
                change=Estimate(verdict.delta, verdict.low, verdict.high),
                mood=mood_of(verdict),
                verdict=verdict.verdict,
            )
            for verdict in view.verdicts
            if verdict.metric == metric.metric
        )
        if rows:
            better = "left" if metric.lower_is_better else "right"
            chart = IntervalChart(
                title=f"{metric.name}: change since step 0",
                description=f"One row per domain, with its 95 % interval; {better} is better. "
                f"The shaded strip is what counts as kept, ±{KEPT_WITHIN:g}.",
                axis=change_axis(metric),
                rows=rows,
                kept=KEPT_WITHIN,
            )
            blocks.append(Block(metric.name, (interval_figure(chart),), f"{better} is better"))
    return blocks


def _role_words(role: str) -> str:
    return {
        "general": "known to the base",
        "quality": "known, of high quality",
        "replay": "known, replayed",
        "new": "to be learned",
        "qa": "to be learned, questions",
        "task": "task",
    }.get(role, role)


def verdict_table(verdicts: Sequence[DomainVerdict]) -> Table:
    """Return one row per domain and metric: first, last, change, interval, verdict and its rule."""
    names = {metric.metric: metric for metric in METRICS}
    rows = tuple(
        (
            Cell(verdict.domain, below=f"{verdict.role}, {names[verdict.metric].short}"),
            f"{verdict.num_items:,}",
            written_value(verdict.metric, verdict.first),
            written_value(verdict.metric, verdict.last),
            written_change(verdict),
            _interval(verdict),
            Cell(verdict.verdict, mood_of(verdict), verdict.reason),
        )
        for verdict in verdicts
    )
    columns = (
        words("domain")
        + numeric("items", "step 0", "last", "change", "95 % interval")
        + words("verdict")
    )
    return Table(columns, rows)


def average_table(view: RunView) -> Table:
    """Return the average's rows, each beside what the last weights have; none where none is."""
    last = {(v.domain, v.metric): v.last for v in view.verdicts}
    of_average = verdict_table(view.average_verdicts)
    rows = tuple(
        (*row[:3], _last_value(last, verdict), *row[3:])
        for verdict, row in zip(view.average_verdicts, of_average.rows, strict=True)
    )
    columns = (
        words("domain")
        + numeric("items", "step 0", "last weights", "average", "change", "95 % interval")
        + words("verdict")
    )
    return Table(columns, rows)


def _last_value(last: Mapping[tuple[str, Metric], float], verdict: DomainVerdict) -> str:
    value = last.get((verdict.domain, verdict.metric))
    return numbers.MISSING if value is None else written_value(verdict.metric, value)


def _interval(verdict: DomainVerdict) -> str:
    ends = written_ends(verdict)
    return "not known" if ends is None else numbers.interval(*ends)


def curve_blocks(view: RunView) -> list[Block]:
    """Return per metric the domains' curves against step 0: what was known, what is learned."""
    blocks: list[Block] = []
    for metric in METRICS:
        domains = [
            d for d in view.evaluated_domains(metric.metric) if view.has_base(d, metric.metric)
        ]
        old = [domain for domain in domains if view.is_old(domain)]
        new = [domain for domain in domains if view.is_new(domain)]
        other = [domain for domain in domains if domain not in old and domain not in new]
        groups = (("Known to the base", old), ("To be learned", new), ("Tasks", other))
        figures = tuple(
            figure
            for heading, group in groups
            if (figure := _delta_figure(view, metric, heading, group)) is not None
        )
        if figures:
            worse = "up is worse" if metric.lower_is_better else "up is better"
            blocks.append(Block(metric.name, figures, worse))
    return blocks


def _delta_figure(
    view: RunView, metric: MetricWords, heading: str, domains: Sequence[str]
) -> Figure | None:
    series = tuple(
        Series(
            name=domain,
            points=[
                Point(point.step, point.delta, point.noise)
                for point in delta_curve(view.evals, domain, metric.metric)
            ],
            color=view.color(domain),
            marks=True,
        )
        for domain in domains
    )
    # Two evaluations are told by the verdict; a curve needs more.
    if not any(len(one.points) > 2 for one in series):
        return None
    chart = LineChart(
        title=f"{metric.name}, {heading.lower()}",
        heading=heading,
        description="Change of each domain since step 0 after each evaluated update, with its 95 % "
        "interval as a band; the shaded strip is what counts as kept.",
        x=UPDATE_AXIS,
        y=change_axis(metric),
        series=series,
        phases=phase_spans(view),
        kept=KEPT_WITHIN,
    )
    return line_figure(chart)


# Learning rate, blend, loss


def lr_figure(view: RunView) -> Figure:
    """Return the planned rate with the recorded one over it."""
    planned = lr_curve(view.plan.science.schedule)
    starts = [phase.start_step for phase in view.plan.science.phases]
    shown = sorted({*thinned(range(len(planned)), MOST_DRAWN), *starts})
    last = view.num_steps_taken - 1
    recorded = [record for record in view.steps if record.step in shown or record.step == last]
    series = [Series("planned", [Point(k, float(planned[k])) for k in shown], style="planned")]
    if recorded:
        series.append(Series("recorded", [Point(r.step, r.lr) for r in recorded]))
    chart = LineChart(
        title="Learning rate",
        description="The planned rate of every step, and the recorded one over it.",
        x=STEP_AXIS,
        y=Axis("rate", form="rate", floor=0.0),
        series=tuple(series),
        phases=phase_spans(view),
    )
    return line_figure(chart)


def lr_sentence(view: RunView) -> str:
    """Say whether the recorded rates are the planned ones, and what they sum to."""
    planned = lr_curve(view.plan.science.schedule)
    area = f"Summed over all steps the planned rate is {numbers.rate(view.planned_lr_area)}"
    if not view.steps:
        return f"{area}."
    worst = max(view.steps, key=lambda record: abs(record.lr - planned[record.step]))
    difference = abs(worst.lr - planned[worst.step])
    told = f"{area}, the recorded one {numbers.rate(view.lr_area)}"
    if difference <= 1e-12:
        return f"{told}; every recorded rate is the planned one."
    return (
        f"{told}. The recorded rate differs from the planned one by up to "
        f"{numbers.rate(difference)}, at step {worst.step:,}."
    )


def blend_figure(view: RunView) -> Figure:
    """Return the share of each source by phase, planned and seen."""
    science = view.plan.science
    groups = tuple(
        ShareGroup(
            name=phase.name,
            note=f"steps {phase.start_step:,} to {phase.end_step - 1:,}",
            bars=(
                ShareBar("planned", _shares(phase.samples)),
                ShareBar("seen", _shares(view.seen_samples(phase))),
            ),
        )
        for phase in science.phases
    )
    chart = ShareChart(
        title="Blend by phase",
        description="Share of the sequences of each source, as planned and as recorded.",
        sources=tuple(
            LegendEntry(color_class(view.color(source.name)), source.name)
            for source in science.sources
        ),
        groups=groups,
    )
    return share_figure(chart)


def _shares(samples: Sequence[int]) -> tuple[float, ...]:
    total = sum(samples)
    return tuple(count / total if total else 0.0 for count in samples)


def training_figures(view: RunView) -> tuple[Figure, ...]:
    """Return loss, gradient norm and terms of the recorded steps; none where there are none."""
    if not view.steps:
        return ()
    loss = smoothed_figure(
        "Training loss",
        Axis("nats per token"),
        [Point(record.step, record.loss) for record in view.steps],
        phase_spans(view),
    )
    norm = smoothed_figure(
        "Gradient norm before clipping",
        Axis("global norm", floor=0.0),
        [Point(record.step, record.grad_norm) for record in view.steps],
        phase_spans(view),
    )
    return loss, norm, *_retention_figures(view)


_TERMS = {
    "l2sp": ("L2-SP: λ/2 · Σ(θ − θ*)²", Axis("nats per token", floor=0.0)),
    "ewc": ("EWC: λ/2 · ΣF(θ − θ*)²", Axis("nats per token", floor=0.0)),
    "distill": ("Divergence from the base", Axis("KL, nats per token", floor=0.0)),
    "agem": ("A-GEM: gradient against the memory's", Axis("cosine")),
}
"""What each step records of retention, and how it is shown."""


def _retention_figures(view: RunView) -> Iterator[Figure]:
    """Yield what holds on to the base, term by term; below 0, A-GEM turns a step aside."""
    for name, (title, axis) in _TERMS.items():
        points = [
            Point(record.step, record.retention[name])
            for record in view.steps
            if name in record.retention
        ]
        if points:
            yield smoothed_figure(title, axis, points, phase_spans(view))


# Tables


def ledger_table(view: RunView) -> Table:
    """Return documents, tokens, bytes, held-out part, exposure and rejections of every source."""
    exposures = view.exposures()
    rows: list[tuple[str | Cell, ...]] = []
    corpora = view.plan.conduct.corpora
    for name, corpus in ((d, corpora[d]) for d in view.domains if d in corpora):
        exposure = exposures.get(name)
        selections = [one.selection for one in corpora.values() if one.selection is not None]
        is_reference = any(selection.reference == name for selection in selections)
        unseen = "a reference" if is_reference else "evaluated only"
        planned, seen = Cell("0", below=unseen), Cell("0", below=unseen)
        if exposure is not None:
            planned = Cell(
                f"{exposure.planned_epochs:.2f}", below=format_count(exposure.planned_tokens)
            )
            seen = Cell(f"{exposure.seen_epochs:.2f}", below=format_count(exposure.seen_tokens))
        rows.append(
            (
                Cell(name, below=corpus.role + ("" if corpus.measured else ", estimated")),
                corpus.stated_licence or "not stated",
                f"{corpus.num_documents:,}",
                format_count(corpus.num_tokens),
                format_bytes(corpus.num_bytes),
                Cell(f"{corpus.held_out_documents:,}", below=format_bytes(corpus.held_out_bytes)),
                planned,
                seen,
                f"{sum(corpus.rejected.values()):,}",
            )
        )
    columns = words("source", "licence") + numeric(
        "documents",
        "tokens",
        "text",
        "held out",
        "planned epochs",
        "seen epochs",
        "left out",
    )
    return Table(columns, tuple(rows), _answers_counted(corpora.values()))


def _answers_counted(corpora: Iterable[CorpusFacts]) -> str:
    """Say of conversations how much of them is trained on; empty where there are none."""
    told = [
        f"{numbers.share(corpus.num_label_tokens / max(corpus.num_tokens, 1), 0)} of {corpus.name}"
        for corpus in corpora
        if corpus.num_label_tokens is not None
    ]
    return f"The loss counts the answers of conversations alone: {', '.join(told)}." if told else ""


def exposure_table(view: RunView) -> Table:
    """Return what each phase is planned to show of every source: new, repeated, epochs."""
    science = view.plan.science
    rows = tuple(
        (
            source.name,
            shown.phase,
            format_count(shown.num_tokens),
            format_count(shown.num_first_time),
            format_count(shown.num_repeated),
            f"{shown.epochs:.2f}",
        )
        for index, source in enumerate(science.sources)
        for shown in shown_by_phase(science, index)
    )
    columns = words("source", "phase") + numeric("tokens", "first time", "repeats", "epochs")
    return Table(columns, rows)


def reasons_table(view: RunView) -> Table:
    """Return why each number of the plan is what it is."""
    rows = tuple(
        (reason.field, reason.value, reason.reason, reason.source) for reason in view.plan.reasons
    )
    return Table(words("field", "value", "because", "source"), rows)


def estimates_table(view: RunView) -> Table:
    """Return what the plan foresaw beside what came."""
    rows = tuple(
        (
            Cell(estimate.name, below=estimate.formula),
            numbers.in_unit(estimate.value, estimate.unit),
            _actual(view, estimate),
        )
        for estimate in view.plan.estimates
    )
    speed: tuple[tuple[str | Cell, ...], ...] = ()
    if view.training_s > 0:
        tokens = len(view.steps) * view.plan.science.tokens_per_step
        speed = (
            (
                Cell("speed", below="tokens of the recorded steps / seconds in them"),
                numbers.MISSING,
                f"{format_count(tokens / view.training_s)} tokens/s",
            ),
        )
    memory: tuple[tuple[str | Cell, ...], ...] = ()
    if not any(estimate.name == "peak memory" for estimate in view.plan.estimates):
        memory = ((Cell("peak memory"), numbers.MISSING, _peak_memory(view)),)
    return Table(words("quantity") + numeric("estimated", "actual"), rows + memory + speed)


def _actual(view: RunView, estimate: PlannedEstimate) -> str | Cell:
    """Return what was measured of an estimated quantity, where anything was."""
    if not view.steps:
        return numbers.MISSING
    spent = view.training_s + view.evaluation_s
    share_done = len(view.steps) / view.plan.science.num_steps
    part = "" if view.finished else f"for {numbers.share(share_done, 0)} of the steps"
    if estimate.name == "time":
        split = f"{format_duration(view.training_s)} steps"
        split += f", {format_duration(view.evaluation_s)} evaluation"
        return Cell(format_duration(spent), below=", ".join(filter(None, (split, part))))
    if estimate.name == "evaluation compute" and spent:
        return Cell(numbers.share(view.evaluation_s / spent), below="of the seconds spent")
    if estimate.name == "peak memory":
        return _peak_memory(view)
    if estimate.name == "training compute" and view.training_s > 0:
        sustained = estimate.value * share_done / view.training_s
        return Cell(f"{numbers.rate(sustained)} FLOP/s", below="sustained in steps")
    if estimate.name == "cost":
        planned_s = next((e.value for e in view.plan.estimates if e.name == "time"), 0.0)
        if planned_s:
            return Cell(format_count(estimate.value * spent / planned_s), below=part)
    return numbers.MISSING


_PROFILED = "; with a profiler's events: no other launch ended in good order"


def _peak_memory(view: RunView) -> str | Cell:
    """Return what steps took, beside the process's own as the estimate is; with that, what was
    taken around them.
    """
    memory = view.run.memory()
    if memory is None:
        return numbers.MISSING
    watched = _PROFILED if memory.profiled else ""
    if not memory.told_apart:
        whole = max(memory.held_bytes, memory.other_bytes)
        return Cell(format_bytes(whole), below=f"of the process, steps or not{watched}")
    own = f", beside the process's own {format_bytes(memory.process_bytes)}"
    around = f"; {format_bytes(memory.other_bytes)} in all around them"
    about = f"in steps{own if memory.process_bytes else ''}{around}{watched}"
    return Cell(format_bytes(memory.steps_bytes), below=about)


_BAD_EVENTS = frozenset(
    {"passed_over", "non_finite", "spike", "skip", "forgetting", "replay", "warning"}
)


_ROUTINE = frozenset({"checkpoint", "mirrored"})


def events_table(view: RunView, *, routine: bool = True) -> Table:
    """Return what happened, in order; without `routine`, checkpoints and their copies are counted
    instead.
    """
    saved = [event for event in view.events if event.kind == "checkpoint"]
    note = ""
    if saved and not routine:
        many = "1 checkpoint was" if len(saved) == 1 else f"{len(saved):,} checkpoints were"
        note = f"{many} saved, the last after step {max(event.step for event in saved):,}."
    rows = tuple(
        (
            event.time.replace("T", " ").removesuffix("+00:00"),
            Cell(event.kind, "bad" if event.kind in _BAD_EVENTS else ""),
            f"{event.step:,}",
            event.message,
        )
        for event in view.events
        if routine or event.kind not in _ROUTINE
    )
    columns = words("time (UTC)", "event") + numeric("step") + words("what")
    return Table(columns, rows, note)


def provenance_table(view: RunView) -> Table:
    """Return what the figures can be traced to: fingerprints, machine, versions."""
    plan = view.plan
    science, model = plan.science, plan.conduct.model
    facts = {
        "plan": plan.fingerprint,
        "base": plan.conduct.base_name,
        "base revision": plan.conduct.base_revision or "not given",
        "base weights": science.base_weights,
        "base licence": model.licence or "not stated",
        "architecture": f"{model.architecture}, {format_count(model.num_parameters)} parameters",
        "tokenizer": science.tokenizer,
        "seed": str(science.seed),
        "sequence": f"{science.sequence_length:,} tokens, {science.sequences_per_step:,} a step",
        **{f"text of {source.name}": source.key for source in science.sources},
    }
    if view.placement is not None:
        facts |= _placement_facts(view.placement.model_dump())
    return Table(words("what", "which"), tuple(facts.items()))


def _placement_facts(placement: dict[str, object]) -> dict[str, str]:
    provenance = placement.pop("provenance")
    facts = {
        name.replace("_", " "): str(value) for name, value in placement.items() if value is not None
    }
    if isinstance(provenance, dict):
        packages = provenance.get("packages")
        versions = packages if isinstance(packages, dict) else {}
        facts |= {
            "python": str(provenance.get("python", "not known")),
            "platform": str(provenance.get("platform", "not known")),
            "packages": ", ".join(f"{name} {version}" for name, version in versions.items()),
        }
    return facts


def recipe_text(view: RunView) -> str:
    """Return the resolved recipe as indented JSON; empty where it is missing."""
    if view.recipe is None:
        return ""
    return json.dumps(view.recipe, indent=2, ensure_ascii=False)
