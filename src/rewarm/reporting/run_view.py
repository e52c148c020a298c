"""Everything of a run folder that a report shows, read once; what is missing is said in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rewarm.artifacts import parse_json, read_json_lines
from rewarm.errors import RunFolderError
from rewarm.evaluation.forgetting import NEW_ROLES, OLD_ROLES, DomainVerdict, domain_verdicts
from rewarm.planning.amended import amended_plan
from rewarm.planning.amendments import read_amendments
from rewarm.planning.exposure import epochs_of
from rewarm.planning.plan import Placement, Plan, PlannedPhase, load_plan
from rewarm.planning.schedule import area_under
from rewarm.records.against import AgainstOthers, WeightChange
from rewarm.records.comparison import Membership
from rewarm.records.facts import EvalRecord, EventRecord, Metric, StepRecord
from rewarm.records.merging import MergeSweep
from rewarm.records.reading import record_or_none
from rewarm.records.run_folder import RunFolder

__all__ = ["METRICS", "Exposure", "MetricWords", "RunView", "load_run_view"]


@dataclass(frozen=True, slots=True)
class MetricWords:
    """How a metric is called, in a heading and beside a domain."""

    metric: Metric
    name: str
    short: str
    lower_is_better: bool


METRICS: tuple[MetricWords, ...] = (
    MetricWords("bits_per_byte", "Held-out text", "text", True),
    MetricWords("answer_bits_per_byte", "Answers, given their questions", "answers", True),
    MetricWords("answer_contrast", "Answers, own question less another's", "contrast", True),
    MetricWords("chat_bits_per_byte", "Answers in the base's chat format", "chat", True),
    MetricWords("matched_continuation", "Matched continuation", "continuation", False),
    MetricWords("multiple_choice", "Multiple choice", "choice", False),
    MetricWords("minimal_pairs", "Minimal pairs", "pairs", False),
    MetricWords("cloze", "Cloze", "cloze", False),
    MetricWords("task_score", "Tasks of lm-evaluation-harness", "score", False),
    MetricWords("task_loss", "Losses of lm-evaluation-harness", "loss", True),
    MetricWords("task_perplexity", "Perplexities of lm-evaluation-harness", "ppl", True),
)
"""All metrics in the order in which pages show them."""


_ROLES = ("general", "quality", "replay", "new", "qa", "task")


@dataclass(frozen=True, slots=True)
class Exposure:
    """How much of a source was planned and how much was seen."""

    source: str
    planned_tokens: int
    planned_epochs: float
    seen_tokens: int
    seen_epochs: float


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as its folder tells it; its plan's blends are those that amendments have made of them.

    `domains` is the order of rows and colours: what the base knew, what is new, questions, tasks.
    `average_verdicts` are of the running average of the weights, where one was measured.
    """

    run: RunFolder
    plan: Plan
    placement: Placement | None
    recipe: Any
    steps: tuple[StepRecord, ...]
    evals: tuple[EvalRecord, ...]
    events: tuple[EventRecord, ...]
    domains: tuple[str, ...]
    verdicts: tuple[DomainVerdict, ...]
    average_verdicts: tuple[DomainVerdict, ...]
    missing: tuple[str, ...]
    merge_sweep: MergeSweep | None = None
    against: AgainstOthers | None = None
    weight_change: WeightChange | None = None
    membership: Membership | None = None

    @property
    def num_steps_taken(self) -> int:
        """Updates of which there is a record that nothing later was lost."""
        return self.steps[-1].step + 1 if self.steps else 0

    @property
    def finished(self) -> bool:
        """Tell whether the last planned step was taken."""
        return self.num_steps_taken == self.plan.science.num_steps

    @property
    def num_tokens(self) -> int:
        """Input tokens consumed."""
        return self.num_steps_taken * self.plan.science.tokens_per_step

    @property
    def training_s(self) -> float:
        """Seconds spent in steps; steps taken again after a resume count once."""
        return sum(record.step_s for record in self.steps)

    @property
    def evaluation_s(self) -> float:
        """Seconds spent in evaluations."""
        return sum(record.seconds for record in self.evals)

    @property
    def planned_lr_area(self) -> float:
        """The rate summed over all planned steps."""
        return area_under(self.plan.science.schedule)

    @property
    def lr_area(self) -> float:
        """The rate summed over the steps that were recorded."""
        return sum(record.lr for record in self.steps)

    def color(self, domain: str) -> int:
        """Return the colour that a domain has on the whole page."""
        return self.domains.index(domain)

    def evaluated_domains(self, metric: Metric) -> tuple[str, ...]:
        """Return the domains with this metric, in the order of colours."""
        found = {record.domain for record in self.evals if record.metric == metric}
        return tuple(domain for domain in self.domains if domain in found)

    def has_base(self, domain: str, metric: Metric) -> bool:
        """Tell whether a domain was measured at step 0, so that differences can be taken."""
        return any(
            record.step == 0 and record.domain == domain and record.metric == metric
            for record in self.evals
        )

    def role(self, domain: str) -> str:
        """Return what a domain is for."""
        return next(record.role for record in self.evals if record.domain == domain)

    def is_old(self, domain: str) -> bool:
        """Tell whether the base knew this domain."""
        return self.role(domain) in OLD_ROLES

    def is_new(self, domain: str) -> bool:
        """Tell whether the run is there to learn this domain."""
        return self.role(domain) in NEW_ROLES

    def seen_samples(self, phase: PlannedPhase) -> tuple[int, ...]:
        """Return the sequences of each source in the recorded steps of a phase."""
        rows = [record.samples for record in self.steps if record.phase == phase.name]
        if not rows:
            return (0,) * len(self.plan.science.sources)
        return tuple(int(total) for total in np.asarray(rows).sum(axis=0))

    def exposures(self) -> dict[str, Exposure]:
        """Return planned and seen tokens by source."""
        science = self.plan.science
        planned_epochs = epochs_of(science.sources, science.phases)
        seen = np.zeros(len(science.sources), dtype=np.int64)
        for phase in science.phases:
            seen += np.asarray(self.seen_samples(phase))
        length = science.sequence_length
        return {
            source.name: Exposure(
                source=source.name,
                planned_tokens=length * sum(phase.samples[index] for phase in science.phases),
                planned_epochs=planned_epochs[source.name],
                seen_tokens=length * int(seen[index]),
                seen_epochs=source.epochs(int(seen[index])),
            )
            for index, source in enumerate(science.sources)
        }


def load_run_view(run: RunFolder) -> RunView:
    """Read a run folder; raises PlanError where its plan cannot be trusted.

    Everything else may be missing or torn: the view says so in `missing`.
    """
    planned = load_plan(run.plan)
    plan, broken = _as_amended(planned, run)
    recorded = run.steps()
    steps = tuple(record for record in recorded if _fits(record, plan))
    evals, of_average = tuple(run.evals()), run.average_evals()
    placement = record_or_none(run.placement, Placement)
    recipe = _json_or_none(run.recipe)
    missing = [
        *broken,
        *_missing_steps(steps, len(recorded)),
        *_missing_evals(plan, evals),
        *_torn_lines(run),
    ]
    if placement is None:
        missing.append("placement.json is missing: device, precision and versions are not known")
    if recipe is None:
        missing.append("recipe.json is missing: the resolved recipe cannot be shown")
    sweep = record_or_none(run.merge_sweep, MergeSweep)
    if sweep is None and run.merge_sweep.exists():
        missing.append("merge_sweep.json cannot be read: the curve of the merge is not shown")
    domains = _ordered_domains(plan, evals)
    return RunView(
        run=run,
        plan=plan,
        placement=placement,
        recipe=recipe,
        steps=steps,
        evals=evals,
        events=tuple(run.events()),
        domains=domains,
        verdicts=_verdicts(evals, domains),
        average_verdicts=_verdicts(of_average, domains),
        missing=tuple(missing),
        merge_sweep=sweep,
        against=record_or_none(run.against, AgainstOthers),
        weight_change=record_or_none(run.weight_change, WeightChange),
        membership=record_or_none(run.membership, Membership),
    )


def _as_amended(plan: Plan, run: RunFolder) -> tuple[Plan, list[str]]:
    """Return the plan with the blends that its run is dealt to, and what is wrong with these."""
    try:
        return amended_plan(plan, read_amendments(run.amendments, plan.fingerprint)), []
    except RunFolderError as error:
        return plan, [f"amendments.jsonl cannot be used, blends are the plan's: {error}"]


def _verdicts(evals: Sequence[EvalRecord], domains: Sequence[str]) -> tuple[DomainVerdict, ...]:
    return tuple(
        verdict
        for words in METRICS
        for verdict in sorted(
            domain_verdicts(evals, metric=words.metric), key=lambda v: domains.index(v.domain)
        )
    )


def _ordered_domains(plan: Plan, evals: Sequence[EvalRecord]) -> tuple[str, ...]:
    roles: dict[str, str] = {name: facts.role for name, facts in plan.conduct.corpora.items()}
    roles |= {record.domain: record.role for record in evals}
    return tuple(sorted(roles, key=lambda domain: _ROLES.index(roles[domain])))


def _json_or_none(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _fits(record: StepRecord, plan: Plan) -> bool:
    """Tell whether a record can be of this plan: its step is planned, its sources are these."""
    science = plan.science
    return record.step < science.num_steps and len(record.samples) == len(science.sources)


def _missing_steps(steps: Sequence[StepRecord], num_recorded: int) -> list[str]:
    found: list[str] = []
    if num_recorded > len(steps):
        found.append(
            f"{num_recorded - len(steps):,} steps in steps.jsonl are not of this plan and are "
            "left out"
        )
    if not steps:
        return [*found, "no step was taken yet: there is no training curve"]
    lost = steps[-1].step + 1 - len(steps)
    if lost:
        found.append(
            f"{lost:,} of {steps[-1].step + 1:,} steps have no record (steps.jsonl was damaged): "
            "sums over steps are too small by their share"
        )
    return found


def _missing_evals(plan: Plan, evals: Sequence[EvalRecord]) -> list[str]:
    if not evals:
        return ["nothing was evaluated yet: what was learned and forgotten is not known"]
    found: list[str] = []
    if all(record.step > 0 for record in evals):
        found.append("the base (step 0) was not evaluated: there is nothing to compare with")
    elif all(record.step == 0 for record in evals):
        found.append("only the base (step 0) was evaluated so far")
    evaluated = {record.domain for record in evals}
    never = [name for name in plan.conduct.corpora if name not in evaluated]
    if never:
        found.append(f"never evaluated: {', '.join(never)}")
    return found


def _torn_lines(run: RunFolder) -> list[str]:
    found: list[str] = []
    for path in (run.steps_log, run.evals_log, run.average_evals_log, run.events_log):
        if not path.exists():
            continue
        with path.open("rb") as file:
            written = sum(1 for line in file if line.strip())
        torn = written - sum(1 for _ in read_json_lines(path))
        if torn:
            lines = "1 line" if torn == 1 else f"{torn:,} lines"
            found.append(f"{lines} of {path.name} cannot be read (torn by a kill) and are left out")
    return found
