"""All that an evaluation runs through a model, tokenised, cut and padded once per launch.

Torch-free, so that the cost of an evaluation is known without a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rewarm.evaluation.measure import Built, Measure
from rewarm.evaluation.passages import (
    IGNORED,
    Passage,
    Tokens,
    Window,
    cut_windows,
    stride_tokens,
)

__all__ = ["Batch", "BatchedMeasure", "EvaluationSuite", "batches_of", "build_suite"]

_TOKENS_WITH_LOGITS = 1024
"""Rows × time of a batch of which all logits are in memory at once."""

_PADDING = 0  # any token will do: a causal model's earlier positions never see it


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Windows padded on the right: inputs and labels int64 [rows, time], passage int64 [rows].

    Labels are IGNORED wherever nothing is scored, padding included. `passage` numbers the measure's
    passage that each row belongs to.
    """

    input_ids: Tokens
    labels: Tokens
    passage: Tokens


@dataclass(frozen=True, slots=True, eq=False)
class BatchedMeasure:
    """A measure and the batches that hold all windows of its passages."""

    measure: Measure
    batches: tuple[Batch, ...]


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationSuite:
    """Everything that one evaluation measures, ready to run."""

    measures: tuple[BatchedMeasure, ...]
    warnings: tuple[str, ...]

    @property
    def num_tokens(self) -> int:
        """Positions that one evaluation runs through the model, overlap and padding included."""
        return sum(batch.input_ids.size for batch in self._batches())

    @property
    def num_batches(self) -> int:
        """Forward passes of one evaluation."""
        return sum(1 for _ in self._batches())

    def _batches(self) -> Iterator[Batch]:
        for batched in self.measures:
            yield from batched.batches


def build_suite(
    built: Iterable[Built],
    *,
    sequence_length: int,
    stride_fraction: float = 0.5,
    tokens_per_batch: int = 4096,
) -> EvaluationSuite:
    """Cut every measure's passages into windows and those into batches.

    `tokens_per_batch` bounds rows × time of a batch (one row is always taken). It decides memory
    and speed, never the figures: rows do not see each other, and sums are taken per passage.
    """
    results = list(built)
    stride = stride_tokens(sequence_length, stride_fraction)
    return EvaluationSuite(
        measures=tuple(
            BatchedMeasure(
                measure,
                batches_of(
                    measure.passages,
                    sequence_length=sequence_length,
                    stride=stride,
                    tokens_per_batch=tokens_per_batch
                    if measure.counts == "nats"
                    else min(tokens_per_batch, _TOKENS_WITH_LOGITS),
                ),
            )
            for measure, _ in results
            if measure is not None
        ),
        warnings=tuple(warning for _, warnings in results for warning in warnings),
    )


def batches_of(
    passages: Sequence[Passage],
    *,
    sequence_length: int,
    stride: int,
    tokens_per_batch: int = _TOKENS_WITH_LOGITS,
) -> tuple[Batch, ...]:
    """Return padded batches of windows, longest first: little padding, and memory runs out early.

    In that order the first row of a batch is its longest, so a batch is full when one more row of
    that length would exceed the budget.
    """
    rows = [
        (number, window)
        for number, passage in enumerate(passages)
        for window in cut_windows(passage, sequence_length=sequence_length, stride=stride)
    ]
    rows.sort(key=lambda row: -len(row[1].input_ids))  # stable: equal lengths keep their order
    batches = []
    start = 0
    while start < len(rows):
        num_rows = max(1, tokens_per_batch // len(rows[start][1].input_ids))
        batches.append(_padded(rows[start : start + num_rows]))
        start += num_rows
    return tuple(batches)


def _padded(rows: list[tuple[int, Window]]) -> Batch:
    """Return rows of falling length as one batch, padded on the right."""
    shape = (len(rows), len(rows[0][1].input_ids))
    input_ids = np.full(shape, _PADDING, dtype=np.int64)
    labels = np.full(shape, IGNORED, dtype=np.int64)
    for row, (_, window) in enumerate(rows):
        input_ids[row, : len(window.input_ids)] = window.input_ids
        labels[row, : len(window.labels)] = window.labels
    return Batch(input_ids, labels, np.array([number for number, _ in rows], dtype=np.int64))
