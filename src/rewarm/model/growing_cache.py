"""Keys and values of tokens that were read already, kept while a model writes token after token.

The library's own growing layer copies everything it holds at every token; this one keeps room
ahead, so that a token costs the copy of one token. Sliding-window layers are the library's.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from rewarm.errors import BaseModelError
from rewarm.model.modes import evaluating

__all__ = ["check_cache", "new_cache"]

_ROOM_TOKENS = 256
# Of the largest logit: far above what the order of sums costs, far below any fault.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9}
_COARSE_TOLERANCE = 0.1


class _GrowingLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped here
    """A layer of full attention; `keys` and `values` are views of buffers with room ahead."""

    _key_room: Tensor
    _value_room: Tensor

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append states [rows, heads, tokens, size] and return all that there are."""
        old = self.get_seq_length()
        new = old + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._key_room, self._value_room = _room(key_states, new), _room(value_states, new)
        elif new > self._key_room.shape[-2]:
            for name, states in (("_key_room", self.keys), ("_value_room", self.values)):
                grown = _room(states, new)
                grown[:, :, :old] = states
                setattr(self, name, grown)
        self._key_room[:, :, old:new] = key_states
        self._value_room[:, :, old:new] = value_states
        self._show(new)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows alone."""
        length = self.get_seq_length()
        if length:
            self._key_room = self._key_room[indices]
            self._value_room = self._value_room[indices]
            self._show(length)

    def _show(self, length: int) -> None:
        self.keys, self.values = self._key_room[:, :, :length], self._value_room[:, :, :length]


def _room(states: Tensor, length: int) -> Tensor:
    rounded = -(-length // _ROOM_TOKENS) * _ROOM_TOKENS
    return states.new_empty(*states.shape[:2], rounded, states.shape[-1])


def new_cache(model: nn.Module) -> Cache:
    """Return an empty cache for a causal model; `batch_select_indices` drops rows that are done."""
    cache = DynamicCache(config=model.config)
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[index] = _GrowingLayer()
    return cache


def check_cache(model: nn.Module, *, vocab_size: int) -> None:
    """Make sure that a model predicts the same with its cache as without, rows dropped included.

    Raises BaseModelError where it does not: what it wrote would not be its own.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocab_size, (3, 12), generator=generator).to(device)
    rows = torch.tensor([0, 2], device=device)
    with torch.no_grad(), evaluating(model):
        whole = model(input_ids=ids, use_cache=False).logits
        cache = new_cache(model)
        parts = [model(input_ids=ids[:, :4], past_key_values=cache, use_cache=True).logits[rows]]
        cache.batch_select_indices(rows)
        for place in range(4, ids.shape[1]):
            step = ids[rows, place : place + 1]
            parts.append(model(input_ids=step, past_key_values=cache, use_cache=True).logits)
    difference = float((torch.cat(parts, dim=1) - whole[rows]).abs().max())
    scale = float(whole.abs().max())
    if not math.isfinite(scale):
        raise BaseModelError.one(
            "base.path",
            f"its predictions are not finite in {whole.dtype}".replace("torch.", ""),
            'set rehearse.precision to "float32", or get an intact checkpoint',
        )
    if not difference <= _TOLERANCE.get(whole.dtype, _COARSE_TOLERANCE) * scale:
        raise BaseModelError.one(
            "base.path",
            f"with its keys and values kept it predicts otherwise (by {difference:.3g}, where its "
            f"largest logit is {scale:.3g}): what it wrote would not be its own",
            "use a base of another architecture, or text from elsewhere in place of rehearse",
        )
