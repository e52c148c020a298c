"""The figures that arms can be compared by, named as an experiment file names them.

    forgetting              mean over old domains of ℓ(T) − ℓ(0)                  bits per byte
    adaptation              mean over new domains of ℓ(0) − ℓ(T)                  bits per byte
    mean_loss               ℓ(T), old and new domains counting half each          bits per byte
    held_out.SOURCE         ℓ(T) of one source                                    bits per byte
    answers.SOURCE          of answers, given their questions                     bits per byte
    contrast.SOURCE         of answers, given their own question less given another's  bits per byte
    chat.SOURCE             of answers in chat format                             bits per byte
    continuation.SOURCE     matched continuation, share right
    task.NAME               multiple choice, cloze or minimal pairs, share right
    harness.NAME METRIC     of a task of lm-evaluation-harness, as it has it; harness_loss and
                            harness_perplexity where less is better
    stability_gap.depth     mean over old domains of max_t ℓ(t) − ℓ(0)            bits per byte
    stability_gap.transient of it, what came back by the end                      bits per byte
    stability_gap.area      Σ (ℓ(t) − ℓ(0))⁺ Δt                           bits per byte · updates
    stability_gap.steps_to_peak  the step of the greatest loss                    updates
    stability_gap.recovered share of old domains that came back to the base's loss for good
    matched_forgetting      forgetting where both arms of a pair have learned as much, `matched`
    training_s              time spent in steps                                   seconds
    planned_tflop           compute of all steps, by the plan                     TFLOP
    planned_mib             weights, gradients, moments, retention, by the plan   MiB
    planned_peak_mib        a step's peak by the plan, retention with it          MiB
    peak_mib                the same as measured in the run's steps               MiB

All arms are measured against one base: where an arm begins elsewhere (weights drawn anew), its own
step 0 is left out, and the control's of the same seed stands there. Means over domains are over
those that every arm is measured on: text that one arm alone holds out (what it made up to rehearse)
would move its mean without anything having been learned or forgotten.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import NamedTuple

from rewarm.evaluation.forgetting import (
    NEW_ROLES,
    OLD_ROLES,
    StabilityGap,
    adaptation,
    forgetting,
    stability_gap,
)
from rewarm.planning.plan import Plan
from rewarm.records.comparison import Better
from rewarm.records.facts import CorpusFacts, EvalRecord, Metric

__all__ = [
    "MetricKind",
    "against_base",
    "common_domains",
    "harness_problems",
    "kind_of",
    "known_once_loaded",
    "last_records",
    "measured_by",
    "metric_problem",
    "planned_values",
    "values_of",
]

_BITS = "bits per byte"
_AS_IT_IS = "as the task has it"


class MetricKind(NamedTuple):
    """What a family of metrics is: which way is better, in which unit, of one subject or of all."""

    better: Better
    unit: str
    by_subject: bool
    records: tuple[Metric, ...] = ()
    """Where the value is that of one domain at the end: the records' names of it."""


KINDS: dict[str, MetricKind] = {
    "forgetting": MetricKind("lower", _BITS, False),
    "adaptation": MetricKind("higher", _BITS, False),
    "mean_loss": MetricKind("lower", _BITS, False),
    "held_out": MetricKind("lower", _BITS, True, ("bits_per_byte",)),
    "answers": MetricKind("lower", _BITS, True, ("answer_bits_per_byte",)),
    "contrast": MetricKind("lower", _BITS, True, ("answer_contrast",)),
    "chat": MetricKind("lower", _BITS, True, ("chat_bits_per_byte",)),
    "continuation": MetricKind("higher", "share right", True, ("matched_continuation",)),
    "task": MetricKind(
        "higher", "share right", True, ("multiple_choice", "cloze", "minimal_pairs")
    ),
    "harness": MetricKind("higher", _AS_IT_IS, True, ("task_score",)),
    "harness_loss": MetricKind("lower", _AS_IT_IS, True, ("task_loss",)),
    "harness_perplexity": MetricKind("lower", _AS_IT_IS, True, ("task_perplexity",)),
    "stability_gap.depth": MetricKind("lower", _BITS, False),
    "stability_gap.transient": MetricKind("lower", _BITS, False),
    "stability_gap.area": MetricKind("lower", f"{_BITS} · updates", False),
    "stability_gap.steps_to_peak": MetricKind("lower", "updates", False),
    "stability_gap.recovered": MetricKind("higher", "share of domains", False),
    "matched_forgetting": MetricKind("lower", _BITS, False),
    "training_s": MetricKind("lower", "s", False),
    "planned_tflop": MetricKind("lower", "TFLOP", False),
    "planned_mib": MetricKind("lower", "MiB", False),
    "planned_peak_mib": MetricKind("lower", "MiB", False),
    "peak_mib": MetricKind("lower", "MiB", False),
}
_OF_HARNESS = ("harness", "harness_loss", "harness_perplexity")
_BY_RECORD = {record: name for name, kind in KINDS.items() for record in kind.records}
_GAPS: dict[str, Callable[[StabilityGap], float]] = {
    "stability_gap.depth": lambda gap: gap.depth,
    "stability_gap.transient": lambda gap: gap.transient,
    "stability_gap.area": lambda gap: gap.area,
    "stability_gap.steps_to_peak": lambda gap: float(gap.steps_to_peak),
    "stability_gap.recovered": lambda gap: float(gap.recovery_step is not None),
}


def kind_of(metric: str) -> MetricKind:
    """Return the kind of a metric; KeyError for a name that `metric_problem` tells of."""
    if metric in KINDS and not KINDS[metric].by_subject:
        return KINDS[metric]
    head, _, subject = metric.partition(".")
    kind = KINDS[head]
    if not (kind.by_subject and subject):
        raise KeyError(metric)
    return kind


def metric_problem(metric: str) -> tuple[str, str] | None:
    """Return (what is wrong, what to do) where nothing is called so; None where something is."""
    head, _, subject = metric.partition(".")
    if head in _OF_HARNESS and subject and " " not in subject:
        return (
            f"{subject!r} of lm-evaluation-harness has several figures",
            f"name one, e.g. {head}.{subject} acc",
        )
    try:
        kind_of(metric)
    except KeyError:
        names = [f"{name}.SOURCE" if kind.by_subject else name for name, kind in KINDS.items()]
        if head in KINDS and KINDS[head].by_subject:
            return f"{head!r} is of one source", f"name it, e.g. {head}.new"
        near = difflib.get_close_matches(metric, KINDS, n=1, cutoff=0.6)
        near = near or difflib.get_close_matches(head, KINDS, n=1, cutoff=0.6)
        known = f"known are {', '.join(names)}"
        told = f"did you mean {near[0]!r}? {known}" if near else known
        return f"no metric is called {metric!r}", told
    return None


def common_domains(plans: Sequence[Plan]) -> frozenset[str]:
    """Return the sources over which means are taken: held out as old, or as new text, in every plan
    that holds out any such text.
    """
    found: set[str] = set()
    for roles in (OLD_ROLES, NEW_ROLES):
        named = [{f.name for f in _held_out(plan) if f.role in roles} for plan in plans]
        found |= set.intersection(*filter(None, named)) if any(named) else set()
    return frozenset(found)


def _held_out(plan: Plan) -> list[CorpusFacts]:
    return [facts for facts in plan.conduct.corpora.values() if facts.held_out_documents]


def measured_by(plan: Plan, common: Container[str] | None = None) -> list[str]:
    """Return the metrics that a run of this plan will have, as far as the plan can tell.

    `common` are the domains that count for means (`common_domains`); None: all.
    """
    wanted = plan.conduct.evaluation
    held_out = _held_out(plan)
    counted = [facts for facts in held_out if common is None or facts.name in common]
    has_old = any(facts.role in OLD_ROLES for facts in counted)
    has_new = any(facts.role not in OLD_ROLES for facts in counted)
    found = [*(["forgetting"] if has_old else []), *(["adaptation"] if has_new else [])]
    found += ["mean_loss"] if counted else []
    found += list(_GAPS) if has_old else []
    found += ["matched_forgetting"] if has_old and has_new else []
    for facts in held_out:
        found.append(f"held_out.{facts.name}")
        if facts.role == "qa":
            found.append(f"answers.{facts.name}")
            found += [f"contrast.{facts.name}"] if wanted.answer_contrast else []
        elif facts.num_label_tokens is not None:
            found.append(f"chat.{facts.name}")
        elif wanted.matched_continuation_items:
            found.append(f"continuation.{facts.name}")
    for name, task in wanted.tasks.items():
        found += [f"task.{name}", *([f"answers.{name}"] if task.kind == "cloze" else [])]
    if plan.conduct.model.has_chat_template:
        found.append("chat.chat format")
    return [*found, "training_s", *planned_values(plan), "peak_mib"]


def planned_values(plan: Plan) -> dict[str, float]:
    """Return what a run takes by its plan's estimates, evaluation aside: TFLOP and MiB.

    Plans of before there was an estimate of the peak have none.
    """
    of = {estimate.name: estimate.value for estimate in plan.estimates}
    compute = of["training compute"]
    compute += of.get("retention compute", 0.0) + of.get("Muon compute", 0.0)
    retained = of.get("retention memory", 0.0)
    memory = of["weights, gradients and moments"] + retained
    found = {"planned_tflop": compute / 1e12, "planned_mib": memory / 2**20}
    if "peak memory" in of:
        found["planned_peak_mib"] = of["peak memory"] / 2**20  # retention is in it
    return found


def against_base(
    records: Sequence[EvalRecord], base: Sequence[EvalRecord] | None
) -> list[EvalRecord]:
    """Return the records of a run with step 0 measured of `base`, those of a control's run.

    None where the run began from the same base: its own step 0 then stands.
    """
    if base is None:
        return list(records)
    first = [record for record in base if record.step == 0]
    return [*first, *(record for record in records if record.step > 0)]


def last_records(records: Sequence[EvalRecord]) -> dict[tuple[Metric, str], EvalRecord]:
    """Return the last record of every metric and domain that was measured after step 0."""
    ordered = sorted((r for r in records if r.step > 0), key=lambda record: record.step)
    return {(record.metric, record.domain): record for record in ordered}


def values_of(
    records: Sequence[EvalRecord], *, from_base: bool, common: Container[str] | None = None
) -> dict[str, float]:
    """Return all metrics of a finished run but its time and its memory.

    `records` are those of `against_base`; the gap is left out where the run did not begin there.
    `common` are the domains that means are over (`common_domains`); None: all.
    """
    every = last_records(records)
    records = [record for record in records if common is None or record.domain in common]
    last = last_records(records)
    found: dict[str, float] = {}
    for name, per_domain in (
        ("forgetting", forgetting(records)),
        ("adaptation", _of_new_text(adaptation(records), records)),
    ):
        if per_domain:
            found[name] = _mean(list(per_domain.values()))
    halves = [half for half in _mean_losses(last) if half]
    if halves:
        found["mean_loss"] = _mean([_mean(half) for half in halves])
    for (metric, domain), record in every.items():
        found[f"{_BY_RECORD[metric]}.{domain}"] = record.value
    old = list(forgetting(records))
    if old and from_base:
        gaps = [stability_gap(records, domain) for domain in old]
        found |= {name: _mean([part(gap) for gap in gaps]) for name, part in _GAPS.items()}
    return found


def _of_new_text(per_domain: dict[str, float], records: Sequence[EvalRecord]) -> dict[str, float]:
    """Return new text's alone; that of questions stands in for it where there is no other."""
    new = {record.domain for record in records if record.role == "new"}
    return {d: value for d, value in per_domain.items() if d in new} or per_domain


def _mean_losses(last: dict[tuple[Metric, str], EvalRecord]) -> tuple[list[float], list[float]]:
    text = [
        record
        for (metric, _), record in last.items()
        if metric == "bits_per_byte" and record.role != "task"
    ]
    old = [record.value for record in text if record.role in OLD_ROLES]
    learned = [record for record in text if record.role not in OLD_ROLES]
    new = [record.value for record in learned if record.role == "new"]
    return old, new or [record.value for record in learned]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def known_once_loaded(metric: str, plan: Plan) -> bool:
    """Tell whether no plan can tell if a run has this metric: tasks of the harness name theirs."""
    head, _, subject = metric.partition(".")
    # A task's bits per byte are called after it and its figure, with a space between.
    may_be = head in _OF_HARNESS or (head == "held_out" and " " in subject)
    return may_be and bool(plan.conduct.evaluation.harness.tasks)


def harness_problems(
    metrics: Sequence[str], figures: Iterable[tuple[Metric, str]]
) -> Iterator[tuple[str, str, str]]:
    """Yield (metric, what is wrong, what to do) for those that loaded tasks do not come to.

    `figures` are kinds and domains, without what a filter adds to them in brackets.
    """
    names = sorted(f"{_BY_RECORD[kind]}.{domain}" for kind, domain in figures)
    for metric in metrics:
        bare = metric.partition(" (")[0]
        if bare not in names:
            near = difflib.get_close_matches(bare, names, n=1, cutoff=0.6)
            fix = f"there are: {', '.join(names)}"
            yield (
                metric,
                "the tasks of lm-evaluation-harness have no such figure",
                f"did you mean {near[0]!r}? {fix}" if near else fix,
            )
