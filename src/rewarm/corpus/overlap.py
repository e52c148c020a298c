"""Finds texts that one source holds out and a source that is trained on has too.

The split goes by the hash of a text, so that copies fall on one side wherever the held-out shares
agree. Other shares, or a split by group, can part two copies: what is measured would be trained on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.encoding import TEXT_HASHES
from rewarm.corpus.views import HELD_OUT, TRAIN, shard_prefixes
from rewarm.errors import CorpusError, Problems
from rewarm.records.facts import CorpusFacts

__all__ = ["check_held_out_apart"]

Hashes = NDArray[np.uint64]


def check_held_out_apart(corpora: Sequence[CorpusFacts], trained: Collection[str]) -> None:
    """Raise CorpusError where a source in `trained` has a text that some source holds out.

    `corpora` are measured facts. 8 bytes a document are read, no text and no token.
    """
    held_out = {facts.name: np.unique(_hashes(facts, HELD_OUT)) for facts in corpora}
    problems = Problems()
    for facts in corpora:
        if facts.name not in trained:
            continue
        seen = _hashes(facts, TRAIN)
        for other, hashes in held_out.items():
            num_both = int(np.isin(seen, hashes).sum()) if hashes.size else 0
            if num_both:
                _note(problems, facts.name, other, num_both, hashes.size)
    problems.raise_as(CorpusError)


def _note(problems: Problems, name: str, other: str, num_both: int, num_held_out: int) -> None:
    texts = f"{num_both} of its training documents are" if num_both > 1 else "1 document is"
    if name == other:
        problems.add(
            f"sources.{name}",
            f"{texts} held out too, under another group: the same text stands in both",
            "take the copies out of one group, or leave group_field out",
        )
    else:
        problems.add(
            f"sources.{name}",
            f"{texts} also held out by source {other!r} ({num_held_out} texts): what is measured "
            "would be trained on",
            f"give sources.{name} and sources.{other} the same held_out (copies then fall on one "
            "side), or take the copies out",
        )


def _hashes(facts: CorpusFacts, view: str) -> Hashes:
    """Return the text hashes of a view's documents."""
    folder = Path(facts.folder)
    try:
        every = np.concatenate([*_shards(folder), np.empty(0, dtype=np.uint64)])
        found: Hashes = every[np.load(folder / view)]
        return found
    except (OSError, ValueError, IndexError) as error:
        raise CorpusError.one(
            str(folder), f"its hashes cannot be read ({error})", "run `rewarm prepare` again"
        ) from error


def _shards(folder: Path) -> Iterator[Hashes]:
    for prefix in shard_prefixes(folder):
        yield np.load(f"{prefix}{TEXT_HASHES}")
