"""How much is spent, and how a step is computed, guarded and estimated."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from rewarm.recipe.section import Count, Section

__all__ = [
    "BatchRecipe",
    "BudgetRecipe",
    "GuardRecipe",
    "HardwareRecipe",
    "OptimizerRecipe",
    "TrainingRecipe",
]


class BudgetRecipe(Section):
    """How much may be spent."""

    tokens: Count = Field(description='tokens to train on, e.g. "300M"; never exceeded')


class BatchRecipe(Section):
    """Size of one optimizer step; how it is split over devices is the placement's."""

    tokens: Count = Field(524_288, description="tokens per optimizer step")
    sequence_length: int | None = Field(
        None, gt=1, description="tokens per sequence; default: the base's pretraining length"
    )
    mask_documents: bool = Field(
        True, description="a token attends to its own document alone, not to others in its sequence"
    )
    packing: Literal["contiguous", "best-fit"] = Field(
        "contiguous",
        description="contiguous: sequences are cut from documents in a row; best-fit: documents "
        "are packed into sequences and cut only where they are longer than one",
    )


class OptimizerRecipe(Section):
    """AdamW, as in the published recipes, or an experiment."""

    kind: Literal["adamw", "adamw8bit", "muon"] = Field(
        "adamw",
        description="adamw8bit: moments as 8-bit codes, a quarter of the memory (torchao); muon: "
        "an experiment, orthogonal updates for the matrices of blocks and AdamW for the rest",
    )
    betas: tuple[float, float] = Field((0.9, 0.95), description="decay of the two moments")
    eps: float = Field(1e-8, gt=0, description="added to the root of the second moment")
    weight_decay: float = Field(0.1, ge=0, description="on matrices; norms and biases have none")
    clip_grad_norm: float = Field(1.0, gt=0, description="largest global gradient norm")

    @field_validator("betas")
    @classmethod
    def _betas(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError(f"betas = {value} must lie in [0, 1)")
        return value


class TrainingRecipe(Section):
    """How steps are computed, as far as it is a person's choice."""

    precision: Literal["auto", "float32", "bf16"] = Field(
        "auto", description="bf16: autocast over float32 weights; auto: where the device gains"
    )
    micro_batch_sequences: int | None = Field(
        None, gt=0, description="sequences per forward pass; default: what fits"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: a GPU where torch sees one"
    )
    num_threads: int | None = Field(
        None, gt=0, le=1024, description="CPU threads; default: all cores"
    )
    activation_checkpointing: Literal["auto", "none", "selective", "full"] = Field(
        "auto",
        description="what of a block is computed again in the backward pass instead of kept: "
        "nothing, all but its products and attention, everything; auto: what a probe chose, else "
        "the least that fits. The same bits, less memory, more time",
    )
    compile: Literal["auto", "blocks", "none"] = Field(
        "auto",
        description="blocks: each block by torch.compile, faster after some seconds and of other "
        "last bits; auto: on a GPU, for runs of some minutes, unless deterministic. A block that "
        "cannot be compiled, or then comes to something else, runs as it is",
    )
    deterministic: bool = Field(
        False, description="bit-identical resume on a GPU too, at some cost in speed"
    )
    loss: Literal["auto", "plain", "chunked", "liger"] = Field(
        "auto",
        description="chunked, liger (its own package, a GPU): never all logits at once; auto: "
        "chunked for large vocabularies",
    )
    document_attention: Literal[
        "auto",
        "flash_attention_3",
        "flash_attention_2",
        "varlen",
        "flex_attention",
        "split",
        "mask",
    ] = Field(
        "auto",
        description="with batch.mask_documents: by which kernel; auto: the fastest that the device "
        "has; one that does not give what the mask gives is not used",
    )
    tensor_parallel: int = Field(
        1,
        ge=1,
        le=1024,
        description="many ranks: how many neighbouring ones share each block's matrices, and so "
        "the same data; 1: none do",
    )
    rank_timeout_s: float = Field(
        600.0, ge=1, le=86_400, description="many ranks: how long one waits for another in seconds"
    )


class GuardRecipe(Section):
    """What is done about a step that goes wrong."""

    non_finite: Literal["stop", "skip"] = Field(
        "stop", description="a loss or gradient that is not finite, also when the step is replayed"
    )
    spike: Literal["off", "tell", "skip", "stop"] = Field(
        "tell", description="a loss far above the last ones; skip: go back and leave its steps out"
    )
    spike_deviations: float = Field(
        10.0, ge=3, le=1e6, description="how far: in robust standard deviations above the median"
    )
    spike_history: int = Field(
        128, ge=16, le=100_000, description="accepted steps of the phase that are compared with"
    )
    skip_steps: int = Field(
        8, ge=1, le=100_000, description="steps that one spike leaves out, itself the last"
    )
    max_skips: int = Field(5, ge=0, le=10_000, description="the run stops before one more")


class HardwareRecipe(Section):
    """For the estimates of time, cost, memory and energy."""

    num_devices: int = Field(1, gt=0, le=1_000_000, description="accelerators that share the work")
    flops_per_second: float | None = Field(
        None,
        ge=1e6,
        le=1e21,
        description="sustained by one device; default: a stated guess by the device",
    )
    price_per_gpu_hour: float | None = Field(
        None,
        ge=0,
        le=1e12,
        description="currency of your choice; a plan made where there is no GPU is then for one",
    )
    memory_gib_per_device: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="of the GPU that a plan is for, where it is another than the one at hand; "
        "default: that one's, or 79 assumed",
    )
    watts_per_device: float | None = Field(
        None, gt=0, le=1e6, description="drawn in training, for the energy; default: as measured"
    )
