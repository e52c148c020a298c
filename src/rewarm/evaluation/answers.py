"""Bits per byte of an answer given its question, with the boundary between them exact."""

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
    order = keyed_order(len(items), "answers")
    answered = [items[index] for index in order if items[index].answer.strip()]
    warnings = []
    if len(answered) < len(items):
        warnings.append(f"{domain}: blank answers, not scored: {len(items) - len(answered)}")
    texts = [template(item.question, item.answer) for item in answered[:max_items]]
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
