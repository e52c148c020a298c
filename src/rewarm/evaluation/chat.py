"""What is kept of a chat format: assistant answers as the base's own template writes them.

An item is a conversation. Of each of its answers the tokens are scored up to and with the first
special token after it: that a tuned model ends its turn is part of the format. Its nats count, its
bytes do not, so the figure is a little above bits per byte of the text alone; at step 0 and later
alike.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rewarm.artifacts import parse_json
from rewarm.evaluation.answers import plain_tokenizer, tokens_before
from rewarm.evaluation.json_lines import is_text, read_items
from rewarm.evaluation.measure import Built, Floats, Measure
from rewarm.evaluation.passages import Passage
from rewarm.evaluation.selection import keyed_order
from rewarm.evaluation.statistics import least_items
from rewarm.records.facts import Role

__all__ = ["CHAT_DOMAIN", "Conversation", "Render", "chat_bits_per_byte", "read_conversations"]

CHAT_DOMAIN = "chat format"
"""No source can have this name, which holds a space."""

_SHAPE = (
    '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}, '
    "roles system, user, assistant"
)
_ROLES = ("system", "user", "assistant")

Conversation = tuple[Mapping[str, str], ...]
"""Messages, each with `role` and `content`."""

Render = Callable[[Conversation, bool], str]
"""(messages, whether an answer is to be begun) → the text as the template writes it.

Raises ValueError where the template refuses the messages.
"""


def read_conversations(path: Path, *, max_items: int | None = None) -> list[Conversation]:
    """Return the conversations of a JSONL file (.gz, .zst or plain), at most the first `max_items`.

    Raises CorpusError naming file and line of the first malformed ones, for a file that cannot be
    read, and for one without any.
    """
    return read_items(path, _parse, shape=_SHAPE, max_items=max_items)


def _parse(line: bytes) -> Conversation:
    value = parse_json(line)
    messages = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages is not a list of one or more")
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise ValueError(f"messages[{number}] has no role, or one that is not known")
        if not is_text(message.get("content")):
            raise ValueError(f"content of messages[{number}] is not a text")
    if not any(message["role"] == "assistant" for message in messages[1:]):
        raise ValueError("no message is the assistant's answer to one before it")
    return tuple({"role": m["role"], "content": m["content"]} for m in messages)


def chat_bits_per_byte(
    conversations: Sequence[Conversation],
    *,
    render: Render,
    tokenizer: Tokenizer,
    max_items: int,
    domain: str = CHAT_DOMAIN,
    role: Role = "general",
) -> Built:
    """Return the measure Σ nats / (ln 2 · Σ UTF-8 bytes) of answers in their conversations.

    `domain` and `role` are those of a source whose held-out conversations these are; otherwise they
    tell how the base's chat format is kept.

    Of more than `max_items` conversations the first in keyed order are scored. Answers that the
    template refuses, or does not put behind what stands before them, are left out with a warning.
    """
    order = keyed_order(len(conversations), "chat")[:max_items]
    plain = plain_tokenizer(tokenizer)
    special = frozenset(
        id_ for id_, token in plain.get_added_tokens_decoder().items() if token.special
    )
    answers = [
        [_answer(conversations[index], turn, render, plain, special) for turn in turns]
        for index in order
        if (turns := _turns(conversations[index]))
    ]
    scored = [[answer for answer in found if answer is not None] for found in answers]
    warnings = []
    num_lost = sum(len(found) for found in answers) - sum(len(found) for found in scored)
    if num_lost:
        warnings.append(
            f"{domain}: {num_lost} answers are not scored: the template refuses them, or does "
            "not write them behind what they answer"
        )
    scored = [found for found in scored if found]
    if not scored:
        return Built(None, (*warnings, f"{domain}: no answers to score"))
    if len(scored) < least_items():
        warnings.append(
            f"{domain}: {len(scored)} conversations; a verdict needs {least_items()}: "
            + ("give evaluation.chat more" if domain == CHAT_DOMAIN else "raise held_out")
        )
    item_of = np.repeat(np.arange(len(scored)), [len(found) for found in scored])
    measure = Measure(
        domain=domain,
        role=role,
        metric="chat_bits_per_byte",
        passages=tuple(answer.passage for found in scored for answer in found),
        weights=tuple(sum(answer.num_bytes for answer in found) for found in scored),
        item_values=functools.partial(_sum_by_item, item_of, len(scored)),
    )
    return Built(measure, tuple(warnings))


def _turns(conversation: Conversation) -> list[int]:
    """Return which messages are answers: the assistant's, but for one that begins."""
    return [k for k, message in enumerate(conversation) if k and message["role"] == "assistant"]


class _Answer(NamedTuple):
    passage: Passage
    num_bytes: int


def _answer(
    conversation: Conversation,
    turn: int,
    render: Render,
    tokenizer: Tokenizer,
    special: frozenset[int],
) -> _Answer | None:
    """Return message `turn` as what is scored after what stands before it; None where it is not."""
    try:
        text = render(conversation[: turn + 1], False)
        prompts = (render(conversation[:turn], begun) for begun in (True, False))
        prompt = next((prompt for prompt in prompts if text.startswith(prompt)), None)
    except ValueError:
        return None
    if prompt is None:
        return None
    encoding = tokenizer.encode(text, add_special_tokens=False)
    start = tokens_before(encoding.offsets, len(prompt))
    end = next((k for k in range(start, len(encoding.ids)) if encoding.ids[k] in special), None)
    answer_ends = len(text) if end is None else encoding.offsets[end][0]
    num_bytes = len(text[len(prompt) : answer_ends].encode("utf-8"))
    if start == 0 or num_bytes == 0:
        return None
    ids = np.array(encoding.ids[: None if end is None else end + 1], dtype=np.int64)
    return _Answer(Passage(ids, start), num_bytes)


def _sum_by_item(item_of: NDArray[np.int64], num_items: int, nats: Floats) -> Floats:
    """Return the nats of each conversation's answers together."""
    sums: Floats = np.bincount(item_of, weights=nats, minlength=num_items).astype(np.float64)
    return sums
