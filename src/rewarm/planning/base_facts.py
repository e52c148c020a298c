"""What is written down of a released base: each fact with the document that says so.

A fact that no document gives is None and shown as such; nothing is filled in by analogy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Fact", "KnownBase", "ReplayData", "Shape", "tenth_of"]

T = TypeVar("T")


class Fact(NamedTuple, Generic[T]):
    """A value and the document that it was read in: arXiv id, model card or repository file."""

    value: T
    source: str


class Shape(NamedTuple):
    """What a checkpoint's `config.json` shows of its size; None is not compared.

    Fine-tuned copies have the shape of their base.
    """

    model_type: str
    hidden_size: int
    num_layers: int
    vocab_size: int | None = None
    max_positions: int | None = None


class ReplayData(NamedTuple):
    """Data sets on the hub that hold the base's pretraining text, or the nearest open ones."""

    hub_ids: tuple[str, ...]
    is_proxy: bool
    source: str
    """The document that names them; for a proxy, why these are taken in its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownBase:
    """One released base. Rates are those of the optimizer; counts are in tokens.

    `final_lr` is the rate at the last step that led to the weights on the hub: 0 where the last
    stage decays to nothing. `sequence_length` is that of the main part of the pretraining, before
    any stage for longer contexts.
    """

    name: str
    family: str
    hub_ids: tuple[str, ...]
    shape: Shape | None
    """None: recognised by its hub id alone."""
    schedule: Fact[str] | None = None
    peak_lr: Fact[float] | None = None
    final_lr: Fact[float] | None = None
    tokens: Fact[int] | None = None
    batch_tokens: Fact[int] | None = None
    sequence_length: Fact[int] | None = None
    betas: Fact[tuple[float, float]] | None = None
    weight_decay: Fact[float] | None = None
    data: ReplayData
    note: str = ""


def tenth_of(rate: float) -> float:
    """Return a tenth of a rate as people write it: 3e-4 gives 3e-5, not 2.9999999999999997e-5."""
    return float(f"{rate / 10:.12g}")
