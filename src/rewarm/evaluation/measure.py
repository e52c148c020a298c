"""A measure: passages to run through a model, and how their nats become values of items.

Metrics know what to score and nothing of windows, batches or models; `suite` and `likelihood` know
those and nothing of metrics.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rewarm.evaluation.passages import Passage
from rewarm.evaluation.statistics import ratio, ratio_standard_error
from rewarm.records.facts import LOSS_METRICS, EvalRecord, Metric, Role

__all__ = ["Built", "Floats", "Measure", "share_of_best"]

Floats = NDArray[np.float64]

_PER_BIT = 1.0 / math.log(2.0)


@dataclass(frozen=True, eq=False)
class Measure:
    """One metric of one domain on a fixed set of items.

    `item_values` takes a figure of every passage, float64 [passages], and returns one value per
    item, float64 [items]; `weights` holds one weight per item. The figures are the passages' nats,
    or with `counts` = "misses" how many of its scored tokens are not the model's likeliest.
    """

    domain: str
    role: Role | Literal["task"]
    metric: Metric
    passages: tuple[Passage, ...]
    weights: tuple[int, ...]
    item_values: Callable[[Floats], Floats]
    chance: float | None = None
    counts: Literal["nats", "misses"] = "nats"

    @functools.cached_property
    def items_key(self) -> str:
        """Fingerprint of everything that is scored: tokens, contexts and weights."""
        digest = hashlib.blake2b(digest_size=16)
        for passage in self.passages:
            digest.update(len(passage.tokens).to_bytes(8, "little"))
            digest.update(passage.num_context.to_bytes(8, "little"))
            digest.update(passage.tokens.astype("<i8").tobytes())
        digest.update(np.array(self.weights, dtype="<i8").tobytes())
        return digest.hexdigest()

    def record(self, figures: Floats, *, step: int, seconds: float) -> EvalRecord:
        """Return the record that these figures of the passages amount to."""
        values = self.item_values(figures)
        scale = _PER_BIT if self.metric in LOSS_METRICS else 1.0
        standard_error = ratio_standard_error(values, self.weights)
        return EvalRecord(
            step=step,
            domain=self.domain,
            role=self.role,
            metric=self.metric,
            value=scale * ratio(values, self.weights),
            standard_error=None if standard_error is None else scale * standard_error,
            item_values=tuple(values.tolist()),
            item_weights=self.weights,
            items_key=self.items_key,
            chance=self.chance,
            seconds=seconds,
        )


class Built(NamedTuple):
    """A measure, or None where there is nothing to measure, and what a person should know."""

    measure: Measure | None
    warnings: tuple[str, ...] = ()


def share_of_best(scores: Floats, truth: int) -> float:
    """Return 1 where the truth alone scores best, 1/k where it ties with k − 1 others, else 0.

    A tie is worth what guessing among its members would earn: a model that tells nothing apart
    gets chance, neither 0 nor 1.
    """
    best = scores == scores.max()
    return float(best[truth]) / int(best.sum())
