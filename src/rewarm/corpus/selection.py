"""Which documents a score keeps: a pure function of scores, lengths and hashes.

Best first; equal scores go by the hash of the text (and then by place), so that neither the order
of the files nor of the documents decides. A document that could not be scored comes last; one that
is no question's neighbour is never kept.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rewarm.artifacts import fingerprint
from rewarm.errors import CorpusError, UserError
from rewarm.recipe.keep import KeepRecipe
from rewarm.records.facts import CorpusFacts, SelectionFacts

__all__ = [
    "SCORES",
    "Ranking",
    "chosen_documents",
    "digest_of",
    "load_scores",
    "rank",
    "selected_estimate",
]

SCORES = "scores.npy"

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


class Ranking:
    """Documents from best to worst, with what they hold; made by `rank`."""

    def __init__(self, best_first: Integers, num_tokens: Integers) -> None:
        self.best_first = best_first
        self._held = np.cumsum(num_tokens[best_first])
        self._all_tokens = int(num_tokens.sum())

    def kept(self, *, share: float | None, tokens: int | None) -> Integers:
        """Return the fewest best documents that hold `share` of all tokens, or `tokens` of them.

        Numbers of documents in increasing order; all that are ranked where there is not so much, or
        neither is given. Raises ValueError where both are.
        """
        if share is not None and tokens is not None:
            raise ValueError("share or tokens, one of the two")
        if share is None and tokens is None:
            return np.sort(self.best_first)
        wanted = share * float(self._all_tokens) if share is not None else float(tokens or 0)
        count = int(np.searchsorted(self._held, wanted, side="left")) + 1
        return np.sort(self.best_first[:count])


def rank(
    scores: Floats,
    num_tokens: Integers,
    hashes: NDArray[np.uint64],
    *,
    lowest: bool,
    scored_alone: bool = False,
) -> Ranking:
    """Return the ranking of documents by their scores (NaN: none), all [documents].

    With `scored_alone` a document without a score has no rank, else it comes last.
    """
    worst_last = np.where(np.isnan(scores), np.inf, scores if lowest else -scores)
    unscored = np.isnan(scores)
    places = np.arange(len(scores))
    best_first = np.lexsort((places, hashes, worst_last, unscored))
    if scored_alone:
        best_first = best_first[: int((~unscored).sum())]
    return Ranking(best_first, num_tokens)


def digest_of(kept: Integers) -> str:
    """Return the SHA-256 of numbers of documents."""
    return hashlib.sha256(np.ascontiguousarray(kept, dtype="<i8").tobytes()).hexdigest()


def load_scores(folder: Path, num_documents: int) -> Floats:
    """Return the stored score of each training document, float64; raises CorpusError."""
    path = folder / SCORES
    try:
        scores = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _unusable(path, f"it cannot be read ({error})") from error
    if scores.shape != (num_documents,) or scores.dtype != np.float64:
        raise _unusable(path, f"it does not hold one score for each of {num_documents} documents")
    found: Floats = scores
    return found


def chosen_documents(
    selection: SelectionFacts, num_tokens: Integers, hashes: NDArray[np.uint64]
) -> Integers:
    """Return which training documents a selection keeps, by their stored scores.

    `num_tokens` and `hashes` are those of all training documents. Raises CorpusError where that is
    not what was planned with.
    """
    folder = Path(selection.scores)
    scores = load_scores(folder, len(num_tokens))
    ranking = rank(
        scores, num_tokens, hashes, lowest=selection.lowest, scored_alone=selection.of_neighbours
    )
    kept = ranking.kept(share=selection.share, tokens=selection.tokens)
    if digest_of(kept) != selection.kept:
        raise _unusable(folder, "its scores keep other documents than were planned with")
    return kept


def _unusable(path: Path, what: str) -> UserError:
    return CorpusError.one(
        str(path), what, "delete this folder, then run `rewarm prepare` and `rewarm plan`"
    )


def selected_estimate(facts: CorpusFacts, keep: KeepRecipe) -> CorpusFacts:
    """Return what a source will come to once its documents are scored: the tokens asked for.

    It is not measured, whatever `facts` are; documents and bytes are taken in proportion.
    """
    share = keep.share
    if share is None:
        tokens = facts.num_tokens if keep.tokens is None else keep.tokens
        share = min(1.0, tokens / max(facts.num_tokens, 1))
    return facts.model_copy(
        update={
            "measured": False,
            "tokens": "",
            "folder": "",
            "key": fingerprint([facts.key, keep.model_dump(mode="json")]),
            "num_documents": round(share * facts.num_documents),
            "num_tokens": round(share * facts.num_tokens),
            "num_bytes": round(share * facts.num_bytes),
            "selection": SelectionFacts(
                score=keep.score,
                lowest=keep.keeps_lowest,
                share=keep.share,
                tokens=keep.tokens,
                reference=keep.compared_with,
                scores="",
                key="",
                kept="",
                worst=None,
                of_documents=facts.num_documents,
                of_tokens=facts.num_tokens,
            ),
            "warnings": (
                *facts.warnings,
                "its documents are not scored yet (`rewarm prepare`): which of them are kept is "
                "open",
            ),
        }
    )
