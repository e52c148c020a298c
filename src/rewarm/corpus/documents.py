"""Documents to tokens: text as it stands, or messages as a chat template writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.records import Document
from rewarm.corpus.tokenize import DocumentFrame, Encoder

__all__ = ["DocumentEncoder", "Encoded", "Refused", "TextEncoder"]


class Encoded(NamedTuple):
    """A document with its text, its tokens int64 [tokens] and, where only some of them are trained
    on, which: bool [tokens]."""

    document: Document
    tokens: NDArray[np.int64]
    counted: NDArray[np.bool_] | None = None


class Refused(NamedTuple):
    """A document that cannot be encoded, and why."""

    document: Document
    reason: str


class DocumentEncoder(Protocol):
    """Turns documents into tokens, each into one `Encoded` or `Refused`, in order."""

    @property
    def frame(self) -> DocumentFrame:
        """What the base's documents begin and end with."""
        ...

    @property
    def vocab_size(self) -> int:
        """Ids that the model has embeddings for."""
        ...

    def encode(self, documents: Sequence[Document], /) -> Iterator[Encoded | Refused]:
        """Yield what becomes of each document; raises CorpusError for an id beyond the model's.

        What takes long, and no interpreter, comes before the first one.
        """
        ...


class TextEncoder:
    """Documents are their text within the base's frame."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    @property
    def frame(self) -> DocumentFrame:
        """What documents begin and end with."""
        return self._encoder.frame

    @property
    def vocab_size(self) -> int:
        """Ids that the model has embeddings for."""
        return self._encoder.vocab_size

    def encode(self, documents: Sequence[Document], /) -> Iterator[Encoded | Refused]:
        """Yield the tokens of each text, or that it became a special token."""
        encoded = self._encoder.encode([document.text for document in documents])
        for document, tokens in zip(documents, encoded, strict=True):
            if self._encoder.holds_special_token(tokens):
                yield Refused(document, "special_token")
            else:
                yield Encoded(document, tokens)
