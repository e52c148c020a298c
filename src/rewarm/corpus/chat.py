"""Conversations to tokens by the base's own chat template; only answers are trained on.

Which characters are an answer the template says itself where it has {% generation %} marks.
Otherwise the conversation is written up to each answer and up to behind it: the answer is what the
second adds to the first, up to and with the first special token behind what was said (that a turn
ends is part of the answer, the line feed after it is not). That holds only where each is how the
whole begins; a template that rewrites what went before (say, drops earlier thoughts) is refused for
such conversations rather than guessed at.

A token is an answer's where one of its characters is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from rewarm.corpus.documents import Encoded, Refused
from rewarm.corpus.records import Document
from rewarm.corpus.tokenize import DocumentFrame, Encoder, check_ids

__all__ = ["ChatEncoder", "ChatTemplate", "OpenChat"]


class ChatTemplate(Protocol):
    """How a base writes messages (`role`, `content`); what it refuses is a ValueError."""

    @property
    def marks_answers(self) -> bool:
        """Whether it says itself which characters are answers."""
        ...

    def __call__(self, messages: Sequence[Mapping[str, str]], begin_answer: bool, /) -> str:
        """Return the text of messages, with `begin_answer` up to where an answer would begin."""
        ...

    def marked(self, messages: Sequence[Mapping[str, str]], /) -> tuple[str, list[tuple[int, int]]]:
        """Return the text of messages and the characters [first, last) of each marked answer."""
        ...


OpenChat = Callable[[Path], ChatTemplate]
"""Opens the template of a base's folder; raises ValueError where it cannot be loaded."""


class _Answer(NamedTuple):
    """Characters [first, last) of an answer with what closes its turn; what was said ends at
    `said_until`, or None where the template says exactly what counts."""

    first: int
    last: int
    said_until: int | None


class _Written(NamedTuple):
    text: str
    answers: list[_Answer]


class ChatEncoder:
    """Documents are conversations as a template writes them, without a frame around that."""

    def __init__(self, encoder: Encoder, template: ChatTemplate) -> None:
        self._encoder = encoder
        self._template = template
        # A copy that knows special tokens by their names: the template writes them.
        self._tokenizer = Tokenizer.from_str(encoder.tokenizer.to_str())
        self._tokenizer.encode_special_tokens = False
        added = self._tokenizer.get_added_tokens_decoder().values()
        self._special_names = tuple(token.content for token in added if token.special)

    @property
    def frame(self) -> DocumentFrame:
        """What the base's documents begin and end with; conversations need not."""
        return self._encoder.frame

    @property
    def vocab_size(self) -> int:
        """Ids that the model has embeddings for."""
        return self._encoder.vocab_size

    def encode(self, documents: Sequence[Document], /) -> Iterator[Encoded | Refused]:
        """Yield the tokens of each conversation and which are its answers'; see the head of this
        file for what is refused."""
        written = [self._write(document) for document in documents]
        texts = [one.text for one in written if not isinstance(one, str)]
        encodings = iter(self._tokenizer.encode_batch(texts, add_special_tokens=False))
        for document, one in zip(documents, written, strict=True):
            if isinstance(one, str):
                yield Refused(document, one)
                continue
            encoding = next(encodings)
            tokens = np.array(encoding.ids, dtype=np.int64)
            check_ids(tokens, self.vocab_size)
            counted = self._counted(encoding, tokens, one.answers)
            if counted.any():
                yield Encoded(replace(document, text=one.text), tokens, counted)
            else:
                yield Refused(document, "no_answer")

    def _write(self, document: Document) -> _Written | str:
        """Return a conversation's text with its answers, or why it cannot be written."""
        messages = document.messages
        if any(name in message["content"] for message in messages for name in self._special_names):
            return "special_token"
        try:
            if self._template.marks_answers:
                text, spans = self._template.marked(messages)
                return _Written(text, [_Answer(first, last, None) for first, last in spans])
            return self._by_prefixes(document)
        except ValueError:
            return "template_refuses"

    def _by_prefixes(self, document: Document) -> _Written | str:
        messages = document.messages
        whole = self._template(messages, False)
        spoken = self._without_special_tokens(whole)
        answers = []
        for turn, message in enumerate(messages):
            if message["role"] != "assistant" or turn == 0:
                continue
            before = self._template(messages[:turn], True)
            behind = self._template(messages[: turn + 1], False)
            if not behind.startswith(before) or not whole.startswith(behind):
                return "not_a_prefix"
            said = message["content"].strip()
            found = spoken.rfind(said, len(before), len(behind)) if said else -1
            said_until = len(before) if found < 0 else found + len(said)
            answers.append(_Answer(len(before), len(behind), said_until))
        return _Written(whole, answers)

    def _without_special_tokens(self, text: str) -> str:
        """Return a text with NUL, which nobody says, for each character of its special tokens: an
        answer such as "end" is not looked for within <|im_end|>."""
        for name in self._special_names:
            text = text.replace(name, "\0" * len(name))
        return text

    def _counted(
        self, encoding: Encoding, tokens: NDArray[np.int64], answers: Sequence[_Answer]
    ) -> NDArray[np.bool_]:
        """Return which tokens are an answer's, bool [tokens]."""
        offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        begins, ends = offsets[:, 0], offsets[:, 1]
        is_special = self._encoder.is_special[tokens]
        counted = np.zeros(len(tokens), dtype=np.bool_)
        for answer in answers:
            last = answer.last
            if answer.said_until is not None:
                closing = is_special & (begins >= answer.said_until) & (ends <= last)
                if closing.any():
                    last = int(ends[closing][0])
            counted |= (ends > answer.first) & (begins < last)
        return counted
