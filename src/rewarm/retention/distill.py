"""The base as a teacher: what the model says is held to what the base says of the same text.

On new text that is learning without forgetting (LwF), on old or rehearsed text a divergence (KL)
from the base. One forward pass of the model serves the loss and this term. The teacher is the base
itself, a second model that is sharded as the first one is, or what was stored of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rewarm.batches.loader import IGNORED_LABEL, Batch, at_once
from rewarm.distributed.fsdp import Root, is_sharded, reshard
from rewarm.model.chunked_divergence import Scored, StoredTopK, chunked_divergence
from rewarm.model.head_loss import HeadLoss
from rewarm.recipe.retention import DistillRecipe

__all__ = ["Distillation"]


@dataclass(frozen=True, slots=True, eq=False)
class Distillation:
    """A training objective: next-token loss and divergence from a teacher, of one forward pass.

    `sources` index the order's; `teacher` is None where distributions come with the batches.
    """

    recipe: DistillRecipe
    sources: frozenset[int]
    loss: HeadLoss
    teacher: Root | None = None

    def num_with_loss(self, batch: Batch) -> int:
        """Return how many labels of a batch count for the next-token loss."""
        return int((self._labels(batch) != IGNORED_LABEL).sum())

    def __call__(self, model: Any, batch: Batch, /) -> tuple[Tensor, Tensor]:
        """Return the objective's sum over the batch's tokens, with its graph, and what it is of.

        The second is float64 [3]: Σ nats, Σ KL in nats, and the tokens of the latter. Of many
        ranks each calls this as often as the others.
        """
        student = self.loss.scored(model, batch.input_ids, batch.position_ids, batch.bounds())
        nats = self.loss.nats_of(student, self._labels(batch))
        parts = torch.zeros(3, dtype=torch.float64, device=nats.device)
        parts[0] = nats.detach()
        rows = self._rows(batch)
        if not rows:
            if self.teacher is not None and is_sharded(self.teacher):
                self._ask(self.teacher, batch.of_rows([0]))  # the others do, and it is collective
                reshard(self.teacher)  # as theirs: what is gathered is gathered on all
            return nats, parts
        taught = batch if len(rows) == len(batch.input_ids) else batch.of_rows(rows)
        if taught is not batch:
            student = student.of_rows(_places(rows, batch.input_ids))
        teacher = self._stored(taught) if self.teacher is None else self._ask(self.teacher, taught)
        counts = taught.labels.flatten() != IGNORED_LABEL
        if isinstance(teacher, StoredTopK):
            # Nothing stands before the first token of a document.
            counts &= teacher.log_probs[:, 0].isfinite()
        temperature = self.recipe.temperature
        assert temperature is not None
        term = chunked_divergence(
            student, teacher, counts, temperature=temperature, chunk_bytes=self.loss.chunk_bytes
        )
        if self.teacher is not None:
            reshard(self.teacher)  # its head was needed until here
        parts[1] = term.detach() / temperature**2
        parts[2] = counts.sum()
        return nats + self.recipe.weight * term, parts

    @torch.no_grad()
    def _ask(self, teacher: Root, batch: Batch) -> Scored:
        found: Scored = teacher(
            self.loss.scored, batch.input_ids, batch.position_ids, batch.bounds()
        )
        return found

    @staticmethod
    def _stored(batch: Batch) -> StoredTopK:
        assert batch.top_ids is not None
        assert batch.top_log_probs is not None
        return StoredTopK(batch.top_ids.flatten(0, 1), batch.top_log_probs.flatten(0, 1))

    def _rows(self, batch: Batch) -> list[int]:
        return [row for row, source in enumerate(batch.source.tolist()) if source in self.sources]

    def _labels(self, batch: Batch) -> Tensor:
        """Return the labels of the next-token loss."""
        rows = self._rows(batch)
        if not self.recipe.replaces_loss or not rows:
            return batch.labels
        where = at_once(torch.tensor(rows), batch.labels.device)
        return batch.labels.index_fill(0, where, IGNORED_LABEL)


def _places(rows: Sequence[int], input_ids: Tensor) -> Tensor:
    """Return where the tokens of some rows are in the flattened batch, int64."""
    length = input_ids.shape[1]
    places = torch.tensor(rows)[:, None] * length + torch.arange(length)
    return at_once(places.flatten(), input_ids.device)
