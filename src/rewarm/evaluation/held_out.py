"""Metrics on held-out documents: bits per byte, and the choice of the true continuation."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from rewarm.evaluation.measure import Built, Floats, Measure, share_of_best
from rewarm.evaluation.passages import Framing, Passage, Tokens
from rewarm.evaluation.selection import (
    HeldOutDocuments,
    choose_documents,
    keyed_digest,
    keyed_order,
)
from rewarm.evaluation.statistics import least_items
from rewarm.records.facts import Role

__all__ = ["NUM_CHOICES", "bits_per_byte", "matched_continuation"]

NUM_CHOICES = 4
"""The true continuation and those of three other documents."""


def bits_per_byte(
    documents: HeldOutDocuments, *, domain: str, role: Role, framing: Framing, max_bytes: int
) -> Built:
    """Return the measure Σ nats / (ln 2 · Σ UTF-8 bytes) of a domain's held-out documents.

    Every byte of a chosen document is scored, its first token after the begin tokens (or, where
    the base has none, after the end tokens). Raises ValueError for a document framed otherwise.
    """
    chosen, warnings = choose_documents(documents, max_bytes=max_bytes)
    passages = [framing.passage(framing.body(documents.document(index))) for index in chosen]
    scored = [
        (passage, documents.num_bytes(index))
        for passage, index in zip(passages, chosen, strict=True)
        if passage.num_scored
    ]
    if not scored:
        return Built(None, (f"{domain}: no held-out text",))
    if len(scored) < least_items():
        warnings.append(
            f"held-out documents scored: {len(scored)}; a verdict needs {least_items()}: "
            "hold out more, or raise evaluation.max_bytes_per_domain"
        )
    measure = Measure(
        domain=domain,
        role=role,
        metric="bits_per_byte",
        passages=tuple(passage for passage, _ in scored),
        weights=tuple(size for _, size in scored),
        item_values=_identity,
    )
    return Built(measure, tuple(f"{domain}: {warning}" for warning in warnings))


def _identity(nats: Floats) -> Floats:
    return nats


class _Excerpt(NamedTuple):
    """A stretch of one document: what is given, and how it goes on."""

    context: Tokens
    continuation: Tokens


def matched_continuation(
    documents: HeldOutDocuments,
    *,
    domain: str,
    role: Role,
    framing: Framing,
    num_items: int,
    sequence_length: int,
    context_tokens: int = 48,
    continuation_tokens: int = 24,
) -> Built:
    """Return the four-way choice of a document's true continuation among those of others.

    One item per document: a context from a place fixed by the document's number, the continuation
    that follows it, and those of the next three documents in keyed order (a ring, so that each
    continuation is the truth once and a distractor three times). A candidate c scores
    log p(c | context) − log p(c | frame), the frame being the begin (or end) tokens: what is likely
    anywhere gains nothing. Ties share the point; chance is 1/4. The standard error takes items as
    independent. A domain with too few documents that are long enough has fewer items, or none,
    and a warning.
    """
    needed = context_tokens + continuation_tokens
    if len(framing.context) + needed > sequence_length + 1:
        return Built(
            None,
            (f"{domain}: no matched continuation, a sequence has fewer than {needed} tokens",),
        )
    excerpts = _excerpts(documents, framing, num_items, context_tokens, continuation_tokens)
    if len(excerpts) < NUM_CHOICES:
        return Built(
            None,
            (
                f"{domain}: no matched continuation, {len(excerpts)} items (of held-out documents "
                f"of {needed} tokens or more) are too few to choose among {NUM_CHOICES}",
            ),
        )
    warnings = []
    if len(excerpts) < num_items:
        warnings.append(
            f"{domain}: {len(excerpts)} instead of {num_items} matched continuations, no more "
            f"held-out documents have {needed} tokens"
        )
    measure = Measure(
        domain=domain,
        role=role,
        metric="matched_continuation",
        passages=_ring(excerpts, framing),
        weights=(1,) * len(excerpts),
        item_values=functools.partial(_ring_values, len(excerpts)),
        chance=1.0 / NUM_CHOICES,
    )
    return Built(measure, tuple(warnings))


def _excerpts(
    documents: HeldOutDocuments,
    framing: Framing,
    num_items: int,
    context_tokens: int,
    continuation_tokens: int,
) -> list[_Excerpt]:
    """Return up to `num_items` excerpts, from as many documents in keyed order."""
    needed = context_tokens + continuation_tokens
    excerpts: list[_Excerpt] = []
    for index in keyed_order(documents.num_documents, "matched continuation"):
        if len(excerpts) == num_items:
            break
        body = framing.body(documents.document(index))
        if len(body) >= needed:
            start = keyed_digest(index, "place of the excerpt") % (len(body) - needed + 1)
            excerpt = body[start : start + needed]
            excerpts.append(_Excerpt(excerpt[:context_tokens], excerpt[context_tokens:]))
    return excerpts


def _ring(excerpts: list[_Excerpt], framing: Framing) -> tuple[Passage, ...]:
    """Return the passages: n × 4 continuations in context, then n continuations on their own."""
    num_items = len(excerpts)
    conditional = [
        framing.passage(
            np.concatenate([given, excerpts[(item + choice) % num_items].continuation]), len(given)
        )
        for item, (given, _) in enumerate(excerpts)
        for choice in range(NUM_CHOICES)
    ]
    alone = [framing.passage(excerpt.continuation) for excerpt in excerpts]
    return (*conditional, *alone)


def _ring_values(num_items: int, nats: Floats) -> Floats:
    """Return 1 (shared in ties) for every item whose own continuation, choice 0, scores best."""
    conditional = nats[: num_items * NUM_CHOICES].reshape(num_items, NUM_CHOICES)
    alone = nats[num_items * NUM_CHOICES :]
    ring = (np.arange(num_items)[:, None] + np.arange(NUM_CHOICES)) % num_items
    scores = alone[ring] - conditional  # log p(c | context) − log p(c | frame)
    return np.array([share_of_best(row, 0) for row in scores])
