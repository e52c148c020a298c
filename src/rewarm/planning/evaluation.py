"""What evaluation costs, by domain and measure, and how it is brought under a cap.

Costs are counted in positions that run through the model forward only, each a third of what a token
costs in training. They are estimates from the corpora's facts and the tasks' bytes; tasks of
lm-evaluation-harness are not known before they are loaded, and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from rewarm.planning.cadence import evaluation_steps
from rewarm.planning.notes import Notes
from rewarm.planning.plan import PlannedMeasure
from rewarm.recipe.records import EvaluationRecipe
from rewarm.recipe.schema import Recipe
from rewarm.records.facts import CorpusFacts
from rewarm.units import counted, format_bytes

__all__ = ["PlannedEvaluation", "plan_evaluation"]

_DEFAULT_EVALUATIONS = 20
_LEAST_BYTES = 16_384
"""Held-out text per domain below which a figure says little: no cap goes further down."""
_CONTEXT, _CONTINUATION, _CHOICES = 48, 24, 4  # tokens and choices of a matched continuation
_MUCH = 0.25
_SHORT_RUN_TOKENS = 30e6
"""Forward positions of a run of 10 million tokens: below that nobody waits for evaluations."""
_TOKENS_PER_BYTE = 0.3  # of tasks, where no held-out text tells it


class PlannedEvaluation(NamedTuple):
    """What is measured at which steps, and what that costs in forward positions."""

    recipe: EvaluationRecipe
    steps: tuple[int, ...]
    measures: tuple[PlannedMeasure, ...]

    @property
    def num_tokens(self) -> int:
        """Positions of all evaluations of the run."""
        return sum(measure.tokens * measure.times for measure in self.measures)


def plan_evaluation(
    recipe: Recipe,
    corpora: Mapping[str, CorpusFacts],
    task_bytes: Mapping[str, int],
    *,
    num_steps: int,
    sequence_length: int,
    other_tokens: float,
    notes: Notes,
) -> PlannedEvaluation:
    """Return what is measured when; less of it where the recipe caps its share of the compute.

    `corpora` are the recipe's sources, and those of a run that it goes on with. `other_tokens` is
    the rest of the run's compute in forward positions. Under a cap evaluation is
    first done less often, then on less text; what has become of it is among the reasons, and what
    does not fit even so is a problem.
    """
    planner = _Planner(recipe, corpora, task_bytes, num_steps, sequence_length)
    wanted = recipe.evaluation
    every = wanted.every_steps or max(1, num_steps // _DEFAULT_EVALUATIONS)
    max_bytes = wanted.max_bytes_per_domain
    found = planner.planned(every, max_bytes)
    if wanted.max_share is None:
        return found
    budget = wanted.max_share / (1 - wanted.max_share) * other_tokens
    if found.num_tokens <= budget:
        return found
    rarer, less = planner.fitted(every, max_bytes, budget)
    capped = planner.planned(rarer, less)
    share = capped.num_tokens / (capped.num_tokens + other_tokens)
    if capped.num_tokens > budget:
        notes.problems.add(
            "evaluation.max_share",
            f"evaluation at its least ({counted(len(capped.steps), 'time')}, {format_bytes(less)} a"
            f" domain) still takes {share:.1%} of the run's compute, above {wanted.max_share:.1%}",
            "raise it, lower max_items of the tasks, or evaluate fewer domains",
        )
        return found
    told = [f"{len(capped.steps)} instead of {counted(len(found.steps), 'evaluation')}"]
    if less < max_bytes:
        told.append(f"{format_bytes(less)} instead of {format_bytes(max_bytes)} of text a domain")
    notes.because(
        "evaluation.max_share",
        f"{wanted.max_share:g}",
        f"{', '.join(told)}: evaluation takes {share:.1%} of the run's compute",
    )
    return capped._replace(recipe=capped.recipe.model_copy(update={"every_steps": rarer}))


def warn_of_cost(recipe: Recipe, planned: PlannedEvaluation, other_tokens: float) -> list[str]:
    """Return a warning where nothing caps an evaluation that takes much of a run of some length.

    `other_tokens` is as in `plan_evaluation`.
    """
    share = planned.num_tokens / max(planned.num_tokens + other_tokens, 1)
    is_long = other_tokens > _SHORT_RUN_TOKENS
    if recipe.evaluation.max_share is not None or share < _MUCH or not is_long:
        return []
    return [
        f"evaluation takes {share:.0%} of the run's compute; evaluation.max_share caps it, e.g. at "
        "0.1"
    ]


@dataclass(frozen=True, slots=True)
class _Planner:
    recipe: Recipe
    corpora: Mapping[str, CorpusFacts]
    task_bytes: Mapping[str, int]
    num_steps: int
    sequence_length: int

    def planned(self, every: int, max_bytes: int) -> PlannedEvaluation:
        """Return the evaluation every so many steps, on so much text per domain."""
        steps = evaluation_steps(self.num_steps, every)
        wanted = self.recipe.evaluation.model_copy(update={"max_bytes_per_domain": max_bytes})
        of_losses = len(steps)
        of_choices = of_losses if wanted.choices_every_evaluation else min(2, of_losses)
        measures = [
            PlannedMeasure(domain=domain, what=what, tokens=round(tokens), times=of_losses)
            for domain, what, tokens in self._losses(wanted)
        ]
        measures += [
            PlannedMeasure(domain=domain, what=what, tokens=round(tokens), times=of_choices)
            for domain, what, tokens in self._choices(wanted)
        ]
        measures += [
            PlannedMeasure(domain=name, what="lm-evaluation-harness", tokens=0, times=of_choices)
            for name in wanted.harness.tasks
        ]
        return PlannedEvaluation(wanted, steps, tuple(measures))

    def fitted(self, every: int, max_bytes: int, budget: float) -> tuple[int, int]:
        """Return how often and on how much text costs no more than the budget, or the least."""
        while every < self.num_steps and self.planned(every, max_bytes).num_tokens > budget:
            every = min(self.num_steps, max(every + 1, every * 9 // 8))
        low, high = min(_LEAST_BYTES, max_bytes), max_bytes
        if self.planned(every, high).num_tokens <= budget:
            return every, high
        while high - low > 1024:
            middle = (low + high) // 2
            if self.planned(every, middle).num_tokens <= budget:
                low = middle
            else:
                high = middle
        return every, low

    def _losses(self, wanted: EvaluationRecipe) -> Iterator[tuple[str, str, float]]:
        """Yield (domain, what, forward positions) of what every evaluation measures."""
        for name, corpus in self.corpora.items():
            if not corpus.held_out_documents or not corpus.held_out_bytes:
                continue
            scored = min(corpus.held_out_bytes, wanted.max_bytes_per_domain)
            tokens = scored * corpus.held_out_tokens / corpus.held_out_bytes
            # Only documents longer than a window are read through windows that overlap.
            is_long = corpus.held_out_tokens / corpus.held_out_documents > self.sequence_length
            yield name, "held-out text", tokens / (wanted.stride_fraction if is_long else 1.0)
            if self._has_answers(name):
                part = min(1.0, wanted.max_answers / corpus.held_out_documents)
                yield name, "answers", part * corpus.held_out_tokens
                if wanted.answer_contrast and self._has_questions(name):
                    yield name, "answer contrast", 2 * part * corpus.held_out_tokens

    def _has_answers(self, name: str) -> bool:
        return self.corpora[name].num_label_tokens is not None or self._has_questions(name)

    def _has_questions(self, name: str) -> bool:
        source = self.recipe.sources.get(name)
        if source is not None:
            return source.question_field is not None
        # Of a run that is gone on with the facts alone are known.
        corpus = self.corpora[name]
        return corpus.role == "qa" and corpus.num_label_tokens is None

    def _choices(self, wanted: EvaluationRecipe) -> Iterator[tuple[str, str, float]]:
        """Yield the same of what the first and last evaluation measure beside that."""
        fits = self.sequence_length + 1 >= 1 + _CONTEXT + _CONTINUATION
        for name, corpus in self.corpora.items():
            items = min(wanted.matched_continuation_items, corpus.held_out_documents)
            if fits and items >= _CHOICES and not self._has_answers(name):
                each = _CHOICES * (1 + _CONTEXT + _CONTINUATION) + 1 + _CONTINUATION
                yield name, "matched continuation", items * each
        for name, num_bytes in self.task_bytes.items():
            yield name, wanted.tasks[name].kind, num_bytes * self._tokens_per_byte()

    def _tokens_per_byte(self) -> float:
        num_bytes = sum(corpus.held_out_bytes for corpus in self.corpora.values())
        num_tokens = sum(corpus.held_out_tokens for corpus in self.corpora.values())
        return num_tokens / num_bytes if num_bytes else _TOKENS_PER_BYTE
