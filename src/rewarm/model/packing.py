"""Documents that share a sequence, kept apart, and the road by which they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rewarm.errors import BaseModelError
from rewarm.model.document_attention import (
    NAME_OF,
    VARLEN_NAMES,
    WHOLE_NAME,
    Road,
    register_roads,
)
from rewarm.model.modes import evaluating

__all__ = ["DocumentAttention", "Within", "check_documents_apart", "packed_inputs"]

_DOCUMENT = 6
_LONG_DOCUMENT = 200  # longer than what roads may treat in another way than short ones
# Rounding, relative to the largest logit; a leak is a thousand times that, random weights or not.
_TOLERANCE = 1e-4
# Two kernels against each other, relative to each token's vector: rounding adds up over the layers,
# and in half precision to some per cent; a token that sees another document is off by its size.
_ROAD_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
_HALF_ROAD_TOLERANCE = 0.1
_MAX_REASON = 200
# What configurations call the span beyond which a layer does not look back.
_WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")

Within = Callable[..., Any]
"""`within(work, *arguments)` calls `work(model, *arguments)` where the weights are whole."""


def packed_inputs(
    model: Any, position_ids: Tensor | None, bounds: Tensor | None = None
) -> dict[str, Any]:
    """Return what a forward pass is told of the documents in its sequences.

    `position_ids`, int64 [batch, time], start again at 0 with every document and with every row.
    `bounds`, int32 [documents + 1], are the running sum of the documents' lengths in the flattened
    batch; without them the device is asked where positions are 0, and waited for.
    """
    if position_ids is None:
        return {}
    told: dict[str, Any] = {"position_ids": position_ids}
    if model.config._attn_implementation in VARLEN_NAMES:
        if bounds is None:
            flat = position_ids.flatten()
            starts = (flat == 0).nonzero().flatten()
            bounds = F.pad(starts, (0, 1), value=len(flat)).to(torch.int32)
        told |= {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds}
        # No document is longer; what the longest one has would have to be waited for.
        told |= {"max_length_q": position_ids.shape[1], "max_length_k": position_ids.shape[1]}
    return told


class DocumentAttention:
    """Which attention a model trains with, so that documents of a sequence are kept apart."""

    def __init__(self, roads: Sequence[Road], *, sequence_length: int) -> None:
        """`roads` are tried in their order; the mask, with which models are loaded, needs none."""
        self._roads = [road for road in roads if road != "mask"]
        self._sequence_length = sequence_length
        self._loaded: str | None = None
        self._taken: Road = "mask"

    @property
    def taken(self) -> Road:
        """The road that a model was put on; the mask until `settle` has found a better one."""
        return self._taken

    def settle(
        self,
        model: Any,
        *,
        within: Within | None = None,
        agree: Callable[[str | None], str | None] = lambda why: why,
    ) -> list[str]:
        """Put a model on the first road that gives what the mask gives; return why others do not.

        Hidden states, and their gradients, of some made-up documents are compared, one of them
        longer than the model's window where sequences can be. `agree` returns the first reason of
        all ranks, who try the same roads. Collective.
        """
        if not self._roads:
            return []
        within = within or (lambda work, *arguments: work(model, *arguments))
        register_roads()
        self._loaded, self._taken = model.config._attn_implementation, "mask"
        probe = _Probe.of(model, self._sequence_length)
        told: list[str] = []
        with evaluating(model):
            expected = within(_told_as_reason, probe)
            if isinstance(expected, str):
                return [f"documents are kept apart by a mask, others cannot be tried: {expected}"]
            for road in self._roads:
                why = _tried(model, NAME_OF[road], probe, expected, within, agree)
                if why is None:
                    self._taken = road
                    return told
                told.append(f"documents cannot be kept apart by {road}: {why}")
            model.set_attn_implementation(self._loaded)
        return told

    def settle_whole(
        self,
        model: Any,
        *,
        within: Within | None = None,
        agree: Callable[[str | None], str | None] = lambda why: why,
    ) -> str | None:
        """Put a model on causal attention over whole sequences; return why it is left as it is.

        Without a name for what needs no mask, transformers looks at each forward pass whether
        positions are those of documents, which on a GPU waits for all that it has to do.
        Collective.
        """
        within = within or (lambda work, *arguments: work(model, *arguments))
        register_roads()
        self._loaded = model.config._attn_implementation
        probe = replace(_Probe.of(model, self._sequence_length), position_ids=None)
        with evaluating(model):
            expected = within(_told_as_reason, probe)
            if isinstance(expected, str):
                return expected
            why = _tried(model, WHOLE_NAME, probe, expected, within, agree)
            if why is not None:
                model.set_attn_implementation(self._loaded)
        return why

    @contextlib.contextmanager
    def as_loaded(self, model: Any) -> Iterator[None]:
        """Give a model back the attention that it was loaded with, for the length of a block.

        What is measured then does not depend on the road, and `rewarm evaluate` gets the same.
        """
        own = model.config._attn_implementation
        if self._loaded is None or own == self._loaded:
            yield
            return
        model.set_attn_implementation(self._loaded)
        try:
            yield
        finally:
            model.set_attn_implementation(own)


@dataclass(frozen=True, slots=True, eq=False)
class _Probe:
    """Two rows of made-up documents, cut at other places in each; int64 [2, time]."""

    ids: Tensor
    position_ids: Tensor | None

    @classmethod
    def of(cls, model: Any, sequence_length: int) -> _Probe:
        """Return documents one of which is longer than the window, if sequences can be."""
        windows = [getattr(model.config, name, None) for name in _WINDOWS]
        window = max(
            (size for size in windows if isinstance(size, int) and 0 < size < sequence_length),
            default=0,
        )
        longest = min(window + _LONG_DOCUMENT, sequence_length)
        rows = ((3, 1, longest, 5), (longest, 2, 1, 6))
        positions = torch.stack(
            [torch.cat([torch.arange(length) for length in row]) for row in rows]
        )
        device = next(model.parameters()).device
        vocab_size = model.get_input_embeddings().weight.shape[0]
        places = torch.arange(positions.numel(), device=device).view(2, -1)
        return cls(places * 7919 % vocab_size, positions.to(device))

    def __call__(self, model: Any) -> tuple[Tensor, Tensor]:
        """Return the last hidden states and the gradient of a sum of them at the embeddings."""
        body = getattr(model, model.base_model_prefix)
        with torch.no_grad():
            embedded = model.get_input_embeddings()(self.ids)
        with torch.enable_grad():
            leaf = embedded.detach().requires_grad_()
            told = packed_inputs(model, self.position_ids)
            hidden = body(inputs_embeds=leaf, use_cache=False, **told).last_hidden_state
            signs = torch.arange(hidden.numel(), device=hidden.device).view_as(hidden).sin()
            (gradient,) = torch.autograd.grad((hidden * signs.to(hidden)).sum(), leaf)
        return hidden.detach(), gradient


def _told_as_reason(model: Any, probe: _Probe) -> tuple[Tensor, Tensor] | str:
    """Return what a probe finds, or why it finds nothing: kernels raise whatever they like."""
    try:
        return probe(model)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:_MAX_REASON]}"


def _tried(
    model: Any,
    name: str,
    probe: _Probe,
    expected: tuple[Tensor, Tensor],
    within: Within,
    agree: Callable[[str | None], str | None],
) -> str | None:
    """Put a model on the attention of a name; return why it cannot be used, or None."""
    # Agreed on before the probe too: a rank that lacks a package would not come to it.
    why = agree(_put_on(model, name))
    return why if why is not None else agree(_difference(probe, expected, within))


def _put_on(model: Any, name: str) -> str | None:
    try:
        model.set_attn_implementation(name)
    except Exception as error:  # a package that is not there, a model that does not support it
        return f"{type(error).__name__}: {' '.join(str(error).split())[:_MAX_REASON]}"
    if model.config._attn_implementation != name:
        return f"{type(model).__name__} does not let its attention be chosen"
    return None


def _difference(probe: _Probe, expected: tuple[Tensor, Tensor], within: Within) -> str | None:
    """Return what a model does otherwise than as it was loaded, or None."""
    found = within(_told_as_reason, probe)
    if isinstance(found, str):
        return found
    for what, ours, theirs in zip(("hidden states", "gradients"), found, expected, strict=True):
        difference = _furthest(ours, theirs)
        if not difference <= _road_tolerance(theirs):
            return f"its {what} differ from the mask's by {difference:.2g} of their size"
    return None


def _road_tolerance(expected: Tensor) -> float:
    if torch.is_autocast_enabled(expected.device.type):
        return _HALF_ROAD_TOLERANCE
    return _ROAD_TOLERANCE.get(expected.dtype, _HALF_ROAD_TOLERANCE)


def _furthest(found: Tensor, expected: Tensor) -> float:
    """Return how far the furthest token is off, as a share of the expected vector's norm."""
    found, expected = found.double(), expected.double()
    norms = expected.norm(dim=-1)
    # A token that nothing hangs on has a gradient of next to nothing: it weighs as the typical one.
    share = (found - expected).norm(dim=-1) / norms.maximum(norms.median()).clamp(min=1e-30)
    return float(share.max())


def check_documents_apart(model: Any, *, vocab_size: int, within: Within | None = None) -> None:
    """Raise BaseModelError where a document's logits depend on the one before it in its sequence.

    `model` is a causal model of transformers. Two short sequences of made-up tokens go through it,
    one after the other: another first document, the same second one, positions starting again at 0.
    (In one batch, a kernel in bf16 may round the second row in another way than the first.)
    Architectures that carry a state along (recurrent, convolutional) or take no positions fail.
    `within` calls `work(model, *arguments)` where a sharded model's weights are whole.
    """
    device = next(model.parameters()).device
    places = torch.arange(2 * _DOCUMENT, device=device) * 7919
    first = places % vocab_size
    other = first.clone()
    other[:_DOCUMENT] = (first[:_DOCUMENT] + 1) % vocab_size
    positions = torch.arange(_DOCUMENT, device=device).repeat(2)[None]

    def second_logits(model: Any, tokens: Tensor) -> Tensor:
        told = packed_inputs(model, positions)
        logits: Tensor = model(input_ids=tokens[None], use_cache=False, **told).logits
        return logits[0, _DOCUMENT:].float()

    within = within or (lambda work, *arguments: work(model, *arguments))
    with evaluating(model), torch.no_grad():
        ours, theirs = within(second_logits, first), within(second_logits, other)
    if float((ours - theirs).abs().max()) > _TOLERANCE * float(ours.abs().max()):
        raise BaseModelError.one(
            "batch.mask_documents",
            f"in {type(model).__name__} a document's predictions depend on the one before it in "
            "its sequence, whatever their positions say",
            "set batch.mask_documents = false: documents of a sequence then see each other",
        )
