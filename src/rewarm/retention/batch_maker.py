"""Makes the part of a batch: prompts, samples, documents, and why some are dropped."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from rewarm.corpus.near_duplicates import signature
from rewarm.corpus.prefixes import Prefixes
from rewarm.corpus.rehearsed import Rehearsal
from rewarm.corpus.tokenize import Encoder
from rewarm.errors import BaseModelError, CorpusError
from rewarm.model.growing_cache import check_cache
from rewarm.order.shuffle import derive_key, permute
from rewarm.retention.degenerate import REASONS, Sieve
from rewarm.retention.parts import Part
from rewarm.retention.sampling import Choice, Sampled, sample_batch, uniforms

__all__ = ["BatchMaker", "Sampler"]


@dataclass(frozen=True, slots=True)
class Sampler:
    """What samples: the base, loaded when the first batch needs it, and what it starts from.

    `placement` says in words on what: other devices, types or numbers of threads round sums
    otherwise.
    """

    load_model: Callable[[], nn.Module]
    load_prefixes: Callable[[Encoder], Prefixes]
    placement: str


class BatchMaker:
    """Samples and judges batches; the base is loaded once and asked whether its cache is right."""

    def __init__(self, rehearsal: Rehearsal, encoder: Encoder, sampler: Sampler) -> None:
        self._rehearsal = rehearsal
        self._recipe = rehearsal.recipe
        self._encoder = encoder
        self._placement = sampler.placement
        self._prefixes = sampler.load_prefixes(encoder)
        if not len(self._prefixes):
            raise CorpusError.one(
                f"sources.{rehearsal.name}.rehearse.prefixes",
                f"{self._recipe.prefixes!r} has no training document to begin with",
                "lower its held_out share, or take prefixes from elsewhere",
            )
        self._model = sampler.load_model()
        check_cache(self._model, vocab_size=rehearsal.vocab_size)
        self._sieve = Sieve(
            self._recipe.min_tokens,
            self._recipe.max_repeat_share,
            self._recipe.min_compressed_share,
        )
        known = np.zeros(rehearsal.vocab_size, dtype=np.bool_)
        ids = np.array(list(encoder.tokenizer.get_vocab().values()))
        known[ids[ids < rehearsal.vocab_size]] = True
        self._choice = Choice(
            temperature=self._recipe.temperature,
            top_k=self._recipe.top_k,
            top_p=self._recipe.top_p,
            allowed=None if known.all() else known,
        )

    def make(self, batch: int, watch: Callable[[int], None]) -> Part:
        """Return the part of a batch: nothing but its number tells it from another."""
        started = time.perf_counter()
        frame = self._encoder.frame
        num_rows = self._recipe.batch_samples
        sampled = sample_batch(
            self._model,
            self._prompts(batch),
            uniforms(self._recipe.seed, batch, (self._rehearsal.max_tokens, num_rows)),
            self._choice,
            end=frame.end or frame.begin,
            num_top=self._recipe.top_k_logits,
            watch=watch,
        )
        if not np.isfinite(sampled.nats).all():
            raise BaseModelError.one(
                "base.path",
                f"its predictions are not finite in {self._recipe.precision}",
                'set rehearse.precision to "float32", or get an intact checkpoint',
            )
        return self._judge(sampled, started)

    def _prompts(self, batch: int) -> list[NDArray[np.int64]]:
        """Return what each sample begins with: every prefix once before any comes again."""
        frame = self._encoder.frame
        context = np.array(frame.begin or frame.end, dtype=np.int64)
        first = batch * self._recipe.batch_samples
        numbers = np.arange(first, first + self._recipe.batch_samples)
        passes, places = np.divmod(numbers, len(self._prefixes))
        keys = np.array(
            [derive_key(self._recipe.seed, "prefixes", int(each)) for each in passes],
            dtype=np.uint64,
        )
        chosen = permute(places, len(self._prefixes), keys).tolist()
        return [np.concatenate([context, self._prefixes[index]]) for index in chosen]

    def _judge(self, sampled: Sampled, started: float) -> Part:
        """Cut the samples to documents, and say of each why it is dropped, or that it is not."""
        frame = self._encoder.frame
        # Where documents begin with nothing, the end of one before them was their context; where
        # they end with nothing, the beginning of one behind them was their end.
        front = 0 if frame.begin else len(frame.end)
        back = 0 if frame.end else len(frame.begin)
        stops = sampled.lengths - np.where(sampled.ended, back, 0)
        own_stops = stops - np.where(sampled.ended, len(frame.end), 0)
        starts = sampled.prompt_lengths
        own = [
            row[start:stop]
            for row, start, stop in zip(sampled.tokens, starts, own_stops, strict=True)
        ]
        texts = self._encoder.tokenizer.decode_batch([ids.tolist() for ids in own])
        reasons = [
            self._sieve.reason(
                ids,
                text.encode("utf-8", "replace"),
                holds_special_token=bool(self._encoder.is_special[ids].any()),
            )
            for ids, text in zip(own, texts, strict=True)
        ]
        documents = [row[front:stop] for row, stop in zip(sampled.tokens, stops, strict=True)]
        return Part(
            tokens=np.concatenate(documents).astype(np.int32),
            lengths=stops - front,
            prompt_lengths=starts - front,
            num_sampled=sampled.lengths - starts,
            ended=sampled.ended,
            nats=sampled.nats,
            reasons=np.array([REASONS.index(reason) for reason in reasons], dtype=np.int8),
            signatures=np.stack([signature(document) for document in documents]),
            top_ids=_joined(sampled.top_ids, front, stops).astype(np.int32),
            top_log_probs=_joined(sampled.top_log_probs, front, stops),
            elapsed_s=np.float64(time.perf_counter() - started),  # type: ignore[arg-type]
            placement=np.str_(self._placement),  # type: ignore[arg-type]
        )


def _joined(rows: NDArray[Any], front: int, stops: NDArray[np.int64]) -> NDArray[Any]:
    """Return the rows [rows, time, k] of the documents laid end to end, [tokens, k]."""
    documents: NDArray[Any] = np.concatenate(
        [row[front:stop] for row, stop in zip(rows, stops, strict=True)]
    )
    return documents
