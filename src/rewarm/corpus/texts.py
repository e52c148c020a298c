"""The documents of a view as text again: what their tokens say, without their frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rewarm.corpus.tokenize import Encoder, body_span
from rewarm.corpus.views import View

__all__ = ["TextBatch", "as_tokenized", "texts_of"]

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
