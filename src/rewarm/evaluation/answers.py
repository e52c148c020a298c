"""Bits per byte of an answer given its question, with the boundary between them exact.

And the same less that given another's question: what the model takes from the question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from tokenizers import Tokenizer

from rewarm.evaluation.measure import Built, Floats, Measure
from rewarm.evaluation.passages import Framing, Passage
from rewarm.evaluation.selection import keyed_order
from rewarm.records.facts import Role

__all__ = [
    "ContinuedPrompt",
    "QuestionAnswer",
    "Template",
    "answer_bits_per_byte",
    "answer_contrast",
    "continuation_passages",
    "plain_tokenizer",
    "question_answer_text",
    "tokens_before",
]


class QuestionAnswer(NamedTuple):
    """A held-out question with its answer."""

    question: str
    answer: str


class ContinuedPrompt(NamedTuple):
    """A text in two parts: what is given, and what is scored. Joined, they are what is read."""

    prompt: str
    continuation: str

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of the continuation, all of which are scored."""
        return len(self.continuation.encode("utf-8"))


Template = Callable[[str, str], ContinuedPrompt]
"""(question, answer) → the prompt and its continuation."""


def question_answer_text(question: str, answer: str) -> ContinuedPrompt:
    """Return the text of a question with its answer; the space before the answer is scored too.

    >>> question_answer_text("Who?", "I.")
    ContinuedPrompt(prompt='Question: Who?\\nAnswer:', continuation=' I.')
    """
    return ContinuedPrompt(f"Question: {question}\nAnswer:", f" {answer}")


def answer_bits_per_byte(
    items: Sequence[QuestionAnswer],
    *,
    domain: str,
    role: Role,
    tokenizer: Tokenizer,
    framing: Framing,
    max_items: int,
    template: Template = question_answer_text,
) -> Built:
    """Return the measure Σ nats / (ln 2 · Σ UTF-8 bytes) of answers given their questions.

    Of more than `max_items` questions the first in keyed order are scored. Items whose answer is
    blank are left out, with a warning.
    """
    scored, warnings = _scored(items, domain, max_items)
    texts = [template(item.question, item.answer) for item in scored]
    if not texts:
        return Built(None, (*warnings, f"{domain}: no held-out answers"))
    measure = Measure(
        domain=domain,
        role=role,
        metric="answer_bits_per_byte",
        passages=continuation_passages(texts, tokenizer, framing),
        weights=tuple(text.num_bytes for text in texts),
        item_values=_identity,
    )
    return Built(measure, tuple(warnings))


def answer_contrast(
    items: Sequence[QuestionAnswer],
    *,
    domain: str,
    role: Role,
    tokenizer: Tokenizer,
    framing: Framing,
    max_items: int,
    template: Template = question_answer_text,
) -> Built:
    """Return the measure Σ (nats given the own question − nats given another's) / (ln 2 · Σ bytes).

    Below 0 as far as the model takes from the question what the answer is; a model that has merely
    learned what answers look like stays at 0. Items are those of `answer_bits_per_byte`, and each
    is given the question of the one half of them further on. Where a question occurs twice, the
    first further one that differs is taken; where all are alike there is nothing to measure.
    """
    scored, warnings = _scored(items, domain, max_items)
    others = _other_questions([item.question for item in scored])
    if others is None:
        return Built(None, (*warnings, f"{domain}: no two held-out questions that differ"))
    texts = [template(item.question, item.answer) for item in scored]
    others_texts = [
        template(question, item.answer) for question, item in zip(others, scored, strict=True)
    ]
    measure = Measure(
        domain=domain,
        role=role,
        metric="answer_contrast",
        passages=continuation_passages([*texts, *others_texts], tokenizer, framing),
        weights=tuple(text.num_bytes for text in texts),
        item_values=_first_half_less_second,
    )
    return Built(measure, tuple(warnings))


def _other_questions(questions: Sequence[str]) -> list[str] | None:
    """Return for each question one that differs, half of the list further on or the next such."""
    if len(set(questions)) < 2:
        return None
    num = len(questions)
    found = []
    for place, own in enumerate(questions):
        further = (questions[(place + num // 2 + more) % num] for more in range(num))
        found.append(next(question for question in further if question != own))
    return found


def _scored(
    items: Sequence[QuestionAnswer], domain: str, max_items: int
) -> tuple[list[QuestionAnswer], list[str]]:
    """Return the items that are scored, and what a person should know of the others."""
    order = keyed_order(len(items), "answers")
    answered = [items[index] for index in order if items[index].answer.strip()]
    left_out = len(items) - len(answered)
    warnings = [f"{domain}: blank answers, not scored: {left_out}"] if left_out else []
    return answered[:max_items], warnings


def _first_half_less_second(nats: Floats) -> Floats:
    half = len(nats) // 2
    return nats[:half] - nats[half:]


def _identity(nats: Floats) -> Floats:
    return nats


def continuation_passages(
    texts: Iterable[ContinuedPrompt], tokenizer: Tokenizer, framing: Framing
) -> tuple[Passage, ...]:
    """Return one passage per text: the whole text's tokens, of which the continuation's are scored.

    Prompt and continuation are encoded as one text, as they would stand in training; encoded apart
    and joined they could be tokens that the model never saw side by side. A token is the
    continuation's if its characters reach beyond the prompt. One that straddles the boundary is
    scored whole, while bytes are always those of the continuation alone: the figure can only be
    too high by it, and equally so for every model with this tokenizer.
    """
    listed = list(texts)
    encodings = plain_tokenizer(tokenizer).encode_batch(
        [text.prompt + text.continuation for text in listed], add_special_tokens=False
    )
    return tuple(
        framing.passage(encoding.ids, tokens_before(encoding.offsets, len(text.prompt)))
        for text, encoding in zip(listed, encodings, strict=True)
    )


def tokens_before(offsets: list[tuple[int, int]], boundary: int) -> int:
    """Return how many leading tokens end at or before a character position."""
    for position, (_, end) in enumerate(offsets):
        if end > boundary:
            return position
    return len(offsets)


def plain_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """Return the tokenizer without the truncation and padding that its file may ask for."""
    if tokenizer.truncation is None and tokenizer.padding is None:
        return tokenizer
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return plain
