"""The peak of memory that training takes, from shapes alone.

A step's peak is one of four moments, whichever is higher: where the loss has been taken and all
that the backward pass needs is there, where the last block is computed again, where that pass
ends and all gradients are there, or in the update where that needs room. Counted is what autograd
keeps of transformers' own blocks (`tests/parity/test_memory.py` holds it against what torch's own
tracker of tensors counts), not what a process takes before it has a model. On a CPU the allocator's
fragmentation comes on top, which is the process's too, and the compiler's own where there is one.
Arrays that are large are no part of that: each is mapped by itself, and given back whole.
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
# What torch's compiler itself keeps of a process on a CPU: 85 to 114 MiB in three families.
_COMPILER_BYTES = 100 * 2**20
# glibc maps an array of so many bytes by itself, and gives it back whole. What is smaller comes
# from a heap once arrays of its size have come and gone: its threshold grows by them, up to this.
_MAPPED_BYTES = 2**25
# What that heap leaves unused, as a share of what comes and goes: of what eager blocks keep (0.7 to
# 1.5 in launches of four shapes, docs/speed.md), and of all else. The hole that an array leaves is
# too small for the next of its size: torch asks for an address at a multiple of 64 bytes, and glibc
# looks for 96 bytes more. To map all of it takes a step more time (docs/negative-results.md).
_FRAGMENTATION_OF_EAGER, _FRAGMENTATION_ON_CPU = 1.1, 0.2
_GATED_ARRAYS, _PLAIN_ARRAYS = 4, 2
# A compiled gate's activation is computed again.
_GATED_ARRAYS_COMPILED = 3
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
    casts = _HALF * _cast_values(model) if shape.half else 0
    before = gradients if shape.num_micro_batches > 1 else 0
    head = _WIDE * model.vocab_size * model.hidden_size
    arrays = _loss_arrays(model, shape, head)
    if shape.teacher is not None:
        arrays = max(arrays, _distillation_arrays(model, shape, head), key=sum)
    at_loss = _moment(before, kept + casts, arrays)
    # The embedding's gradient is a whole array before it is added to the one that is there.
    is_added = shape.num_micro_batches > 1 or model.tied_embeddings
    at_end = _moment(gradients, 0, (head,) if is_added else ())
    in_update = _moment(gradients, 0, (update_bytes,))
    moments = [at_loss, at_end, in_update]
    if shape.checkpointing != "none":
        # Logits are gone by then, and casts are those of one block, whose arrays are many.
        passing = _again_bytes(model, shape) + casts // model.num_layers
        moments.append(_Moment(max(before, head), kept, passing, passing))
    peaks = (_peak_of(moment, shape, state_bytes) for moment in moments)
    return max(peaks, key=lambda peak: peak.tensors)


class _Moment(NamedTuple):
    """What there is at a moment of a step, beside weights and their moments."""

    gradients: int
    kept: int
    passing: int
    passing_in_heap: int
    """What of the passing is not mapped array by array."""


def _moment(gradients: int, kept: int, passing: tuple[int, ...]) -> _Moment:
    """Return a moment by the arrays that pass, one by one."""
    in_heap = sum(size for size in passing if size < _MAPPED_BYTES)
    return _Moment(gradients, kept, sum(passing), in_heap)


def _peak_of(moment: _Moment, shape: StepShape, state_bytes: int) -> PeakMemory:
    """Return what a moment takes, with what an allocator leaves unused and the compiler's own."""
    peak = PeakMemory(state_bytes, moment.gradients, moment.kept, moment.passing)
    if shape.on_gpu:
        return peak
    of_kept = _FRAGMENTATION_ON_CPU if shape.compiled else _FRAGMENTATION_OF_EAGER
    of_passing = _FRAGMENTATION_ON_CPU * moment.passing_in_heap
    return peak._replace(
        fragmentation=int(of_kept * moment.kept + of_passing),
        compiler=_COMPILER_BYTES if shape.compiled else 0,
    )


def kept_bytes_per_token(model: ModelFacts, shape: StepShape) -> int:
    """Return what all blocks keep of one token until the backward pass.

    Of each block: norms keep their input and what they scaled (those without a mean), products
    their inputs (in bf16 a cast for each), attention its queries, keys, values and result, the
    feed-forward part what its gate and activation were taken of. A compiled block with a gate
    computes again what is cheap: norms keep their input alone, products share a cast of theirs, and
    the gate's activation is not kept.
    """
    of_block = _block(model)
    is_sparing = shape.compiled and of_block.is_gated
    if shape.checkpointing == "full":
        return _WIDE * model.hidden_size * model.num_layers
    heads = model.num_heads * model.head_size
    attention = 2 * heads + 2 * model.num_key_value_heads * model.head_size
    if shape.documents_apart:
        attention += heads
    arrays = _GATED_ARRAYS if of_block.is_gated else _PLAIN_ARRAYS
    arrays = _ARRAYS_OF.get(model.model_type, arrays)
    arrays = _GATED_ARRAYS_COMPILED if is_sparing else arrays
    middle = arrays * model.intermediate_size
    width = _HALF if shape.half else _WIDE
    if shape.checkpointing == "selective":
        products = of_block.product_width
        return model.num_layers * (_WIDE * model.hidden_size + width * (products + heads))
    has_casts = shape.half and not is_sparing
    inputs = of_block.num_input_casts if has_casts else of_block.num_inputs
    narrow = inputs * model.hidden_size + attention + middle
    norms = of_block.norm_inputs if is_sparing else of_block.norm_values
    values = _WIDE * norms + width * narrow
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
    norm_inputs: int
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
        return _Block(True, 4 * hidden, 2 * hidden, 2, 5, widths, weights)
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
        norm_inputs=sum(_norm_width(model, name, size) for name, size in scaled),
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


def _loss_arrays(model: ModelFacts, shape: StepShape, head: int) -> tuple[int, ...]:
    """Return the arrays that taking the loss needs beside what blocks keep."""
    if shape.loss == "plain":
        logits = shape.micro_batch_tokens * model.vocab_size
        of_logits = _LOGITS_AT_A_TIME * (_WIDE * logits,)
        if shape.half:
            of_logits += (_HALF * logits,)
        # The head's gradient comes when all but the logits' own is gone.
        return max(of_logits, (_WIDE * logits, head), key=sum)
    if not shape.on_gpu:
        narrow = _HALF if shape.half else _WIDE
        tokens = min(shape.micro_batch_tokens, _fitting(2 * CHUNK_BYTES, narrow, model))
        chunk = narrow * tokens * model.vocab_size
        block = _WIDE * min(tokens, _fitting(BLOCK_BYTES, _WIDE, model)) * model.vocab_size
        # A compiled chunk's gradient is an array of its own; else it is written over the products.
        of_chunk = (chunk, chunk) if shape.compiled else (chunk, block, block)
        # The head's gradient and, where it does not grow in place, one chunk's part of it.
        return (*of_chunk, head, *((head * _HALF // _WIDE,) if shape.half else ()))
    tokens = min(shape.micro_batch_tokens, _fitting(GPU_CHUNK_BYTES, _WIDE, model))
    # The head's gradient, and one chunk's part of it.
    return (*_LOGITS_AT_A_TIME * (tokens * _WIDE * model.vocab_size,), head, head)


def _distillation_arrays(model: ModelFacts, shape: StepShape, head: int) -> tuple[int, ...]:
    """Return the arrays that the divergence from a teacher needs beside what blocks keep, the
    loss's own gradient of the head among them.
    """
    chunk_bytes = GPU_CHUNK_BYTES if shape.on_gpu else CHUNK_BYTES
    tokens = min(shape.micro_batch_tokens, _fitting(chunk_bytes, _WIDE, model))
    at_a_time = _DIVERGENCE_LOGITS * (_WIDE * tokens * model.vocab_size,)
    if shape.loss != "plain":
        return (*at_a_time, head, head)
    width = _HALF if shape.half else _WIDE
    logits = shape.micro_batch_tokens * model.vocab_size
    # The model's logits, their log-softmax, their gradient; and the teacher's logits.
    of_teacher = (width * logits,) if shape.teacher == "live" else ()
    return (*at_a_time, width * logits, _WIDE * logits, width * logits, *of_teacher)


def _fitting(num_bytes: int, width: int, model: ModelFacts) -> int:
    """Return how many tokens' logits take so many bytes; at least 1."""
    return max(1, num_bytes // (width * model.vocab_size))
