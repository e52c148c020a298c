"""Blocks by `torch.compile`, held against the same blocks as they are before they are trusted.

Each block's forward pass is compiled, not the model's: blocks of one kind share a graph, and
neither a family's own code around them nor FSDP's hooks come into it. So is that of the norm after
the last of them, by itself many passes over the hidden states. Only what takes gradients
runs compiled; evaluations have other lengths and the bits of every other measure.

A graph that breaks is refused: what is left of the gain would not be known. Names of parameters
stay as they are.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rewarm.model.blocks import checkpointed
from rewarm.model.modes import evaluating
from rewarm.model.packing import packed_inputs
from rewarm.records.probe import Checkpointing

__all__ = ["compile_blocks", "quiet_compiler", "why_of"]

Within = Callable[..., Any]
"""`within(work, *arguments)` calls `work(model, *arguments)` where the weights are whole."""

_MAX_REASON = 300
# Where torch, having said what failed, goes on with what is for its own developers.
_ASIDE = re.compile(
    r"\s+(Developer debug context:|For more details about this graph break|Set TORCHDYNAMO_VERBOSE)"
)
# Of what was raised in the code that it reads, torch says only there what it was.
_RAISED = re.compile(r"raised exception \w+\((['\"])(?P<told>.+)\1\)")
# Of each token's vector, by the type that blocks compute in. A compiled block rounds to half
# precision where the block as it is does, or not at all.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
_HALF_TOLERANCE = 0.05
# What families of transformers call the norm after the blocks.
_LAST_NORMS = ("norm", "final_layer_norm", "ln_f", "final_layernorm")
# Kinds of layers, with and without documents, of whole and of shortened micro-batches.
_MOST_GRAPHS = 64


def compile_blocks(
    model: Any,
    blocks: Sequence[nn.Module],
    checkpointing: Checkpointing,
    *,
    shape: tuple[int, int],
    mask_documents: bool,
    within: Within | None = None,
    trains_alike: bool = True,
    agree: Callable[[str | None], str | None] = lambda why: why,
    backend: str = "inductor",
) -> str | None:
    """Compile a model's blocks and its last norm, in place; return why they are not, or None.

    `shape` is a micro-batch's sequences and tokens of each, which is what is compiled for; with
    `mask_documents` each is taken for two documents. A block of each kind is compared with itself
    by its output and the gradient at its input: in training mode, and so by the graph that steps
    take, where the model `trains_alike` it is measured, without dropout; else that graph is made
    here too, as what cannot be compiled with dropout would end the first step. `agree` returns the
    first reason of all ranks. Collective.
    """
    within = within or (lambda work, *arguments: work(model, *arguments))
    if not blocks:
        return "the model has no list of blocks"
    _let_many_graphs_be()
    norm = _last_norm(model)
    parts = [*blocks, *norm]
    before = [part.forward for part in parts]
    wrapped = [_compiled(block, checkpointing, backend) for block in blocks]
    wrapped += [_compiled(part, "none", backend) for part in norm]
    named_parts = {i: f"block {i}" for i in _one_of_each_kind(model, len(blocks)).values()}
    named_parts |= {len(blocks) + i: "the last norm" for i in range(len(norm))}

    def compare(model: Any) -> str | None:
        inputs = _inputs_of(model, [parts[i] for i in named_parts], shape, mask_documents)
        for (index, name), (arguments, named) in zip(named_parts.items(), inputs, strict=True):
            part = parts[index]
            part.train(trains_alike)
            own = _taken(part, arguments, named)
            part.forward = wrapped[index]
            ours = _taken(part, arguments, named)
            for what, found, expected in zip(("output", "gradient"), ours, own, strict=True):
                off = _furthest(found, expected)
                if not off <= _tolerance(expected):
                    return f"the {what} of {name} is off by {off:.2g} of its size"
            if not trains_alike:
                part.train()
                _taken(part, arguments, named)
        return None

    def told_as_reason() -> str | None:
        try:
            found: str | None = within(compare)
            return found
        except Exception as error:  # a compiler, or what it needs, fails in whatever way it likes
            return why_of(error)

    with evaluating(model), quiet_compiler():
        why = agree(told_as_reason())
    for part, own, compiled in zip(parts, before, wrapped, strict=True):
        part.forward = own if why is not None else compiled
    return why


@contextlib.contextmanager
def quiet_compiler() -> Iterator[None]:
    """Keep a compiler's warnings off the terminal for a while: what it makes is held against what
    it should be, and that is told. Where TORCH_LOGS asks for its words they are let through.
    """
    if "TORCH_LOGS" in os.environ:
        yield
        return
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def why_of(error: Exception) -> str:
    """Return on one line what a compiler failed with."""
    raised = _RAISED.search(str(error))
    told = raised["told"] if raised else _ASIDE.split(str(error), maxsplit=1)[0]
    return f"{type(error).__name__}: {' '.join(told.split())[:_MAX_REASON]}"


def _last_norm(model: Any) -> list[nn.Module]:
    """Return the norm between the blocks and the head, as the family calls it; of some, none."""
    body = getattr(model, model.base_model_prefix)
    return [found for name, found in body.named_children() if name in _LAST_NORMS]


def _compiled(block: nn.Module, checkpointing: Checkpointing, backend: str) -> Callable[..., Any]:
    """Return a block's forward pass, compiled where gradients are taken.

    What lies between products is computed again by what the compiler itself chooses; so is
    `selective` with nothing beside it. `full` is around the compiled block.
    """
    own = types.MethodType(type(block).forward, block)
    compiled = torch.compile(own, fullgraph=True, backend=backend)

    @functools.wraps(own)
    def forward(*arguments: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return own(*arguments, **named)
        bounds = named.get("cu_seq_lens_q")
        if bounds is not None:  # as many as a batch has documents: no graph for each number
            torch._dynamo.maybe_mark_dynamic(bounds, 0)
        return compiled(*arguments, **named)

    return checkpointed(forward, "full") if checkpointing == "full" else forward


def _let_many_graphs_be() -> None:
    """Let blocks of one class have a graph for each kind; past the limit a launch would end."""
    import torch._dynamo

    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, _MOST_GRAPHS)


def _one_of_each_kind(model: Any, num_blocks: int) -> dict[str, int]:
    """Return the first block of each kind of attention that the configuration names."""
    kinds = getattr(model.config, "layer_types", None) or ["all"] * num_blocks
    return {kind: index for index, kind in reversed(list(enumerate(kinds[:num_blocks])))}


_Call = tuple[tuple[Any, ...], dict[str, Any]]


def _inputs_of(
    model: Any, blocks: Sequence[nn.Module], shape: tuple[int, int], mask_documents: bool
) -> list[_Call]:
    """Return what a model calls some of its blocks with, of made-up tokens."""
    found: dict[nn.Module, _Call] = {}

    def note(block: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        found[block] = (arguments, dict(named))

    rows, length = shape
    device = next(model.parameters()).device
    vocab_size = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(rows * length, device=device).view(rows, length) * 7919 % vocab_size
    positions = None
    if mask_documents:
        half = max(1, length // 2)
        row = torch.cat([torch.arange(half), torch.arange(length - half)])
        positions = row.expand(rows, length).contiguous().to(device)
    handles = [block.register_forward_pre_hook(note, with_kwargs=True) for block in blocks]
    try:
        with torch.no_grad():
            body = getattr(model, model.base_model_prefix)
            body(input_ids=ids, use_cache=False, **packed_inputs(model, positions))
    finally:
        for handle in handles:
            handle.remove()
    return [found[block] for block in blocks]


def _taken(
    block: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Return a block's output and the gradient of a sum of it at its first input."""
    with torch.enable_grad():
        leaf = arguments[0].detach().requires_grad_()
        output = block(leaf, *arguments[1:], **named)
        hidden = output if isinstance(output, Tensor) else output[0]
        signs = torch.arange(hidden.numel(), device=hidden.device).view_as(hidden).sin()
        (gradient,) = torch.autograd.grad((hidden * signs.to(hidden)).sum(), leaf)
    return hidden.detach(), gradient


def _tolerance(expected: Tensor) -> float:
    if torch.is_autocast_enabled(expected.device.type):
        return _HALF_TOLERANCE
    return _TOLERANCE.get(expected.dtype, _HALF_TOLERANCE)


def _furthest(found: Tensor, expected: Tensor) -> float:
    """Return how far the furthest token is off, as a share of the typical vector's norm."""
    found, expected = found.float(), expected.float()
    norms = expected.norm(dim=-1)
    share = (found - expected).norm(dim=-1) / norms.maximum(norms.median()).clamp(min=1e-30)
    return float(share.max())
