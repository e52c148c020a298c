"""The batch of a step: a pure function of (order, step), so there is no iterator to save.

The order says which window of which source fills each slot; a view gathers the windows' inputs and
labels, of which those that are not trained on (padding, the prompts of conversations) are
IGNORED_LABEL.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rewarm.corpus.views import IGNORED_LABEL, Sequences
from rewarm.errors import CorpusError
from rewarm.order.position import OrderSpec, Slots, slots_of_rank

__all__ = [
    "IGNORED_LABEL",
    "Batch",
    "BatchLoader",
    "Batches",
    "PrefetchedBatches",
    "StoredDistributions",
    "WindowSource",
    "at_once",
]

Integers = NDArray[np.int64]


class WindowSource(Protocol):
    """One source's tokens, cut into windows."""

    def sequences(self, windows: Integers, sequence_length: int, /) -> Sequences:
        """Return inputs and labels of windows, int64 [n] → [n, sequence_length] each."""
        ...

    def positions(self, windows: Integers, sequence_length: int, /) -> Integers:
        """Return each input's place in its document, int64 [n] → [n, sequence_length]."""
        ...


class StoredDistributions(Protocol):
    """What the base said of one source's tokens: its likeliest ones at each place."""

    @property
    def num_top(self) -> int:
        """Tokens that are kept at each place."""
        ...

    def gather(
        self, windows: Integers, sequence_length: int, /
    ) -> tuple[Integers, NDArray[np.float32]]:
        """Return ids and log-probabilities at the labels of windows, [n, sequence_length, k].

        Likeliest first; −inf where nothing stands before a label in its document.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The sequences of one step (or one rank's share of them), on the CPU.

    `input_ids` and `labels` are int64 [sequences, time]; the label of a position is the token that
    follows it, or IGNORED_LABEL. `position_ids`, of the same shape, start again at 0 with every
    document; None where documents of one sequence see each other. `source` is int64 [sequences] and
    indexes the order's sources; `starts` has for each sequence where its documents begin. Both stay
    with the host, which would have to wait for what it asks of a device. `top_ids` (int64) and
    `top_log_probs` (float32), both [sequences, time, k], are what the base said of each label,
    where that is stored. `waited_s` is how long a step waited for it.
    """

    step: int
    input_ids: Tensor
    labels: Tensor
    source: Integers
    position_ids: Tensor | None = None
    starts: tuple[Integers, ...] | None = None
    top_ids: Tensor | None = None
    top_log_probs: Tensor | None = None
    waited_s: float = 0.0

    @property
    def num_valid_tokens(self) -> int:
        """Labels that count."""
        return int((self.labels != IGNORED_LABEL).sum())

    def of_rows(self, rows: slice | list[int]) -> Batch:
        """Return the batch of some of its sequences."""
        chosen = self._each(lambda tensor: tensor[rows])
        starts = self.starts
        if starts is not None:
            starts = starts[rows] if isinstance(rows, slice) else tuple(starts[row] for row in rows)
        return replace(chosen, source=self.source[rows], starts=starts)

    def bounds(self) -> Tensor | None:
        """Return where documents begin in the flattened batch, and its length; on its device.

        int32 [documents + 1], as attention kernels want it. None where documents see each other.
        """
        if self.starts is None:
            return None
        length = self.input_ids.shape[1]
        ends = [np.array([len(self.starts) * length])]
        bounds = np.concatenate([row * length + own for row, own in enumerate(self.starts)] + ends)
        return at_once(torch.from_numpy(bounds.astype(np.int32)), self.input_ids.device)

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on a device; what is pinned is not waited for."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """Return the batch in memory from which a GPU copies by itself."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        def changed(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else change(tensor)

        return replace(
            self,
            input_ids=change(self.input_ids),
            labels=change(self.labels),
            position_ids=changed(self.position_ids),
            top_ids=changed(self.top_ids),
            top_log_probs=changed(self.top_log_probs),
        )


def at_once(found: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host's on a device; a GPU is not waited for, as it otherwise would."""
    return found.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else found


class Batches(Protocol):
    """Whatever gives the batch of a step."""

    def batch(self, step: int, /) -> Batch:
        """Return the batch of a step; the same one whenever and how often it is asked for."""
        ...


class BatchLoader:
    """Gathers the batch of any step, at the same cost wherever in the run it lies."""

    def __init__(
        self,
        order: OrderSpec,
        views: Mapping[str, WindowSource],
        *,
        sequence_length: int,
        vocab_size: int,
        mask_documents: bool = False,
        rank: int = 0,
        num_ranks: int = 1,
        stored: Mapping[str, StoredDistributions] | None = None,
    ) -> None:
        """`views` has every source of the order by name; a missing one is a KeyError.

        `stored` has sources whose distributions come with the batches; where they keep unlike
        numbers of tokens, the fewest of them.
        """
        self._order = order
        self._views = tuple(views[name] for name in order.source_names)
        self._sequence_length = sequence_length
        self._vocab_size = vocab_size
        self._mask_documents = mask_documents
        self._rank = rank
        self._num_ranks = num_ranks
        self._stored = {
            order.source_names.index(name): found for name, found in (stored or {}).items()
        }

    def batch(self, step: int, /) -> Batch:
        """Return this rank's batch of a step.

        Raises CorpusError for a token outside of the vocabulary, which an embedding would answer
        with a crash or, on a GPU, with an assertion that names nothing.
        """
        slots = slots_of_rank(self._order, step, self._rank, self._num_ranks)
        length = self._sequence_length
        shape = (len(slots.source), length)
        inputs, labels, positions = (np.empty(shape, dtype=np.int64) for _ in range(3))
        for source in np.unique(slots.source):
            rows = np.flatnonzero(slots.source == source)
            inputs[rows], labels[rows] = self._views[source].sequences(slots.window[rows], length)
            if self._mask_documents:
                positions[rows] = self._views[source].positions(slots.window[rows], length)
        self._check_vocabulary(inputs, labels, slots)
        top_ids, top_log_probs = self._distributions(slots)
        return Batch(
            step=step,
            input_ids=torch.from_numpy(inputs),
            labels=torch.from_numpy(labels),
            source=slots.source,
            position_ids=torch.from_numpy(positions) if self._mask_documents else None,
            starts=tuple(np.flatnonzero(row == 0) for row in positions)
            if self._mask_documents
            else None,
            top_ids=top_ids,
            top_log_probs=top_log_probs,
        )

    def _distributions(self, slots: Slots) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Return what the base said of each label; of sources without it, that it said nothing."""
        if not self._stored:
            return None, None
        num_top = min(found.num_top for found in self._stored.values())
        shape = (len(slots.source), self._sequence_length, num_top)
        ids = np.zeros(shape, dtype=np.int64)
        log_probs = np.full(shape, -np.inf, dtype=np.float32)
        for source, found in self._stored.items():
            rows = np.flatnonzero(slots.source == source)
            if rows.size:
                of_rows = found.gather(slots.window[rows], self._sequence_length)
                ids[rows], log_probs[rows] = (part[..., :num_top] for part in of_rows)
        return torch.from_numpy(ids), torch.from_numpy(log_probs)

    def _check_vocabulary(self, inputs: Integers, labels: Integers, slots: Slots) -> None:
        """Raise CorpusError naming the first token that the embedding has no row for."""
        for tokens in (inputs, np.where(labels == IGNORED_LABEL, 0, labels)):
            if not tokens.size or (tokens.min() >= 0 and tokens.max() < self._vocab_size):
                continue
            row, place = np.argwhere((tokens < 0) | (tokens >= self._vocab_size))[0]
            name = self._order.source_names[slots.source[row]]
            raise CorpusError.one(
                f"sources.{name}",
                f"a token of its training text (window {slots.window[row]}, place {place}) is id "
                f"{tokens[row, place]}, but the model's vocabulary has {self._vocab_size} entries",
                "prepare the source again with the base's own tokenizer (`rewarm prepare`)",
            )


class PrefetchedBatches:
    """Gathers the following step's batch in a thread while the present one is trained on.

    Changes no batch: each is still a function of its step. Only sources that wait for a disk gain.
    """

    def __init__(self, batches: Batches, num_steps: int, *, pins: bool = False) -> None:
        """`num_steps` is where the order ends: nothing beyond it is asked for.

        `pins` is for a GPU: batches then lie in pinned memory, put there in the thread too.
        """
        self._batches = batches
        self._num_steps = num_steps
        self._pins = pins
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self._ahead: tuple[int, Future[Batch]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def batch(self, step: int, /) -> Batch:
        """Return the batch of a step, gathered ahead where it is the one that was expected."""
        started = time.perf_counter()
        ahead = self._ahead
        found = (
            ahead[1].result() if ahead is not None and ahead[0] == step else self._gathered(step)
        )
        self._ahead = None
        if step + 1 < self._num_steps:
            self._ahead = (step + 1, self._executor.submit(self._gathered, step + 1))
        return replace(found, waited_s=time.perf_counter() - started)

    def _gathered(self, step: int) -> Batch:
        batch = self._batches.batch(step)
        return batch.pinned() if self._pins else batch
