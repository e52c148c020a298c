"""The scores that stand beside a prepared source, as they are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rewarm.artifacts import MANIFEST_NAME, parse_json
from rewarm.corpus.selection import SCORES, load_scores
from rewarm.records.facts import CorpusFacts

__all__ = ["ScoreSet", "score_sets_of"]

_FOLDER = "scores"
_UNITS = {"base-loss": "bits per byte"}


@dataclass(frozen=True, slots=True, eq=False)
class ScoreSet:
    """A score of every training document (NaN: none), float64 [documents].

    Where a selection goes by it, `cut_at` is the score of the last document that is kept.
    """

    name: str
    unit: str
    values: NDArray[np.float64]
    is_selection: bool = False
    lowest: bool = True
    cut_at: float | None = None


def score_sets_of(facts: CorpusFacts, num_documents: int) -> list[ScoreSet]:
    """Return the scores that a source's selection goes by; without one, all that are complete and
    of just these documents.

    Raises CorpusError where they cannot be read, or a selection's do not fit the source.
    """
    selection = facts.selection
    if selection is not None:
        name = selection.score + (f" ({selection.reference})" if selection.reference else "")
        return [
            ScoreSet(
                name=name,
                unit=_UNITS.get(selection.score, ""),
                values=load_scores(Path(selection.scores), num_documents),
                is_selection=True,
                lowest=selection.lowest,
                cut_at=selection.worst,
            )
        ]
    folders = sorted((Path(facts.folder) / _FOLDER).glob(f"*/{MANIFEST_NAME}"))
    return [
        ScoreSet(path.parent.name, _unit(path), load_scores(path.parent, num_documents))
        for path in folders
        if _num_scores(path.parent) in (None, num_documents)
    ]


def _num_scores(folder: Path) -> int | None:
    """Return how many scores a folder has; None where that cannot be told."""
    try:
        return len(np.load(folder / SCORES, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError, TypeError):
        return None


def _unit(manifest: Path) -> str:
    try:
        return _UNITS.get(parse_json(manifest.read_bytes())["settings"]["score"], "")
    except (OSError, ValueError, LookupError, TypeError):
        return ""
