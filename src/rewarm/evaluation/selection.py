"""Which held-out items are scored: the same ones at every step, of every run, on every machine."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rewarm.units import format_bytes

__all__ = ["HeldOutDocuments", "choose_documents", "keyed_digest", "keyed_order"]


class HeldOutDocuments(Protocol):
    """The held-out documents of one source, as token arrays framed by begin and end tokens."""

    @property
    def num_documents(self) -> int:
        """How many there are."""
        ...

    def document(self, index: int, /) -> NDArray[np.integer[Any]]:
        """Return the token ids of document `index`, its frame included."""
        ...

    def num_bytes(self, index: int, /) -> int:
        """Return the UTF-8 bytes of its text, of which the frame is no part."""
        ...


def keyed_digest(index: int, purpose: str) -> int:
    """Return 64 bits that look random and depend on nothing but index and purpose."""
    digest = hashlib.blake2b(
        index.to_bytes(8, "little"), digest_size=8, key=purpose.encode("utf-8")[:64]
    )
    return int.from_bytes(digest.digest(), "little")


def keyed_order(num_items: int, purpose: str) -> list[int]:
    """Return 0 … num_items − 1 in an order that does not follow their position in the file."""
    return sorted(range(num_items), key=lambda index: keyed_digest(index, purpose))


def choose_documents(documents: HeldOutDocuments, *, max_bytes: int) -> tuple[list[int], list[str]]:
    """Return the documents to score, up to `max_bytes` of text, and warnings.

    Documents are whole, so that bytes and tokens agree exactly. They are taken in keyed order
    until the next would exceed the cap (going on to shorter ones would favour those). A document
    that exceeds the cap alone is passed over; where all do, the shortest is taken nevertheless.
    """
    order = keyed_order(documents.num_documents, "held-out documents")
    sized = [(index, documents.num_bytes(index)) for index in order]
    sized = [(index, size) for index, size in sized if size > 0]
    if not sized:
        return [], []
    fitting = [(index, size) for index, size in sized if size <= max_bytes]
    if not fitting:
        index, size = min(sized, key=lambda item: item[1])
        return [index], [
            f"every held-out document is larger than {format_bytes(max_bytes)}; only the shortest "
            f"({format_bytes(size)}) is scored"
        ]
    warnings = []
    if len(fitting) < len(sized):
        warnings.append(
            f"{len(sized) - len(fitting)} of {len(sized)} held-out documents are larger than "
            f"{format_bytes(max_bytes)} and are not scored"
        )
    return _prefix_within(fitting, max_bytes), warnings


def _prefix_within(sized: list[tuple[int, int]], max_bytes: int) -> list[int]:
    """Return the longest prefix of (index, size) pairs whose sizes sum to at most `max_bytes`."""
    chosen = []
    remaining = max_bytes
    for index, size in sized:
        if size > remaining:
            break
        chosen.append(index)
        remaining -= size
    return chosen
