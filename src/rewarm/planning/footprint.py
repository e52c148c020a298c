"""What a plan takes of memory, disk and energy, laid as a placement says."""

from __future__ import annotations

from rewarm.planning.budget import (
    CPU_ACTIVATION_BYTES,
    activation_bytes_per_token,
    largest_micro_batch,
    loss_of,
    state_bytes,
)
from rewarm.planning.memory import PeakMemory, StepShape, peak_memory
from rewarm.planning.muon import passing_bytes
from rewarm.planning.plan import Estimate, Placement, Science
from rewarm.planning.selection import num_untouched_layers
from rewarm.recipe.records import CheckpointRecipe
from rewarm.recipe.steps import TrainingRecipe
from rewarm.records.facts import ModelFacts
from rewarm.units import counted, format_bytes

__all__ = [
    "checkpoint_bytes",
    "disk_estimate",
    "energy_estimate",
    "micro_batch_on_cpu",
    "parts_of_placement",
    "peak_of_placement",
]

_EXPORT_BYTES = {"float32": 4, "float64": 8}


def micro_batch_on_cpu(
    training: TrainingRecipe, model: ModelFacts, sequence_length: int, sequences_per_step: int
) -> int:
    """Return the sequences of a forward pass on a CPU: the recipe's, or what activations allow."""
    if training.micro_batch_sequences is not None:
        return min(training.micro_batch_sequences, sequences_per_step)
    taken = activation_bytes_per_token(model, loss_of(training.loss, model))
    if training.compile == "blocks":  # "auto" compiles none on a CPU
        taken //= 2  # of what it takes eagerly, in float32
    return largest_micro_batch(
        sequences_per_step,
        bytes_per_sequence=taken * sequence_length,
        budget_bytes=CPU_ACTIVATION_BYTES,
    )


def peak_of_placement(
    placement: Placement,
    science: Science,
    model: ModelFacts,
    num_trained: int,
    *,
    num_shards: int = 1,
) -> int:
    """Return the peak of a step's memory, laid as a placement says, beside the process's own."""
    parts = parts_of_placement(placement, science, model, num_trained, num_shards=num_shards)
    return parts.total


def parts_of_placement(
    placement: Placement,
    science: Science,
    model: ModelFacts,
    num_trained: int,
    *,
    num_shards: int = 1,
) -> PeakMemory:
    """Return the parts of a step's peak, laid as a placement says.

    Of many ranks each holds a part of weights, gradients and moments, and until a step's last
    micro-batch all gradients where the placement keeps them whole.
    """
    shape = _shape(science, model, placement)
    state = state_bytes(model, science.optimizer.kind, num_trained) - 4 * num_trained
    others = 4 * (num_trained - num_trained // num_shards) if placement.whole_gradients else 0
    return peak_memory(
        model,
        shape,
        state_bytes=state // num_shards + others,
        num_trained=num_trained // num_shards,
        update_bytes=_update_bytes(science, model),
    )


def _update_bytes(science: Science, model: ModelFacts) -> int:
    return passing_bytes(model) if science.optimizer.kind == "muon" else 0


def _shape(science: Science, model: ModelFacts, placement: Placement) -> StepShape:
    distill = science.retention.distill
    micro_batch = placement.micro_batch_sequences
    return StepShape(
        micro_batch_tokens=micro_batch * science.sequence_length,
        num_micro_batches=-(-science.sequences_per_step // micro_batch),
        half=placement.autocast_dtype is not None,
        loss=placement.loss,
        checkpointing=placement.checkpointing,
        documents_apart=science.mask_documents,
        compiled=placement.compiled,
        on_gpu=placement.device != "cpu",
        sequence_length=science.sequence_length,
        untouched_layers=num_untouched_layers(science, model),
        teacher=None if distill is None else distill.teacher,
    )


def checkpoint_bytes(science: Science, model: ModelFacts, num_trained: int) -> int:
    """Return the bytes of a checkpoint: what trains, in float32, and its moments."""
    with_gradients = state_bytes(model, science.optimizer.kind, num_trained)
    moments = with_gradients - 4 * model.num_parameters - 4 * num_trained
    return 4 * num_trained + moments


def disk_estimate(
    checkpoints: CheckpointRecipe,
    num_steps: int,
    model: ModelFacts,
    one_bytes: int,
    *,
    measured: bool = False,
) -> Estimate:
    """Return what checkpoints of `one_bytes` each and the export take at most."""
    every = checkpoints.keep_every_steps
    for_good = 0 if every is None else num_steps // every
    num_kept = checkpoints.keep + for_good + 1  # the one that is being written
    export = _EXPORT_BYTES.get(model.saved_dtype, 2) * model.num_parameters
    origin = ", as measured" if measured else ""
    return Estimate(
        name="disk",
        value=num_kept * one_bytes + export,
        unit="byte",
        formula=f"{counted(num_kept, 'checkpoint')} · {format_bytes(one_bytes)}{origin} "
        f"+ the export's {format_bytes(export)}",
    )


def energy_estimate(seconds: float, watts: float, num_devices: int, origin: str) -> Estimate:
    """Return the energy of a run; `origin` says whose the watts are."""
    return Estimate(
        name="energy",
        value=seconds * watts * num_devices / 3.6e6,
        unit="kWh",
        formula=f"hours · {counted(num_devices, 'device')} · {watts:.4g} W ({origin})",
    )
