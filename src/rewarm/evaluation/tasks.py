"""Local multiple-choice tasks: JSON lines of question, choices and the index of the right one."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from rewarm.artifacts import parse_json
from rewarm.evaluation.answers import Template, continuation_passages, question_answer_text
from rewarm.evaluation.json_lines import is_text, read_items
from rewarm.evaluation.measure import Built, Floats, Measure, share_of_best
from rewarm.evaluation.passages import Framing

__all__ = ["TaskItem", "multiple_choice", "read_task"]

_SHAPE = '{"question": "…", "choices": ["…", "…"], "answer": 0}, answer counting from 0'


class TaskItem(NamedTuple):
    """A question, its choices, and the index of the right one."""

    question: str
    choices: tuple[str, ...]
    answer: int


def read_task(path: Path, *, max_items: int | None = None) -> list[TaskItem]:
    """Return the items of a JSONL file (.gz, .zst or plain), at most the first `max_items`.

    Blank lines are skipped. Raises CorpusError naming file and line of the first malformed items,
    for a file that cannot be read, and for one without items.
    """
    return read_items(path, _parse_item, shape=_SHAPE, max_items=max_items)


def multiple_choice(
    items: Sequence[TaskItem],
    *,
    domain: str,
    tokenizer: Tokenizer,
    framing: Framing,
    template: Template = question_answer_text,
) -> Built:
    """Return the accuracy of choosing by likelihood.

    A choice scores log p(" " + choice | "Question: … Answer:") divided by the UTF-8 bytes of
    " " + choice, so that long choices are not at a disadvantage. Ties share the point. Chance is
    the mean of 1/number of choices. Items with a choice that the tokenizer drops are left out,
    with a warning.
    """
    texts = [[template(item.question, choice) for choice in item.choices] for item in items]
    passages = iter(continuation_passages(itertools.chain(*texts), tokenizer, framing))
    by_item = [tuple(itertools.islice(passages, len(item.choices))) for item in items]
    kept = [
        (item, row, group)
        for item, row, group in zip(items, texts, by_item, strict=True)
        if all(passage.num_scored for passage in group)
    ]
    warnings: tuple[str, ...] = ()
    if len(kept) < len(items):
        warnings = (f"{domain}: items with choices without tokens: {len(items) - len(kept)}",)
    if not kept:
        return Built(None, warnings)
    answers = tuple(item.answer for item, _, _ in kept)
    num_bytes = tuple(np.array([text.num_bytes for text in row]) for _, row, _ in kept)
    measure = Measure(
        domain=domain,
        role="task",
        metric="multiple_choice",
        passages=tuple(passage for _, _, group in kept for passage in group),
        weights=(1,) * len(kept),
        item_values=functools.partial(_choice_values, num_bytes, answers),
        chance=sum(1.0 / len(item.choices) for item, _, _ in kept) / len(kept),
    )
    return Built(measure, warnings)


def _choice_values(num_bytes: tuple[Floats, ...], answers: tuple[int, ...], nats: Floats) -> Floats:
    """Return 1 (shared in ties) for every item whose answer has the fewest nats per byte."""
    ends = np.cumsum([len(row) for row in num_bytes])
    nats_by_item = np.split(nats, ends[:-1])
    return np.array(
        [
            share_of_best(-row / sizes, answer)
            for row, sizes, answer in zip(nats_by_item, num_bytes, answers, strict=True)
        ]
    )


def _parse_item(line: bytes) -> TaskItem:
    """Return the item on a line; ValueError saying what is wrong with it."""
    value = parse_json(line)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    question, choices, answer = (value.get(key) for key in ("question", "choices", "answer"))
    if not is_text(question):
        raise ValueError("question is not a text")
    if not isinstance(choices, list) or len(choices) < 2:
        raise ValueError("choices is not a list of two or more")
    if not all(is_text(choice) for choice in choices):
        raise ValueError("a choice is not a text")
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise ValueError(f"answer is {answer!r}, not the index of one of {len(choices)} choices")
    return TaskItem(str(question), tuple(choices), answer)
