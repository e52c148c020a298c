"""Passages of tokens with what is scored in them, and the windows that a model can take in.

The rules of scoring, the same for every metric:

* A passage is a run of tokens of which the leading `num_context` are context only; each of the
  others is scored exactly once, given what stands before it in its window.
* A passage longer than a window of L inputs is read through windows that advance by a stride S.
  The first scores all it can; each later one scores only the tokens that no window has scored
  yet, so every token but the first L has at least L − S + 1 tokens of context.
* Later windows begin in the middle of the text and get no frame token put before them: so did the
  sequences that a base is trained on.
* Text is framed as in training. Frame tokens are context; they count neither nats nor bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.tokenize import body_span

__all__ = ["IGNORED", "Framing", "Passage", "Tokens", "Window", "cut_windows", "stride_tokens"]

Tokens = NDArray[np.int64]

IGNORED = -100
"""Label of a position that is not scored."""


@dataclass(frozen=True, slots=True)
class Framing:
    """The tokens that every document begins and ends with, as the base saw them in pretraining.

    Where not `all_framed` (shards that were taken over) a document may lack either.
    """

    begin_token_ids: tuple[int, ...]
    end_token_ids: tuple[int, ...]
    all_framed: bool = True

    def __post_init__(self) -> None:
        if not self.context:
            raise ValueError(
                "documents have neither begin nor end tokens: nothing can predict a first token"
            )

    @property
    def context(self) -> tuple[int, ...]:
        """What stands before a text's first token, so that it too can be scored.

        The begin tokens; where the base knows none, the end tokens, which in training close the
        document before it.
        """
        return self.begin_token_ids or self.end_token_ids

    def body(self, document: NDArray[np.integer]) -> Tokens:
        """Return a document's own tokens; ValueError where it should be framed and is not."""
        begin, end = self.begin_token_ids, self.end_token_ids
        start, stop = body_span(document, begin, end)
        if self.all_framed and len(document) - (stop - start) != len(begin) + len(end):
            raise ValueError(f"a document is not framed by {begin} and {end}")
        return document[start:stop].astype(np.int64)

    def passage(self, tokens: NDArray[np.integer] | list[int], num_context: int = 0) -> Passage:
        """Return tokens as a passage after this frame; `num_context` of them are not scored."""
        context = np.array(self.context, dtype=np.int64)
        framed = np.concatenate([context, np.asarray(tokens, dtype=np.int64)])
        return Passage(framed, len(context) + num_context)


@dataclass(frozen=True, slots=True, eq=False)
class Passage:
    """Tokens, int64 [t], of which `tokens[num_context:]` are scored (1 ≤ num_context ≤ t)."""

    tokens: Tokens
    num_context: int

    def __post_init__(self) -> None:
        if not 1 <= self.num_context <= len(self.tokens):
            raise ValueError(f"{self.num_context} of {len(self.tokens)} tokens cannot be context")

    @property
    def num_scored(self) -> int:
        """Tokens whose nats count."""
        return len(self.tokens) - self.num_context


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Inputs and their next tokens, int64 [t] each; labels are IGNORED where nothing is scored."""

    input_ids: Tokens
    labels: Tokens


def stride_tokens(sequence_length: int, stride_fraction: float) -> int:
    """Return how many tokens a window advances: the rounded fraction of it, at least one."""
    if sequence_length < 1 or not 0.0 < stride_fraction <= 1.0:
        raise ValueError(f"no stride of {stride_fraction} × {sequence_length} tokens")
    return max(1, round(stride_fraction * sequence_length))


def cut_windows(passage: Passage, *, sequence_length: int, stride: int) -> Iterator[Window]:
    """Yield the windows of at most `sequence_length` inputs that score each scored token once.

    Windows that would score nothing (inside of a long context) are not yielded.
    """
    tokens = passage.tokens
    last = len(tokens) - 1  # the last token is only ever a label
    first_unscored = passage.num_context
    start = 0
    while first_unscored <= last:
        end = min(start + sequence_length, last)
        if end >= first_unscored:
            labels = np.full(end - start, IGNORED, dtype=np.int64)
            labels[first_unscored - start - 1 :] = tokens[first_unscored : end + 1]
            yield Window(tokens[start:end], labels)
            first_unscored = end + 1
        start += stride
