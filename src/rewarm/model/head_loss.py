"""The objective that takes hidden states and head, and is held against the model's own logits.

What families do between head and softmax (a cap, a scale, a bias) is taken from their configuration
and modules, and then not trusted: `HeadLoss.settle` compares losses and gradients with those of the
model's own logits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from rewarm.model.chunked_divergence import Scored
from rewarm.model.chunked_loss import (
    CHUNK_BYTES,
    LogitShape,
    chunked_nats,
    chunked_token_nats,
    logit_shape_of,
    tokens_of_loss,
)
from rewarm.model.compiled import quiet_compiler, why_of
from rewarm.model.loss import (
    IGNORED,
    CausalModel,
    logits_of,
    sum_of_token_losses,
    token_losses,
)
from rewarm.model.modes import evaluating
from rewarm.model.packing import packed_inputs

__all__ = ["HeadLoss", "Nats"]

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
_HALF_TOLERANCE = 5e-2
_CHECKED = 24


class Nats(Protocol):
    """A summed loss from hidden states and head."""

    def __call__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        /,
        *,
        shape: LogitShape,
    ) -> Tensor:
        """Return what `chunked_nats` does."""
        ...


class HeadLoss:
    """A training objective without all logits at once, where a model's logits have borne it out.

    Until `settle` has, and where they do not, it is the plain loss.
    """

    def __init__(self, nats: Nats | None = None, *, chunk_bytes: int | None = None) -> None:
        """`nats` takes the loss; None: in chunks, whose float32 logits take `chunk_bytes`."""
        self.chunk_bytes = CHUNK_BYTES if chunk_bytes is None else chunk_bytes
        self._in_chunks = nats is None
        self._nats = nats or functools.partial(chunked_nats, chunk_bytes=self.chunk_bytes)
        self._token_nats = functools.partial(chunked_token_nats, chunk_bytes=self.chunk_bytes)
        self._agrees = False

    @property
    def agrees(self) -> bool:
        """Whether a model's logits have borne it out; until then it is the plain loss."""
        return self._agrees

    def __call__(
        self,
        model: CausalModel,
        input_ids: Tensor,
        labels: Tensor,
        position_ids: Tensor | None = None,
        bounds: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return what `sum_of_token_losses` does."""
        if not self._agrees:
            return sum_of_token_losses(model, input_ids, labels, position_ids, bounds)
        hidden = _hidden_of(model, input_ids, position_ids, bounds)
        total = self._through_head(self._nats, model, hidden, labels)
        return total, (labels != IGNORED).sum()

    def scored(
        self,
        model: CausalModel,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        bounds: Tensor | None = None,
    ) -> Scored:
        """Return what a model says of the tokens of a batch: hidden states and head, or logits."""
        if not self._agrees:
            return Scored(logits_of(model, input_ids, position_ids, bounds).flatten(0, 1))
        found: Any = model
        head = found.get_output_embeddings()
        return Scored(
            _hidden_of(model, input_ids, position_ids, bounds).flatten(0, 1),
            head.weight,
            getattr(head, "bias", None),
            logit_shape_of(found.config),
        )

    def nats_of(self, scored: Scored, labels: Tensor) -> Tensor:
        """Return the summed loss, a scalar with gradient; int64 labels of any shape."""
        if scored.weight is None:
            return F.cross_entropy(
                scored.values, labels.flatten(), reduction="sum", ignore_index=IGNORED
            )
        return self._nats(
            scored.values, scored.weight, scored.bias, labels.flatten(), shape=scored.shape
        )

    def token_losses(self, model: CausalModel, input_ids: Tensor, labels: Tensor) -> Tensor:
        """Return what `rewarm.model.loss.token_losses` does, without a gradient."""
        if not self._agrees:
            return token_losses(model, input_ids, labels)
        hidden = _hidden_of(model, input_ids, None)
        return self._through_head(self._token_nats, model, hidden, labels).view_as(labels)

    def settle(
        self, model: Any, *, within: Callable[..., Any] | None = None, trains: bool = True
    ) -> str | None:
        """Compare with the model's own logits; return why the plain loss stays, or None.

        Some made-up tokens are compared by their losses and, where the model `trains`, by the
        gradients of hidden states and head: for as long as that takes, two gradients of the head
        exist. `within` calls `work(model, *arguments)` where a sharded model's weights are whole.
        """
        within = within or (lambda work, *arguments: work(model, *arguments))
        ids, labels = _made_up(model)
        with evaluating(model):
            try:
                why: str | None = within(self._difference, ids, labels, trains)
            except (AttributeError, TypeError, NotImplementedError, ValueError) as error:
                return f"its head or hidden states are not where they are looked for ({error})"
        self._agrees = why is None
        return why

    def compile(
        self, model: Any, num_tokens: int, *, within: Callable[..., Any] | None = None
    ) -> str | None:
        """Compile what lies between the products of a loss in chunks that `settle` has borne out,
        for micro-batches of `num_tokens`, where it then gives the same; return why it stays as it
        is, or None.
        """
        if not (self._agrees and self._in_chunks):
            return None
        within = within or (lambda work, *arguments: work(model, *arguments))
        compiled = functools.partial(chunked_nats, chunk_bytes=self.chunk_bytes, compiled=True)

        def compare(model: Any, ids: Tensor, labels: Tensor) -> str | None:
            with torch.no_grad():
                hidden = _hidden_of(model, ids, None)
            head = model.get_output_embeddings().weight
            rows = min(num_tokens, tokens_of_loss(self.chunk_bytes, hidden, head))
            times = -(-rows // ids.numel())
            hidden = hidden.repeat(1, times, 1)[:, :rows]
            labels = labels.repeat(1, times)[:, :rows]
            found = []
            for nats in (compiled, self._nats):
                leaf = hidden.detach().requires_grad_()
                with torch.enable_grad():
                    total = self._through_head(nats, model, leaf, labels)
                    found.append((total.detach(), *_gradients(total, [leaf])))
            tolerance = _TOLERANCE[torch.float32] if hidden.dtype == torch.float32 else 0.0
            if torch.is_autocast_enabled(hidden.device.type) or not tolerance:
                tolerance = _HALF_TOLERANCE
            for what, ours, own in zip(("loss", "gradient"), *found, strict=True):
                if not _agree(ours, own, tolerance):
                    return f"the {what} differs"
            return None

        ids, labels = _made_up(model)
        with evaluating(model), quiet_compiler():
            try:
                why: str | None = within(compare, ids, labels)
            except Exception as error:  # a compiler fails in whatever way it likes
                why = why_of(error)
        if why is None:
            self._nats = compiled
        return why

    def _difference(self, model: Any, ids: Tensor, labels: Tensor, trains: bool) -> str | None:
        """Return where a model's own logits say something else, or None."""
        with torch.no_grad():
            hidden = _hidden_of(model, ids, None)
            expected = token_losses(model, ids, labels)
            found = self._through_head(self._token_nats, model, hidden, labels)
        tolerance = _TOLERANCE.get(hidden.dtype, _HALF_TOLERANCE)
        if not _agree(found.view_as(expected), expected, tolerance):
            return _told(found.sum(), expected.sum())
        if not trains:
            return None
        hidden.requires_grad_()
        head = model.get_output_embeddings()
        wanted = [("hidden states", hidden), *head.named_parameters()]
        wanted = [(name, tensor) for name, tensor in wanted if tensor.requires_grad]
        tensors = [tensor for _, tensor in wanted]
        with torch.enable_grad():
            own = _own_nats(model, ids, labels, hidden)
            own_gradients = _gradients(own, tensors)
            nats = self._through_head(self._nats, model, hidden, labels)
            gradients = _gradients(nats, tensors)
        if not _agree(nats, own, tolerance):
            return _told(nats, own)
        for (name, _), ours, theirs in zip(wanted, gradients, own_gradients, strict=True):
            if not _agree(ours, theirs, tolerance):
                return f"its own logits give another gradient of the {name}"
        return None

    @staticmethod
    def _through_head(nats: Nats, model: Any, hidden: Tensor, labels: Tensor) -> Tensor:
        head = model.get_output_embeddings()
        return nats(
            hidden.flatten(0, 1),
            head.weight,
            getattr(head, "bias", None),
            labels.flatten(),
            shape=logit_shape_of(model.config),
        )


def _made_up(model: Any) -> tuple[Tensor, Tensor]:
    """Return some tokens and their labels, one in five of which does not count; int64 [1, n]."""
    device = next(model.parameters()).device
    places = torch.arange(_CHECKED, device=device) * 7919
    ids = (places % model.config.vocab_size)[None]
    labels = ids.roll(-1)
    labels[:, ::5] = IGNORED
    return ids, labels


def _hidden_of(
    model: Any,
    input_ids: Tensor,
    position_ids: Tensor | None,
    bounds: Tensor | None = None,
) -> Tensor:
    """Return the last hidden states, [batch, time, hidden size]."""
    body = getattr(model, model.base_model_prefix)
    told = packed_inputs(model, position_ids, bounds)
    hidden: Tensor = body(input_ids=input_ids, use_cache=False, **told).last_hidden_state
    return hidden


def _own_nats(model: Any, ids: Tensor, labels: Tensor, hidden: Tensor) -> Tensor:
    """Return the summed loss of a model's own logits as a function of its last hidden states."""

    def replace(body: Any, arguments: Any, output: Any) -> Any:
        output.last_hidden_state = hidden
        torch.set_grad_enabled(True)
        return output

    handle = getattr(model, model.base_model_prefix).register_forward_hook(replace)
    try:
        with torch.no_grad():  # until the hook: the blocks' own gradients are not wanted
            logits = model(input_ids=ids, use_cache=False).logits
            total = F.cross_entropy(
                (logits if logits.dtype == torch.float64 else logits.float()).flatten(0, 1),
                labels.flatten(),
                reduction="sum",
                ignore_index=IGNORED,
            )
    finally:
        handle.remove()
    if not total.requires_grad:
        raise ValueError("its logits are not made from them")
    return total


def _gradients(nats: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(nats, tensors, materialize_grads=True)


def _agree(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Tell whether two tensors differ by no more than a share of the expected one's norm."""
    wide = torch.float64 if expected.dtype == torch.float64 else torch.float32
    scale = torch.linalg.vector_norm(expected.detach(), dtype=wide).clamp(min=1e-9)
    difference = torch.linalg.vector_norm((found - expected).detach(), dtype=wide)
    return bool(difference <= tolerance * scale)


def _told(found: Tensor, expected: Tensor) -> str:
    own, ours = float(expected.detach()), float(found.detach())
    return f"its own logits give {own:.6g} nats where it gives {ours:.6g}"
