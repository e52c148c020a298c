"""A base's own loss on each document of a source: bits per byte, whole documents, in batches."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from rewarm.evaluation.likelihood import evaluate
from rewarm.evaluation.measure import Built, Floats, Measure
from rewarm.evaluation.passages import Framing
from rewarm.evaluation.selection import HeldOutDocuments
from rewarm.evaluation.suite import build_suite
from rewarm.records.facts import Role

__all__ = ["BaseLossScorer"]

_TOKENS_PER_PIECE = 2**20


class BaseLossScorer(NamedTuple):
    """Scores documents through a model, in windows of `window_tokens` inputs that do not overlap.

    A document without a token between its frame has no score.
    """

    model: nn.Module
    documents: HeldOutDocuments
    name: str
    role: Role
    framing: Framing
    window_tokens: int
    tokens_per_batch: int
    autocast_dtype: torch.dtype | None = None

    @property
    def tokens_per_piece(self) -> int:
        """Tokens between one look at the disk and the next."""
        return _TOKENS_PER_PIECE

    def scores(self, first: int, last: int, /) -> Floats:
        """Return the bits per byte of documents [first, last), NaN where nothing is scored.

        Raises BaseModelError where the loss is not finite.
        """
        passages = {
            index: self.framing.passage(self.framing.body(self.documents.document(index)))
            for index in range(first, last)
        }
        scored = [
            index
            for index, passage in passages.items()
            if passage.num_scored and self.documents.num_bytes(index)
        ]
        found = np.full(last - first, np.nan)
        if not scored:
            return found
        sizes = tuple(self.documents.num_bytes(index) for index in scored)
        measure = Measure(
            domain=self.name,
            role=self.role,
            metric="bits_per_byte",
            passages=tuple(passages[index] for index in scored),
            weights=sizes,
            item_values=lambda nats: nats,
        )
        suite = build_suite(
            [Built(measure)],
            sequence_length=self.window_tokens,
            stride_fraction=1.0,
            tokens_per_batch=self.tokens_per_batch,
        )
        (record,) = evaluate(self.model, suite, step=0, autocast_dtype=self.autocast_dtype)
        nats = np.array(record.item_values)
        found[np.array(scored) - first] = nats / (math.log(2.0) * np.array(sizes))
        return found
