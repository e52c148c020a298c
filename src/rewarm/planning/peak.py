"""What a plan takes of memory, by the placement that a launch would take where it is to run."""

from __future__ import annotations

from rewarm.planning.budget import loss_of
from rewarm.planning.fitting import (
    compiles_blocks,
    keeps_whole_gradients,
    laid_to_fit,
    room_bytes,
)
from rewarm.planning.footprint import micro_batch_on_cpu, parts_of_placement
from rewarm.planning.gpu import Gpu
from rewarm.planning.machine import cpu_multiplies_bf16, total_bytes
from rewarm.planning.plan import Estimate, Placement, Science
from rewarm.recipe.steps import TrainingRecipe
from rewarm.records.facts import ModelFacts
from rewarm.units import counted, format_bytes

__all__ = ["computes_in_half", "peak_estimate"]

# Of many nodes each has all weights, cut over its own devices.
_DEVICES_OF_NODE = 8


def computes_in_half(precision: str, gpu: Gpu | None) -> bool:
    """Tell whether blocks are expected to compute in bf16, by what the device says that it has.

    A launch with "auto" measures whether it gains, which is not known before.
    """
    has_units = cpu_multiplies_bf16() if gpu is None else gpu.multiplies_bf16
    return precision == "bf16" or (precision == "auto" and has_units)


def peak_estimate(
    training: TrainingRecipe,
    science: Science,
    model: ModelFacts,
    num_trained: int,
    *,
    retention_bytes: int = 0,
    gpu: Gpu | None = None,
    num_devices: int = 1,
) -> Estimate:
    """Return the peak of a step's memory in one process, beside the process's own.

    On `gpu`, or on this machine's CPU where there is none; `retention_bytes` are what retention
    holds all along, on all devices together.
    """
    total = total_bytes() if gpu is None else gpu.total_bytes
    num_shards = min(num_devices, _DEVICES_OF_NODE)
    placement = _planned_placement(training, science, model, gpu, total, num_devices, num_shards)
    peak = parts_of_placement(placement, science, model, num_trained, num_shards=num_shards)
    retained = retention_bytes // num_shards
    whole = " and gradients that are kept whole" if placement.whole_gradients else ""
    parts = {
        f"weights and moments{whole}": peak.state,
        "retention": retained,
        "gradients": peak.gradients,
        "kept for the backward pass": peak.kept,
        "passing": peak.passing,
        "fragmentation": peak.fragmentation,
        "the compiler's": peak.compiler,
    }
    room = room_bytes(science, model, placement.device, total_bytes=total, num_shards=num_shards)
    told = [
        ", ".join(f"{format_bytes(size)} {what}" for what, size in parts.items() if size),
        _told_of_placement(placement, science, gpu, num_shards),
    ]
    if room is not None and peak.total > room:
        told.append(f"more than the {format_bytes(room)} that there are for it")
    told.append("beside the process's own (--probe measures it)")
    return Estimate(
        name="peak memory", value=peak.total + retained, unit="byte", formula="; ".join(told)
    )


def _planned_placement(
    training: TrainingRecipe,
    science: Science,
    model: ModelFacts,
    gpu: Gpu | None,
    total: int | None,
    num_devices: int,
    num_shards: int,
) -> Placement:
    """Return the placement that a launch would take, as far as memory depends on it."""
    device = "cpu" if gpu is None else "cuda"
    tensor_parallel = training.tensor_parallel if num_devices > 1 else 1
    sequences_per_rank = -(-science.sequences_per_step // max(1, num_devices // tensor_parallel))
    size = min(training.micro_batch_sequences or 1, sequences_per_rank)
    if gpu is None:
        size = micro_batch_on_cpu(training, model, science.sequence_length, sequences_per_rank)
    placement = Placement(
        device=device,
        device_name="" if gpu is None else gpu.name,
        world_size=num_devices,
        micro_batch_sequences=size,
        autocast_dtype="bfloat16" if computes_in_half(science.precision, gpu) else None,
        loss=loss_of(training.loss, model),
        compiled=compiles_blocks(training, science, model, device),
        tensor_parallel=tensor_parallel,
        whole_gradients=keeps_whole_gradients(
            model,
            world_size=num_devices,
            tensor_parallel=tensor_parallel,
            device_type=device,
            total_bytes=total,
        ),
        num_threads=training.num_threads,
        deterministic=training.deterministic,
        provenance={},
    )
    return laid_to_fit(
        placement,
        training,
        science,
        model,
        sequences_per_rank=sequences_per_rank,
        total_bytes=total,
        num_shards=num_shards,
    )[0]


def _told_of_placement(
    placement: Placement, science: Science, gpu: Gpu | None, num_shards: int
) -> str:
    half = placement.autocast_dtype is not None
    told = f"{counted(placement.micro_batch_sequences, 'sequence')} at a time in "
    told += "bf16" if half else "float32"
    if half and science.precision == "auto":
        told += ", if a launch finds it faster,"
    if gpu is None:
        told += " on a CPU"
    else:
        told += f" on {gpu.name}, {'compiled' if placement.compiled else 'eager'}"
        memory = format_bytes(gpu.total_bytes)
        told += f", {memory} of memory assumed" if gpu.is_assumed else f" ({memory})"
    if placement.checkpointing != "none":
        told += f", {placement.checkpointing} activation checkpointing"
    return told + (f", on each of {num_shards} that share the weights" if num_shards > 1 else "")
