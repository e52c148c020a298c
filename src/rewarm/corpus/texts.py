"""The documents of a view as text again: what their tokens say, without their frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.tokenize import Encoder, body_span
from rewarm.corpus.views import View

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["TextBatch", "as_tokenized", "texts_of", "texts_of_some"]

Integers = NDArray[np.int64]

_BATCH_TOKENS = 2**18
# A longer document is decoded in parts, so that one of gigabytes takes no more memory than others;
# a character that is cut between two of them is lost, and with it at most one word.
_PART_TOKENS = 2**20


class TextBatch(NamedTuple):
    """Texts of documents of a view, and the first one's number in it."""

    first: int
    texts: list[str]


def texts_of(
    view: View, encoder: Encoder, first: int = 0, last: int | None = None
) -> Iterator[TextBatch]:
    """Yield the texts of documents [first, last) of a view, in batches of bounded size."""
    ends = view.offsets
    last = view.num_documents if last is None else last
    while first < last:
        stop = int(np.searchsorted(ends, ends[first] + _BATCH_TOKENS, side="right")) - 1
        stop = min(max(stop, first + 1), last)
        documents = [view.document(index) for index in range(first, stop)]
        yield TextBatch(first, _decoded(documents, encoder))
        first = stop


def texts_of_some(view: View, encoder: Encoder, documents: Integers) -> Iterator[list[str]]:
    """Yield the texts of some documents of a view, in their order, in batches of bounded size."""
    held = np.concatenate(([0], np.cumsum(view.document_tokens[documents])))
    first = 0
    while first < len(documents):
        stop = int(np.searchsorted(held, held[first] + _BATCH_TOKENS, side="right")) - 1
        stop = max(stop, first + 1)
        chosen = documents[first:stop].tolist()
        yield _decoded([view.document(index) for index in chosen], encoder)
        first = stop


def as_tokenized(texts: Sequence[str], encoder: Encoder) -> list[str]:
    """Return texts as the tokenizer gives them back: what it changes in documents (case, spaces,
    letters that it does not know), it changes in these."""
    encoded = encoder.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return _decode(encoder.tokenizer, [one.ids for one in encoded])


def _decoded(documents: Sequence[NDArray[np.int64]], encoder: Encoder) -> list[str]:
    frame = encoder.frame
    parts: list[list[int]] = []
    owners: list[int] = []
    for number, document in enumerate(documents):
        start, stop = body_span(document, frame.begin, frame.end)
        for begin in range(start, max(stop, start + 1), _PART_TOKENS):
            parts.append(document[begin : min(begin + _PART_TOKENS, stop)].tolist())
            owners.append(number)
    texts = [""] * len(documents)
    for owner, text in zip(owners, _decode(encoder.tokenizer, parts), strict=True):
        texts[owner] += text
    return texts


def _decode(tokenizer: Tokenizer, ids: Sequence[Sequence[int]]) -> list[str]:
    found: list[str] = tokenizer.decode_batch([list(each) for each in ids])
    return found
