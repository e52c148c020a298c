"""The questions whose neighbours are looked for: a source's training ones alone, as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rewarm.artifacts import parse_json
from rewarm.corpus.draws import drawing_order
from rewarm.corpus.encoding import QUESTIONS
from rewarm.corpus.texts import texts_of_some
from rewarm.corpus.tokenize import Encoder
from rewarm.corpus.views import (
    IGNORED_LABEL,
    View,
    kept_documents,
    open_view,
    shard_prefixes,
    text_hashes,
)
from rewarm.errors import CorpusError, UserError
from rewarm.recipe.keep import Queries
from rewarm.records.facts import CorpusFacts

__all__ = ["QueryTexts", "read_queries"]

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class QueryTexts:
    """Queries as text, and the number of each one's document in its source's training view."""

    documents: Integers
    texts: list[str]


def read_queries(
    facts: CorpusFacts, encoder: Encoder, *, which: Queries, max_queries: int
) -> QueryTexts:
    """Return the queries of a source, each text once, in an order that their hashes alone give.

    Of a source with questions, they are these, or they with their answers; of conversations, what
    the loss does not count, or all; of other text, the documents. Raises CorpusError where the
    prepared source cannot be read.
    """
    kept, view = kept_documents(facts), open_view(facts)
    hashes = text_hashes(Path(facts.folder))[kept]
    first_of_each = np.unique(hashes, return_index=True)[1]
    chosen = first_of_each[drawing_order(hashes[first_of_each])[:max_queries]]
    pairs = _stored_pairs(Path(facts.folder), kept[chosen])
    if pairs is not None:
        asked = which == "questions"
        texts = [pair[0] if asked else f"{pair[0]}\n{pair[1]}" for pair in pairs]
    elif which == "questions" and facts.num_label_tokens is not None:
        texts = [_uncounted(view, int(index), encoder) for index in chosen]
    else:
        texts = list(chain.from_iterable(texts_of_some(view, encoder, chosen)))
    return QueryTexts(chosen, texts)


def _stored_pairs(folder: Path, documents: Integers) -> list[tuple[str, str]] | None:
    """Return question and answer of some documents, numbered over all shards; None where the
    source has none."""
    paths = [Path(f"{prefix}{QUESTIONS}") for prefix in shard_prefixes(folder)]
    if not any(path.is_file() for path in paths):
        return None
    found: dict[int, tuple[str, str]] = {}
    wanted = set(documents.tolist())
    for number, (path, line) in enumerate(_lines(paths)):
        if number in wanted:
            try:
                question, answer = parse_json(line)
            except (ValueError, TypeError) as error:
                raise _unusable(path, error) from error
            found[number] = (str(question), str(answer))
    if len(found) != len(wanted):
        raise _unusable(folder, f"questions of {len(wanted) - len(found)} documents are gone")
    return [found[number] for number in documents.tolist()]


def _lines(paths: Sequence[Path]) -> Iterator[tuple[Path, bytes]]:
    for path in paths:
        try:
            with path.open("rb") as file:
                for line in file:
                    yield path, line
        except OSError as error:
            raise _unusable(path, error) from error


def _unusable(path: Path, what: object) -> UserError:
    return CorpusError.one(
        str(path),
        f"it does not hold the questions of its documents ({what})",
        "delete the prepared folder and run `rewarm prepare`",
    )


def _uncounted(view: View, index: int, encoder: Encoder) -> str:
    """Return what the loss does not count of a conversation, as text."""
    document = view.document(index)
    labels = document.copy()
    first, count = view.offsets[index : index + 1], np.array([len(document)])
    view.drop_uncounted(labels, view.pieces(first, count, np.zeros(1, dtype=np.int64)))
    text: str = encoder.tokenizer.decode(document[labels == IGNORED_LABEL].tolist())
    return text
