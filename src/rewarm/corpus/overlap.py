"""Finds texts that one source holds out and a source that is trained on has too.

The split goes by the hash of a text, so that copies fall on one side wherever the held-out shares
agree. Other shares, or a split by group, can part two copies: what is measured would be trained on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.views import kept_documents, text_hashes
from rewarm.errors import CorpusError, Problems
from rewarm.records.facts import CorpusFacts

__all__ = ["check_held_out_apart"]

Hashes = NDArray[np.uint64]


def check_held_out_apart(corpora: Sequence[CorpusFacts], trained: Collection[str]) -> None:
    """Raise CorpusError where a source in `trained` has a text that some source holds out, or where
    the reference has one by which such a source's documents were selected.

    `corpora` are measured facts. 8 bytes a document are read, no text and no token.
    """
    references = {
        facts.selection.reference
        for facts in corpora
        if facts.name in trained and facts.selection is not None
    }
    held_out = {facts.name: np.unique(_hashes(facts, held_out=True)) for facts in corpora}
    problems = Problems()
    for facts in corpora:
        if facts.name not in trained and facts.name not in references:
            continue
        would = (
            "would be trained on" if facts.name in trained else "would choose what is trained on"
        )
        seen = _hashes(facts, held_out=False)
        for other, hashes in held_out.items():
            num_both = int(np.isin(seen, hashes).sum()) if hashes.size else 0
            if num_both:
                _note(problems, facts.name, other, num_both, hashes.size, would)
    problems.raise_as(CorpusError)


def _note(
    problems: Problems, name: str, other: str, num_both: int, num_held_out: int, would: str
) -> None:
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
            f"{would}",
            f"give sources.{name} and sources.{other} the same held_out (copies then fall on one "
            "side), or take the copies out",
        )


def _hashes(facts: CorpusFacts, *, held_out: bool) -> Hashes:
    """Return the text hashes of a view's documents."""
    folder = Path(facts.folder)
    every = text_hashes(folder)
    kept = kept_documents(facts, held_out=held_out)
    if kept.size and kept[-1] >= len(every):
        raise CorpusError.one(
            str(folder), "its hashes do not fit its shards", "run `rewarm prepare` again"
        )
    found: Hashes = every[kept]
    return found
