"""Which samples are no text worth training on, each with the reason that is counted."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.near_duplicates import run_hashes

__all__ = ["KEPT", "REASONS", "Sieve", "compressed_share", "repeat_share"]

KEPT = "kept"
REASONS = (KEPT, "special_token", "too_short", "repetitive", "compressible", "near_duplicate")
RUN_TOKENS = 4

Integers = NDArray[np.integer]


def repeat_share(ids: Integers) -> float:
    """Return the share of 4-token runs that stand earlier in the same text, in [0, 1)."""
    hashes = run_hashes(ids, RUN_TOKENS)
    return 1.0 - len(np.unique(hashes)) / len(hashes) if hashes.size else 0.0


def compressed_share(text: bytes) -> float:
    """Return what zlib (level 6) makes of a text, as a share of its bytes; 1 for an empty one."""
    return len(zlib.compress(text, 6)) / len(text) if text else 1.0


@dataclass(frozen=True, slots=True)
class Sieve:
    """The bounds of a recipe; see `RehearsalRecipe`."""

    min_tokens: int
    max_repeat_share: float
    min_compressed_share: float

    def reason(self, ids: Integers, text: bytes, *, holds_special_token: bool) -> str:
        """Return why sampled tokens are dropped (`REASONS`), or KEPT; `text` is what they spell.

        A special token within a text is the end of a document, or a turn of a conversation, that is
        none: sources of text that hold one are not taken either.
        """
        if holds_special_token:
            return "special_token"
        if len(ids) < self.min_tokens:
            return "too_short"
        if repeat_share(ids) > self.max_repeat_share:
            return "repetitive"
        if compressed_share(text) < self.min_compressed_share:
            return "compressible"
        return KEPT
