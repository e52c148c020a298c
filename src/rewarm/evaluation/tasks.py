"""Local tasks from JSON lines: multiple choice, cloze (a text's last words), minimal pairs."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from rewarm.artifacts import parse_json
from rewarm.evaluation.answers import (
    ContinuedPrompt,
    Template,
    continuation_passages,
    plain_tokenizer,
    question_answer_text,
)
from rewarm.evaluation.json_lines import is_text, read_items
from rewarm.evaluation.measure import Built, Floats, Measure, share_of_best
from rewarm.evaluation.passages import Framing, Passage

__all__ = [
    "ClozeItem",
    "MinimalPair",
    "Normalisation",
    "TaskItem",
    "choice_texts",
    "cloze",
    "cloze_bits_per_byte",
    "cloze_texts",
    "minimal_pairs",
    "multiple_choice",
    "pair_texts",
    "read_cloze",
    "read_pairs",
    "read_task",
]

Normalisation = Literal["bytes", "tokens", "none", "unconditional"]
"""What a choice's log-likelihood is held against: see `multiple_choice`."""

_SHAPE = '{"question": "…", "choices": ["…", "…"], "answer": 0}, answer counting from 0'
_CLOZE_SHAPE = '{"text": "…", "target": "…"}, with a space between them when they are read'
_PAIR_SHAPE = '{"good": "…", "bad": "…"}'


class TaskItem(NamedTuple):
    """A question, its choices, and the index of the right one."""

    question: str
    choices: tuple[str, ...]
    answer: int


class ClozeItem(NamedTuple):
    """A text, and the words that it goes on with."""

    text: str
    target: str


class MinimalPair(NamedTuple):
    """Two sentences that differ in little, of which one is well formed."""

    good: str
    bad: str


def read_task(path: Path, *, max_items: int | None = None) -> list[TaskItem]:
    """Return the items of a JSONL file (.gz, .zst or plain), at most the first `max_items`.

    Blank lines are skipped. Raises CorpusError naming file and line of the first malformed items,
    for a file that cannot be read, and for one without items.
    """
    return read_items(path, _parse_item, shape=_SHAPE, max_items=max_items)


def read_cloze(path: Path, *, max_items: int | None = None) -> list[ClozeItem]:
    """Return the items of a JSONL file of texts and their last words; otherwise as `read_task`."""
    return read_items(path, _parse_cloze, shape=_CLOZE_SHAPE, max_items=max_items)


def read_pairs(path: Path, *, max_items: int | None = None) -> list[MinimalPair]:
    """Return the pairs of a JSONL file of good and bad sentences; otherwise as `read_task`."""
    return read_items(path, _parse_pair, shape=_PAIR_SHAPE, max_items=max_items)


def multiple_choice(
    items: Sequence[TaskItem],
    *,
    domain: str,
    tokenizer: Tokenizer,
    framing: Framing,
    template: Template = question_answer_text,
    normalise: Normalisation = "bytes",
) -> Built:
    """Return the accuracy of choosing by likelihood.

    With s = log p(" " + choice | "Question: … Answer:") a choice scores

        bytes          s / UTF-8 bytes of " " + choice: long ones are not at a disadvantage
        tokens         s / its tokens
        none           s
        unconditional  s − log p(" " + choice | "Answer:"): what is likely anywhere gains nothing

    Ties share the point. Chance is the mean of 1/number of choices. Items with a choice that the
    tokenizer drops are left out, with a warning.
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
    conditional = tuple(passage for _, _, group in kept for passage in group)
    alone: tuple[Passage, ...] = ()
    if normalise == "unconditional":
        bare = (ContinuedPrompt("Answer:", text.continuation) for _, row, _ in kept for text in row)
        alone = continuation_passages(bare, tokenizer, framing)
    measure = Measure(
        domain=domain,
        role="task",
        metric="multiple_choice",
        passages=(*conditional, *alone),
        weights=(1,) * len(kept),
        item_values=functools.partial(_choice_values, _lengths(kept, normalise), answers),
        chance=sum(1.0 / len(item.choices) for item, _, _ in kept) / len(kept),
    )
    return Built(measure, warnings)


_Kept = list[tuple[TaskItem, list[ContinuedPrompt], tuple[Passage, ...]]]


def _lengths(kept: _Kept, normalise: Normalisation) -> tuple[Floats, ...]:
    """Return what each choice's nats are divided by, an array per item."""
    if normalise == "bytes":
        return tuple(np.array([float(text.num_bytes) for text in row]) for _, row, _ in kept)
    if normalise == "tokens":
        return tuple(np.array([float(p.num_scored) for p in group]) for _, _, group in kept)
    return tuple(np.ones(len(row)) for _, row, _ in kept)


def _choice_values(lengths: tuple[Floats, ...], answers: tuple[int, ...], nats: Floats) -> Floats:
    """Return 1 (shared in ties) for every item whose answer has the fewest nats per length.

    Where there are twice as many passages as choices, the second half are the choices alone.
    """
    ends = np.cumsum([len(row) for row in lengths])
    if len(nats) > ends[-1]:
        nats = nats[: ends[-1]] - nats[ends[-1] :]
    nats_by_item = np.split(nats, ends[:-1])
    return np.array(
        [
            share_of_best(-row / sizes, answer)
            for row, sizes, answer in zip(nats_by_item, lengths, answers, strict=True)
        ]
    )


def choice_texts(items: Sequence[TaskItem], *, normalise: Normalisation) -> Iterator[str]:
    """Yield every text that the choices of these questions run through a model."""
    for item in items:
        for choice in item.choices:
            yield "".join(question_answer_text(item.question, choice))
            if normalise == "unconditional":
                yield f"Answer: {choice}"


def cloze_texts(items: Sequence[ClozeItem]) -> Iterator[str]:
    """Yield every text that cloze items run through a model: whether right, and how likely."""
    return itertools.chain.from_iterable(["".join(text)] * 2 for text in _cloze_texts(items))


def pair_texts(pairs: Sequence[MinimalPair]) -> Iterator[str]:
    """Yield every text that minimal pairs run through a model."""
    return itertools.chain.from_iterable(pairs)


def _cloze_texts(items: Sequence[ClozeItem]) -> list[ContinuedPrompt]:
    return [ContinuedPrompt(item.text.rstrip(), f" {item.target.strip()}") for item in items]


def cloze(
    items: Sequence[ClozeItem], *, domain: str, tokenizer: Tokenizer, framing: Framing
) -> Built:
    """Return how often a model would write the target: every token of it is the likeliest one.

    That is what greedy decoding gives, as in LAMBADA. Items whose target the tokenizer drops are
    left out, with a warning. Chance is taken for 0.
    """
    passages = [
        passage
        for passage in continuation_passages(_cloze_texts(items), tokenizer, framing)
        if passage.num_scored
    ]
    warnings: tuple[str, ...] = ()
    if len(passages) < len(items):
        warnings = (f"{domain}: items whose target has no tokens: {len(items) - len(passages)}",)
    if not passages:
        return Built(None, warnings)
    measure = Measure(
        domain=domain,
        role="task",
        metric="cloze",
        passages=tuple(passages),
        weights=(1,) * len(passages),
        item_values=_without_miss,
        chance=0.0,
        counts="misses",
    )
    return Built(measure, warnings)


def _without_miss(misses: Floats) -> Floats:
    values: Floats = np.where(misses == 0, 1.0, 0.0)
    return values


def cloze_bits_per_byte(
    items: Sequence[ClozeItem], *, domain: str, tokenizer: Tokenizer, framing: Framing
) -> Built:
    """Return the bits per byte of the targets given their texts: signal where `cloze` has none."""
    texts = _cloze_texts(items)
    scored = [
        (passage, text.num_bytes)
        for passage, text in zip(
            continuation_passages(texts, tokenizer, framing), texts, strict=True
        )
        if passage.num_scored
    ]
    if not scored:
        return Built(None)
    measure = Measure(
        domain=domain,
        role="task",
        metric="answer_bits_per_byte",
        passages=tuple(passage for passage, _ in scored),
        weights=tuple(size for _, size in scored),
        item_values=_identity,
    )
    return Built(measure)


def _identity(nats: Floats) -> Floats:
    return nats


def minimal_pairs(
    pairs: Sequence[MinimalPair], *, domain: str, tokenizer: Tokenizer, framing: Framing
) -> Built:
    """Return how often the good sentence of a pair is the likelier one, as a whole (BLiMP).

    Both are framed as documents are, up to their end, which is not scored. Ties count a half.
    """
    sentences = [text for pair in pairs for text in (pair.good, pair.bad)]
    encodings = plain_tokenizer(tokenizer).encode_batch(sentences, add_special_tokens=False)
    passages = [framing.passage(encoding.ids) for encoding in encodings]
    both = zip(passages[::2], passages[1::2], strict=True)
    kept = [(good, bad) for good, bad in both if good.num_scored and bad.num_scored]
    warnings: tuple[str, ...] = ()
    if len(kept) < len(pairs):
        warnings = (f"{domain}: pairs with a sentence without tokens: {len(pairs) - len(kept)}",)
    if not kept:
        return Built(None, warnings)
    measure = Measure(
        domain=domain,
        role="task",
        metric="minimal_pairs",
        passages=tuple(passage for pair in kept for passage in pair),
        weights=(1,) * len(kept),
        item_values=_pair_values,
        chance=0.5,
    )
    return Built(measure, warnings)


def _pair_values(nats: Floats) -> Floats:
    """Return 1 where the first of two passages has fewer nats, ½ where they have equally many."""
    good, bad = nats[::2], nats[1::2]
    values: Floats = np.where(good < bad, 1.0, np.where(good == bad, 0.5, 0.0))
    return values


def _parse_cloze(line: bytes) -> ClozeItem:
    return ClozeItem(*_texts_of(line, "text", "target"))


def _parse_pair(line: bytes) -> MinimalPair:
    pair = MinimalPair(*_texts_of(line, "good", "bad"))
    if pair.good == pair.bad:
        raise ValueError("good and bad are the same sentence")
    return pair


def _texts_of(line: bytes, *keys: str) -> list[str]:
    """Return the texts under these keys of a line's object; ValueError where one is missing."""
    value = parse_json(line)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    for key in keys:
        if not is_text(value.get(key)):
            raise ValueError(f"{key} is not a text")
    return [str(value[key]) for key in keys]


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
    # Wrong choices may be alike, as in some of ARC's questions.
    if choices.count(choices[answer]) > 1:
        raise ValueError("the answer's text stands among the wrong choices too")
    return TaskItem(str(question), tuple(choices), answer)
