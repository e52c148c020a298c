"""The peak of memory that training takes, from shapes alone.

A step's peak is one of four moments, whichever is higher: where the loss has been taken and all
that the backward pass needs is there, where the last block is computed again, where that pass
ends and all gradients are there, or in the update where that needs room. Counted is what autograd
keeps of transformers' own blocks (`tests/parity/test_memory.py` holds it against what torch's own
tracker of tensors counts), not what a process takes before it has a model. On a CPU the allocator's
fragmentation comes on top, which is the process's too, and the compiler's own where there is one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

from rewarm.records.facts import ModelFacts
from rewarm.records.probe import Checkpointing

__all__ = [
    "BLOCK_BYTES",
    "CHUNK_BYTES",
    "GPU_CHUNK_BYTES",
    "PeakMemory",
    "StepShape",
    "Teacher",
    "kept_bytes_per_token",
    "peak_memory",
]

Teacher = Literal["live", "stored"]
_WIDE, _HALF = 4, 2
# Float32 arrays over a chunk's or a micro-batch's logits that exist at a time.
_LOGITS_AT_A_TIME = 3
# Those of the divergence from a teacher's distribution (model/chunked_divergence.py).
_DIVERGENCE_LOGITS = 4
# Those of model/chunked_loss.py, which needs torch.
CHUNK_BYTES, GPU_CHUNK_BYTES, BLOCK_BYTES = 2**27, 2**30, 2**20
# Of what is kept as estimated, what a compiled gated block keeps: it computes again what is cheap.
# It was 0.56 of the eager one in bf16 (OLMo 2 1B on an H200, benchmarks/results/gpu.json), 0.49 to
# 0.64 in float32 on a CPU. GPT-NeoX's, which is not gated and has norms with a mean, kept no less.
_KEPT_COMPILED = 0.6
# What torch's compiler itself keeps of a process on a CPU: 85 to 114 MiB in three families.
_COMPILER_BYTES = 100 * 2**20
# Fragmentation: what glibc's allocator leaves unused between arrays that come and go, 0.15 to 0.5
# of them in two machines' processes (benchmarks/peak_memory.py). To give memory back at once takes
# a step more time (docs/negative-results.md).
_FRAGMENTATION_ON_CPU = 0.35
# Of what eager blocks keep in float32: as much again, in launches of four shapes (docs/speed.md).
_FRAGMENTATION_OF_KEPT = 1.0
_GATED_ARRAYS, _PLAIN_ARRAYS = 4, 2
# transformers writes GPT-2's activation out in terms, of which autograd keeps most.
_ARRAYS_OF = {"gpt2": 5}
# Of attention's weights, [heads, length] of a token, in float32: none where one fused kernel takes
# them. Gemma 2's cap and dropout are beyond it: what is taken out of the cap, the softmax, what
# dropout leaves and what it leaves out are kept then.
_CAPPED_FAMILIES, _CAPPED_MATRICES, _DROPOUT_MATRICES = ("gemma2",), 2, 3


class StepShape(NamedTuple):
    """What of a step decides its memory; `half` is whether blocks compute in bf16."""

    micro_batch_tokens: int
    num_micro_batches: int
    half: bool
    loss: str
    checkpointing: Checkpointing = "none"
    documents_apart: bool = False
    compiled: bool = False
    on_gpu: bool = False
    sequence_length: int = 0
    untouched_layers: int = 0
    """The lowest layers that the backward pass does not reach: they keep nothing for it."""
    teacher: Teacher | None = None
    """What distillation holds the model to: the base's own logits, or what was stored of them."""


class PeakMemory(NamedTuple):
    """Bytes of the highest moment, and of its parts."""

    state: int
    gradients: int
    kept: int
    passing: int
    fragmentation: int = 0
    compiler: int = 0

    @property
    def tensors(self) -> int:
        """What arrays take, without what an allocator leaves between them."""
        return self.state + self.gradients + self.kept + self.passing

    @property
    def total(self) -> int:
        """All of it."""
        return self.tensors + self.fragmentation + self.compiler


def peak_memory(
    model: ModelFacts,
    shape: StepShape,
    *,
    state_bytes: int,
    num_trained: int | None = None,
    update_bytes: int = 0,
) -> PeakMemory:
    """Return the peak of a step; `state_bytes` are weights and moments, without gradients.

    `update_bytes` are what the optimizer takes beside them for a while.
    """
    trained = model.num_parameters if num_trained is None else num_trained
    gradients = _WIDE * trained
    kept = shape.micro_batch_tokens * _kept_of_all(model, shape)
    if shape.compiled and shape.checkpointing != "full" and _block(model).is_gated:
        kept = int(_KEPT_COMPILED * kept)
    casts = _HALF * _cast_values(model) if shape.half else 0
    before = gradients if shape.num_micro_batches > 1 else 0
    head = _WIDE * model.vocab_size * model.hidden_size
    passing = _loss_bytes(model, shape, head)
    if shape.teacher is not None:
        passing = max(passing, _distillation_bytes(model, shape, head))
    at_loss = PeakMemory(state_bytes, before, kept + casts, passing)
    # The embedding's gradient is a whole array before it is added to the one that is there.
    is_added = shape.num_micro_batches > 1 or model.tied_embeddings
    at_end = PeakMemory(state_bytes, gradients, 0, head if is_added else 0)
    in_update = PeakMemory(state_bytes, gradients, 0, update_bytes)
    moments = [at_loss, at_end, in_update]
    if shape.checkpointing != "none":
        # Logits are gone by then, and casts are those of one block.
        passing = _again_bytes(model, shape) + casts // model.num_layers
        moments.append(PeakMemory(state_bytes, max(before, head), kept, passing))
    peak = max(moments, key=lambda moment: moment.tensors)
    if shape.on_gpu:
        return peak
    is_eager = not (shape.half or shape.compiled)
    of_kept = _FRAGMENTATION_OF_KEPT if is_eager else _FRAGMENTATION_ON_CPU
    return peak._replace(
        fragmentation=int(of_kept * peak.kept + _FRAGMENTATION_ON_CPU * peak.passing),
        compiler=_COMPILER_BYTES if shape.compiled else 0,
    )


def kept_bytes_per_token(model: ModelFacts, shape: StepShape) -> int:
    """Return what all blocks keep of one token until the backward pass.

    Of each block: norms keep their input and what they scaled (those without a mean), products
    their inputs (in bf16 a cast for each), attention its queries, keys, values and result, the
    feed-forward part what its gate and activation were taken of.
    """
    of_block = _block(model)
    if shape.checkpointing == "full":
        return _WIDE * model.hidden_size * model.num_layers
    heads = model.num_heads * model.head_size
    attention = 2 * heads + 2 * model.num_key_value_heads * model.head_size
    if shape.documents_apart:
        attention += heads
    arrays = _GATED_ARRAYS if of_block.is_gated else _PLAIN_ARRAYS
    arrays = _ARRAYS_OF.get(model.model_type, arrays)
    middle = arrays * model.intermediate_size
    width = _HALF if shape.half else _WIDE
    if shape.checkpointing == "selective":
        products = of_block.product_width
        return model.num_layers * (_WIDE * model.hidden_size + width * (products + heads))
    inputs = of_block.num_input_casts if shape.half else of_block.num_inputs
    narrow = inputs * model.hidden_size + attention + middle
    values = _WIDE * of_block.norm_values + width * narrow
    return model.num_layers * (values + _attention_weights(model, shape))


def _attention_weights(model: ModelFacts, shape: StepShape) -> int:
    """Return the bytes of attention's weights that a block keeps of one token, at most."""
    arrays = _CAPPED_MATRICES if model.model_type in _CAPPED_FAMILIES else 0
    if any("att" in key for key in model.dropout):
        arrays = _DROPOUT_MATRICES
    return arrays * _WIDE * model.num_heads * shape.sequence_length


class _Block(NamedTuple):
    """A block by its tensors' names and shapes."""

    is_gated: bool
    norm_values: int
    num_inputs: int
    num_input_casts: int
    product_width: int
    num_weights: int


def _block(model: ModelFacts) -> _Block:
    """Return what the shapes of block 0 say; a Llama's where they are not known."""
    shapes = list(_shapes_of_first_block(model))
    if not shapes:
        hidden, middle = model.hidden_size, model.intermediate_size
        heads = model.num_heads * model.head_size
        keys = model.num_key_value_heads * model.head_size
        widths = 2 * heads + 2 * keys + 2 * middle
        weights = 2 * hidden * (heads + keys) + 3 * hidden * middle
        return _Block(True, 4 * hidden, 2, 5, widths, weights)
    matrices = [(name, shape) for name, shape in shapes if len(shape) == 2]
    norms = [(name, shape[0]) for name, shape in shapes if len(shape) == 1 and _is_norm(name)]
    biased = {name.removesuffix(".bias") for name, _ in norms if name.endswith(".bias")}
    scaled = [(name, size) for name, size in norms if name.endswith(".weight")]
    # A norm with a mean keeps its input alone; one without also what it divided.
    values = sum(
        _norm_width(model, name, size) * (1 if name.removesuffix(".weight") in biased else 2)
        for name, size in scaled
    )
    from_hidden = [
        name for name, shape in matrices if not _is_output(name) and model.hidden_size in shape
    ]
    return _Block(
        is_gated=any("gate" in name for name, _ in matrices),
        norm_values=values,
        num_inputs=2,
        num_input_casts=len(from_hidden),
        product_width=sum(
            math.prod(shape) // _input_width(model, name, shape) for name, shape in matrices
        ),
        num_weights=sum(math.prod(shape) for _, shape in matrices),
    )


def _shapes_of_first_block(model: ModelFacts) -> Iterable[tuple[str, tuple[int, ...]]]:
    for name, shape in model.tensor_shapes.items():
        parts = name.split(".")
        if "0" in parts:
            yield ".".join(parts[parts.index("0") + 1 :]), shape


def _is_norm(name: str) -> bool:
    return "norm" in name or name.startswith("ln_")


def _is_output(name: str) -> bool:
    """Tell whether a matrix leads back into the residual stream: its input is counted already."""
    return any(part in name for part in ("o_proj", "down_proj", "c_proj", "dense_4h_to_h")) or (
        name == "attention.dense.weight"
    )


def _norm_width(model: ModelFacts, name: str, size: int) -> int:
    """Return the values that a norm is over, of one token: those of single heads are over all."""
    if size != model.head_size or size == model.hidden_size:
        return size
    return size * (model.num_key_value_heads if "k_norm" in name else model.num_heads)


def _input_width(model: ModelFacts, name: str, shape: tuple[int, ...]) -> int:
    """Return how many of a matrix's two sides is its input's."""
    if "c_" in name:  # GPT-2 stores [in, out]
        return shape[0]
    return shape[1]


def _kept_of_all(model: ModelFacts, shape: StepShape) -> int:
    """Return what blocks, last norm, embedding and the batch itself keep of one token."""
    reached = model.num_layers - shape.untouched_layers
    of_blocks = kept_bytes_per_token(model, shape) * reached // max(1, model.num_layers)
    return of_blocks + 3 * _WIDE * model.hidden_size + 3 * 8


def _again_bytes(model: ModelFacts, shape: StepShape) -> int:
    """Return what one block takes while it is computed again."""
    whole = kept_bytes_per_token(model, shape._replace(checkpointing="none"))
    return shape.micro_batch_tokens * whole // model.num_layers


def _cast_values(model: ModelFacts) -> int:
    """Return the weights of which autocast keeps a copy until the backward pass: all products."""
    head = model.vocab_size * model.hidden_size
    return model.num_layers * _block(model).num_weights + head


def _loss_bytes(model: ModelFacts, shape: StepShape, head: int) -> int:
    """Return what taking the loss needs beside what blocks keep."""
    if shape.loss == "plain":
        narrow = _HALF if shape.half else 0
        logits = shape.micro_batch_tokens * model.vocab_size
        # The head's gradient comes when all but the logits' own is gone.
        return max((_WIDE * _LOGITS_AT_A_TIME + narrow) * logits, _WIDE * logits + head)
    if not shape.on_gpu:
        narrow = _HALF if shape.half else _WIDE
        tokens = min(shape.micro_batch_tokens, _fitting(2 * CHUNK_BYTES, narrow, model))
        block = min(tokens, _fitting(BLOCK_BYTES, _WIDE, model))
        arrays = (narrow * tokens + 2 * _WIDE * block) * model.vocab_size
        # The head's gradient and, where it does not grow in place, one chunk's part of it.
        return arrays + head + (head * _HALF // _WIDE if shape.half else 0)
    tokens = min(shape.micro_batch_tokens, _fitting(GPU_CHUNK_BYTES, _WIDE, model))
    # The head's gradient, and one chunk's part of it.
    return tokens * _WIDE * _LOGITS_AT_A_TIME * model.vocab_size + 2 * head


def _distillation_bytes(model: ModelFacts, shape: StepShape, head: int) -> int:
    """Return what the divergence from a teacher needs beside what blocks keep, the loss's own
    gradient of the head among it.
    """
    chunk_bytes = GPU_CHUNK_BYTES if shape.on_gpu else CHUNK_BYTES
    tokens = min(shape.micro_batch_tokens, _fitting(chunk_bytes, _WIDE, model))
    at_a_time = _WIDE * _DIVERGENCE_LOGITS * tokens * model.vocab_size
    if shape.loss != "plain":
        return at_a_time + 2 * head
    width = _HALF if shape.half else _WIDE
    logits = shape.micro_batch_tokens * model.vocab_size
    # The model's logits, their log-softmax, their gradient; and the teacher's logits.
    whole = width * 2 + _WIDE + (width if shape.teacher == "live" else 0)
    return at_a_time + whole * logits


def _fitting(num_bytes: int, width: int, model: ModelFacts) -> int:
    """Return how many tokens' logits take so many bytes; at least 1."""
    return max(1, num_bytes // (width * model.vocab_size))
