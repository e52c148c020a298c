"""Counts of what was sampled, kept and dropped, and what they mean for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.near_duplicates import run_hashes

__all__ = ["RehearsalProgress", "Runs", "Tally"]

# Different runs are counted among those whose hash falls into one of so many classes that about
# this many are looked at.
_COUNTED_RUNS = 2**22
_MUCH = {
    "special_token": (
        0.1,
        "the base writes turns or beginnings within its texts, as chat models do, and bases that "
        "have learned little",
    ),
    "too_short": (0.5, "the base ends its texts soon: give prefixes of real text"),
    "repetitive": (0.2, "the base repeats itself: raise temperature and top_p towards 1"),
    "compressible": (0.2, "the base repeats itself: raise temperature and top_p towards 1"),
    "near_duplicate": (0.1, "samples are alike: give more prefixes, or sample at temperature 1"),
}
_MOST_CUT_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class RehearsalProgress:
    """How far one source is. Sampled tokens and seconds are those of this launch."""

    source: str
    num_tokens: int
    wanted_tokens: int
    num_sampled_tokens: int
    elapsed_s: float
    dropped_share: float


@dataclass(slots=True)
class Tally:
    """What came of the samples so far."""

    num_samples: int = 0
    num_documents: int = 0
    num_tokens: int = 0
    num_surplus: int = 0
    num_sampled_tokens: int = 0
    num_ended: int = 0
    nats: float = 0.0
    num_scored: int = 0
    elapsed_s: float = 0.0
    dropped: Counter[str] = field(default_factory=Counter)
    placements: dict[str, None] = field(default_factory=dict)

    @property
    def dropped_share(self) -> float:
        """Share of the samples that are dropped."""
        return self.dropped.total() / max(1, self.num_samples)

    def by_reason(self) -> str:
        """Return how many samples are dropped for which reason, in words."""
        found = [f"{reason} {count}" for reason, count in sorted(self.dropped.items())]
        return ", ".join(found) or "none dropped"

    def warnings(self) -> Iterator[str]:
        """Yield what a person should know of what was dropped or cut."""
        for reason, (share, advice) in _MUCH.items():
            found = self.dropped[reason] / self.num_samples
            if found > share:
                yield f"{found:.0%} of the samples are dropped as {reason}; {advice}"
        cut = 1.0 - self.num_ended / self.num_documents
        if cut > _MOST_CUT_SHARE:
            yield (
                f"{cut:.0%} of the kept samples are cut at their largest length, not ended by the "
                "base: raise max_tokens_per_sample if its documents are longer"
            )


class Runs:
    """Counts 4-token runs, and the different ones among them, over all documents.

    Of many, those whose hash falls into one class of `num_classes`: the ratio is the same.
    """

    def __init__(self, wanted_tokens: int) -> None:
        self._num_classes = np.uint64(max(1, wanted_tokens // _COUNTED_RUNS))
        self._seen: set[int] = set()
        self._num_runs = 0

    def add(self, tokens: NDArray[np.integer]) -> None:
        """Count the runs of a document."""
        hashes = run_hashes(tokens, 4)
        hashes = hashes[hashes % self._num_classes == 0]
        self._num_runs += len(hashes)
        self._seen.update(hashes.tolist())

    @property
    def distinct_share(self) -> float:
        """Different runs over all runs."""
        return len(self._seen) / max(1, self._num_runs)
