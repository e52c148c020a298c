"""Language and licence that documents say of themselves, counted for the ledger."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.encoding import TAGS, has_tags
from rewarm.recipe.sources import SourceRecipe

__all__ = ["OTHERS", "UNSAID", "count_tags"]

OTHERS = "others"
UNSAID = "not said"
_MAX_TAGS = 200


def count_tags(
    source: SourceRecipe, prefixes: Sequence[Path], trained: NDArray[np.bool_]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the training documents by language and by licence; empty where no field says it.

    Of more than 200 different ones the rest is counted together. `trained` numbers documents over
    all shards.
    """
    languages, licences = Counter[str](), Counter[str]()
    if has_tags(source):
        for (language, licence), kept in zip(_lines(prefixes), trained, strict=True):
            if kept:
                _count(languages, language)
                _count(licences, licence)
    return dict(sorted(languages.items())), dict(sorted(licences.items()))


def _lines(prefixes: Sequence[Path]) -> Iterator[tuple[str | None, str | None]]:
    for prefix in prefixes:
        with Path(f"{prefix}{TAGS}").open(encoding="utf-8") as file:
            for line in file:
                language, licence = json.loads(line)
                yield language, licence


def _count(counts: Counter[str], tag: str | None) -> None:
    if tag is None:
        return
    tag = tag or UNSAID
    counts[tag if tag in counts or len(counts) < _MAX_TAGS else OTHERS] += 1
