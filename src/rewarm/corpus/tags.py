"""Language and licence that documents say of themselves, counted for the ledger."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.encoding import TAGS
from rewarm.errors import CorpusError

__all__ = ["OTHERS", "UNSAID", "count_tags"]

OTHERS = "others"
UNSAID = "not said"
_MAX_TAGS = 200


def count_tags(
    prefixes: Sequence[Path], shown: NDArray[np.bool_]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the documents that are `shown` by language and by licence; a kind that no field says
    is empty.

    Of more than 200 different ones the rest is counted together. `shown` is of the documents over
    all shards. Raises CorpusError where the tags do not fit the shards.
    """
    languages, licences = Counter[str](), Counter[str]()
    parsed = functools.lru_cache(maxsize=4096)(json.loads)  # few lines differ
    try:
        for line, is_shown in zip(_lines(prefixes), shown.tolist(), strict=True):
            if is_shown:
                language, licence = parsed(line)
                _count(languages, language)
                _count(licences, licence)
    except (OSError, ValueError, TypeError) as error:
        folder = prefixes[0].parent
        raise CorpusError.one(
            str(folder),
            "its documents' tags do not fit its shards",
            "run `rewarm prepare` with the recipe: they are made again",
        ) from error
    return dict(sorted(languages.items())), dict(sorted(licences.items()))


def _lines(prefixes: Sequence[Path]) -> Iterator[str]:
    for prefix in prefixes:
        with Path(f"{prefix}{TAGS}").open(encoding="utf-8") as file:
            yield from file


def _count(counts: Counter[str], tag: str | None) -> None:
    if tag is None:
        return
    tag = tag or UNSAID
    counts[tag if tag in counts or len(counts) < _MAX_TAGS else OTHERS] += 1
