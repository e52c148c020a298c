"""What a plan measures: its held-out views, answers and tasks, as one evaluation suite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tokenizers import Tokenizer

from rewarm.corpus.prepare import HELD_OUT_CHATS, read_held_out_answers
from rewarm.corpus.tokenize import tokenizer_fingerprint
from rewarm.corpus.views import open_view
from rewarm.errors import BaseModelError
from rewarm.evaluation.answers import QuestionAnswer, answer_bits_per_byte, answer_contrast
from rewarm.evaluation.chat import (
    CHAT_DOMAIN,
    Conversation,
    chat_bits_per_byte,
    read_conversations,
)
from rewarm.evaluation.chat_turns import BUILT_IN_CONVERSATIONS
from rewarm.evaluation.held_out import bits_per_byte, matched_continuation
from rewarm.evaluation.measure import Built
from rewarm.evaluation.passages import Framing
from rewarm.evaluation.suite import EvaluationSuite, build_suite
from rewarm.evaluation.tasks import (
    cloze,
    cloze_bits_per_byte,
    minimal_pairs,
    multiple_choice,
    read_cloze,
    read_pairs,
    read_task,
)
from rewarm.model.chat_template import chat_renderer
from rewarm.planning.plan import Plan
from rewarm.recipe.records import TaskRecipe
from rewarm.records.facts import LOSS_METRICS, CorpusFacts

__all__ = ["PlannedSuites", "suite_of", "suites_of"]


@dataclass(frozen=True, slots=True)
class PlannedSuites:
    """What is measured at which step: all of it at both ends, in between what the plan says."""

    full: EvaluationSuite
    light: EvaluationSuite
    num_steps: int

    def at(self, step: int) -> EvaluationSuite:
        """Return what to measure after `step` updates."""
        return self.full if step in (0, self.num_steps) else self.light


def suites_of(plan: Plan) -> PlannedSuites:
    """Return what a run of this plan measures; see `suite_of`."""
    full = suite_of(plan)
    if plan.conduct.evaluation.choices_every_evaluation:
        return PlannedSuites(full, full, plan.science.num_steps)
    losses = tuple(
        batched
        for batched in full.measures
        if batched.measure.metric in LOSS_METRICS and batched.measure.role != "task"
    )
    return PlannedSuites(full, replace(full, measures=losses), plan.science.num_steps)


def suite_of(plan: Plan) -> EvaluationSuite:
    """Return everything that an evaluation of this plan measures, ready to run.

    Raises CorpusError for a task that cannot be read.
    """
    return build_suite(
        _measures(plan),
        sequence_length=plan.science.sequence_length,
        stride_fraction=plan.conduct.evaluation.stride_fraction,
    )


def _measures(plan: Plan) -> Iterator[Built]:
    wanted = plan.conduct.evaluation
    tokenizer = _tokenizer_of(plan)
    for corpus in plan.conduct.corpora.values():
        yield from _of_source(plan, corpus, tokenizer)
    if plan.conduct.model.has_chat_template:
        yield _of_chat_format(plan, tokenizer)
    if not wanted.tasks:
        return
    framing = _framing(next(iter(plan.conduct.corpora.values())))
    for name, task in wanted.tasks.items():
        path = Path(plan.conduct.recipe_folder) / task.path
        yield from _of_task(task, path, domain=name, tokenizer=tokenizer, framing=framing)


def _of_task(
    task: TaskRecipe, path: Path, *, domain: str, tokenizer: Tokenizer, framing: Framing
) -> Iterator[Built]:
    if task.kind == "cloze":
        items = read_cloze(path, max_items=task.max_items)
        yield cloze(items, domain=domain, tokenizer=tokenizer, framing=framing)
        yield cloze_bits_per_byte(items, domain=domain, tokenizer=tokenizer, framing=framing)
    elif task.kind == "minimal-pairs":
        pairs = read_pairs(path, max_items=task.max_items)
        yield minimal_pairs(pairs, domain=domain, tokenizer=tokenizer, framing=framing)
    else:
        questions = read_task(path, max_items=task.max_items)
        yield multiple_choice(
            questions,
            domain=domain,
            tokenizer=tokenizer,
            framing=framing,
            normalise=task.normalise,
        )


def _tokenizer_of(plan: Plan) -> Tokenizer:
    path = Path(plan.conduct.base_folder) / "tokenizer.json"
    if not path.is_file():
        raise BaseModelError.one(
            str(path),
            f"it is not there any more, and {plan.name} was planned with it",
            "restore the base where it was, or plan a run of another name from a base elsewhere",
        )
    found = tokenizer_fingerprint(path.parent)
    if found != plan.science.tokenizer:
        raise BaseModelError.one(
            str(path),
            f"it changed since the plan ({plan.science.tokenizer[:12]} then, {found[:12]} now)",
            "restore the base's own tokenizer.json",
        )
    return Tokenizer.from_file(str(path))


def _of_source(plan: Plan, corpus: CorpusFacts, tokenizer: Tokenizer) -> Iterator[Built]:
    wanted = plan.conduct.evaluation
    if not corpus.held_out_documents:
        return
    view = open_view(corpus, held_out=True)
    framing = _framing(corpus)
    yield bits_per_byte(
        view,
        domain=corpus.name,
        role=corpus.role,
        framing=framing,
        max_bytes=wanted.max_bytes_per_domain,
    )
    answers = list(read_held_out_answers(Path(corpus.folder)))
    if answers:
        for measured in (
            answer_bits_per_byte,
            *([answer_contrast] if wanted.answer_contrast else []),
        ):
            yield measured(
                [QuestionAnswer(item.question, item.answer) for item in answers],
                domain=corpus.name,
                role=corpus.role,
                tokenizer=tokenizer,
                framing=framing,
                max_items=wanted.max_answers,
            )
    elif corpus.num_label_tokens is not None:
        yield _of_conversations(plan, corpus, tokenizer)
    elif wanted.matched_continuation_items:
        yield matched_continuation(
            view,
            domain=corpus.name,
            role=corpus.role,
            framing=framing,
            num_items=wanted.matched_continuation_items,
            sequence_length=plan.science.sequence_length,
        )


def _of_conversations(plan: Plan, corpus: CorpusFacts, tokenizer: Tokenizer) -> Built:
    """Return what measures the answers of a source's held-out conversations, as they are trained
    on; raises CorpusError where these, or the template, cannot be read."""
    path = Path(corpus.folder) / HELD_OUT_CHATS
    if not path.is_file() or not path.stat().st_size:
        return Built(None, (f"{corpus.name}: no held-out conversation that can be scored",))
    try:
        render = chat_renderer(Path(plan.conduct.base_folder))
    except ValueError as error:
        return Built(None, (f"{corpus.name}: its answers are not measured, {error}",))
    return chat_bits_per_byte(
        read_conversations(path),
        render=render,
        tokenizer=tokenizer,
        max_items=plan.conduct.evaluation.max_answers,
        domain=corpus.name,
        role=corpus.role,
    )


def _of_chat_format(plan: Plan, tokenizer: Tokenizer) -> Built:
    """Return what measures how a tuned base's chat format is kept; nothing, said, if it cannot be.

    Raises CorpusError where the recipe names messages that cannot be read.
    """
    wanted = plan.conduct.evaluation
    conversations: Sequence[Conversation] = BUILT_IN_CONVERSATIONS
    if wanted.chat is not None:
        conversations = read_conversations(Path(plan.conduct.recipe_folder) / wanted.chat)
    try:
        render = chat_renderer(Path(plan.conduct.base_folder))
    except ValueError as error:
        return Built(None, (f"{CHAT_DOMAIN}: not measured, {error}",))
    return chat_bits_per_byte(
        conversations, render=render, tokenizer=tokenizer, max_items=wanted.max_answers
    )


def _framing(corpus: CorpusFacts) -> Framing:
    return Framing(corpus.begin_token_ids, corpus.end_token_ids, corpus.all_framed)
