"""What samples begin with: nothing, the lines of a file, or how a source's documents begin."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.records import Rejections
from rewarm.corpus.sources import read_documents
from rewarm.corpus.streams import Caps, read_lines
from rewarm.corpus.tokenize import Encoder, body_span
from rewarm.corpus.views import View
from rewarm.errors import CorpusError
from rewarm.recipe.sources import SourceRecipe

__all__ = ["FilePrefixes", "NoPrefix", "Prefixes", "SourcePrefixes"]

Integers = NDArray[np.int64]

_MOST_PREFIXES = 1_000_000
_LONGEST_LINE_BYTES = 2**20


class Prefixes(Protocol):
    """A numbered set of token sequences, without the tokens that documents begin with."""

    def __len__(self) -> int:
        """How many there are, 1 or more."""
        ...

    def __getitem__(self, index: int, /) -> Integers:
        """Return the tokens of one, int64 [0 or more]."""
        ...


class NoPrefix:
    """The empty prefix alone: samples begin as documents do."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int, /) -> Integers:
        return np.empty(0, dtype=np.int64)


class SourcePrefixes:
    """The first tokens of a source's training documents; what it holds out is never shown."""

    def __init__(self, view: View, encoder: Encoder, num_tokens: int) -> None:
        self._view = view
        self._frame = encoder.frame
        self._num_tokens = num_tokens

    def __len__(self) -> int:
        return self._view.num_documents

    def __getitem__(self, index: int, /) -> Integers:
        wanted = len(self._frame.begin) + self._num_tokens
        head = self._view.head(index, wanted + len(self._frame.end))
        start, stop = body_span(head, self._frame.begin, self._frame.end)
        return head[start : min(stop, start + self._num_tokens)]


class FilePrefixes:
    """The texts of a file, tokenized and cut: .jsonl has them in `text`, others have one a line."""

    def __init__(self, path: Path, encoder: Encoder, num_tokens: int) -> None:
        """Raises CorpusError for a file that cannot be read or holds nothing to begin with."""
        texts = _texts_of(path)
        begin, end = len(encoder.frame.begin), len(encoder.frame.end)
        self._prefixes: list[Integers] = []
        for ids in encoder.encode(texts):
            if not encoder.holds_special_token(ids) and len(ids) > begin + end:
                self._prefixes.append(ids[begin : len(ids) - end][:num_tokens])
        if not self._prefixes:
            raise CorpusError.one(
                str(path),
                "it holds no text that samples could begin with",
                "write one prefix a line, or JSON lines with a field text",
            )

    def __len__(self) -> int:
        return len(self._prefixes)

    def __getitem__(self, index: int, /) -> Integers:
        return self._prefixes[index]


def _texts_of(path: Path) -> list[str]:
    texts: list[str] = []
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        source = SourceRecipe(path=str(path), role="replay", format="jsonl")
        rejections = Rejections()
        for document, _ in read_documents(path, source, rejections):
            texts.append(document.text)
            if len(texts) == _MOST_PREFIXES:
                break
        if rejections.counts:
            raise CorpusError.one(
                str(path),
                f"{rejections.counts.total()} of its lines hold no prefix, e.g. "
                f"{'; '.join(rejections.examples)}",
                "write JSON lines with a field text, or one prefix a line in a .txt",
            )
        return texts
    for line in read_lines(path, Caps(line_bytes=_LONGEST_LINE_BYTES)):
        try:
            text = (line.content or b"").decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise CorpusError.one(
                f"{path}:{line.number}", "it is not UTF-8", "save the file as UTF-8"
            ) from error
        if text:
            texts.append(text)
        if len(texts) == _MOST_PREFIXES:
            break
    return texts
