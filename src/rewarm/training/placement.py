"""How a plan is laid on the machine at hand: device, threads, precision, micro-batch.

Chosen at each launch, recorded, never fingerprinted. Two launches with the same placement (and
versions) give the same bits; so nothing here depends on what happens to be free at the moment.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from rewarm.artifacts import provenance
from rewarm.distributed.fsdp import num_shards
from rewarm.distributed.world import ALONE, World
from rewarm.errors import EnvironmentFault, PlanError, Problems
from rewarm.model.document_attention import Road, document_roads, installed_packages
from rewarm.model.liger_loss import check_liger
from rewarm.planning.budget import (
    loss_of,
    note_micro_batch,
    state_bytes,
)
from rewarm.planning.fitting import compiles_blocks, keeps_whole_gradients, laid_to_fit
from rewarm.planning.footprint import micro_batch_on_cpu
from rewarm.planning.gpu import unused_gpu
from rewarm.planning.machine import total_bytes
from rewarm.planning.plan import Placement, Science
from rewarm.planning.selection import num_trained_at_a_time
from rewarm.recipe.steps import TrainingRecipe
from rewarm.records.facts import ModelFacts
from rewarm.records.probe import Probe, Trial
from rewarm.training.half_gain import half_gain
from rewarm.units import format_bytes

__all__ = [
    "VERSIONS_OF",
    "apply_placement",
    "autocast_dtype",
    "autocast_of",
    "blocks_dtype",
    "choose_device",
    "choose_placement",
    "cpu_has_bf16_units",
    "placement_changes",
    "roads_of",
]

VERSIONS_OF = ("rewarm", "torch", "transformers", "numpy", "safetensors", "torchao")
"""Packages whose versions are recorded, since the last bits may depend on them."""

# Units that multiply in bf16 are twice as fast and more; about 1, something in between is missing.
_LEAST_HALF_GAIN = 1.2
_WHOLE_ATTENTIONS = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
_ALLOCATOR_VARIABLES = {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}


def choose_placement(
    training: TrainingRecipe,
    science: Science,
    model: ModelFacts,
    world: World = ALONE,
    *,
    probe: Probe | None = None,
    gain: Callable[[str], float] | None = None,
) -> tuple[Placement, list[str]]:
    """Return the placement on this machine (with `world`: on these ranks), and warnings.

    `gain` returns what a type of device gains from bf16, in place of `half_gain`, which measures.

    What a `probe` of this plan chose is taken over where it was of this device, by one process;
    what the recipe names stands above it. Raises EnvironmentFault where a GPU or Liger is asked
    for and not there, PlanError where the recipe's micro-batch does not divide the step.
    """
    device = choose_device(training.device)
    if training.loss == "liger":
        check_liger(device)
    autocast_dtype, warnings = _choose_autocast(science.precision, device, gain or half_gain)
    if training.device != "cpu" and device.type == "cpu" and (why := unused_gpu()):
        warnings.append(f"{why}; training is on the CPU")
    trial = _trial_of_device(probe, device, training, world)
    compiled = compiles_blocks(training, science, model, device.type)
    sequences_per_rank = -(-science.sequences_per_step // world.data_size)
    if science.sequences_per_step < world.data_size:
        idle = (world.data_size - science.sequences_per_step) * world.tensor_parallel
        warnings.append(
            f"{world.size} ranks share {science.sequences_per_step} sequences per step: "
            f"{idle} of them have nothing to do"
        )
    if training.micro_batch_sequences is not None:
        micro_batch = min(training.micro_batch_sequences, sequences_per_rank)
        problems = Problems()
        note_micro_batch(training.micro_batch_sequences, science.sequences_per_step, problems)
        problems.raise_as(PlanError)
    elif trial is not None:
        micro_batch = trial.micro_batch_sequences
    elif device.type == "cpu":
        micro_batch = micro_batch_on_cpu(
            training, model, science.sequence_length, sequences_per_rank
        )
    else:
        _check_room_for_state(device, _state_bytes_per_rank(science, model, world))
        micro_batch = 1  # until what fits is known, below
    wanted, total = training.activation_checkpointing, _total_memory(device)
    document_attention = None
    if science.mask_documents:
        document_attention = roads_of(training, device, autocast_dtype, model)[0]
    placement = Placement(
        device=str(device),
        device_name=_device_name(device),
        world_size=world.size,
        micro_batch_sequences=micro_batch,
        autocast_dtype=autocast_dtype,
        loss=loss_of(training.loss, model),
        document_attention=document_attention,
        checkpointing="none" if wanted == "auto" else wanted,
        compiled=compiled,
        tensor_parallel=world.tensor_parallel,
        whole_gradients=keeps_whole_gradients(
            model,
            world_size=world.size,
            tensor_parallel=world.tensor_parallel,
            device_type=device.type,
            total_bytes=total,
        ),
        num_threads=training.num_threads or torch.get_num_threads(),
        deterministic=training.deterministic,
        provenance=provenance(VERSIONS_OF),
    )
    if trial is None:
        placement, more = laid_to_fit(
            placement,
            training,
            science,
            model,
            sequences_per_rank=sequences_per_rank,
            total_bytes=total,
            num_shards=num_shards(world) * world.tensor_parallel,
        )
        warnings += more
    elif wanted == "auto":
        placement = placement.model_copy(update={"checkpointing": trial.checkpointing})
    return placement, warnings


def _trial_of_device(
    probe: Probe | None, device: torch.device, training: TrainingRecipe, world: World
) -> Trial | None:
    """Return what a probe chose, where it was of this device."""
    if probe is None or not world.is_alone:
        return None
    threads = training.num_threads or torch.get_num_threads()
    here = (device.type, _device_name(device), threads)
    there = (probe.device, probe.device_name, probe.num_threads)
    return probe.best if here == there else None


def roads_of(
    training: TrainingRecipe, device: torch.device, autocast_dtype: str | None, model: ModelFacts
) -> tuple[Road, ...]:
    """Return by which roads documents may be kept apart here, to be tried in this order."""
    if training.document_attention != "auto":
        return (training.document_attention,)
    return document_roads(
        device_type=device.type,
        half=autocast_dtype is not None,
        dropout=bool(model.dropout),
        installed=installed_packages(),
    )


def apply_placement(placement: Placement) -> None:
    """Set what is torch's own for the whole process: threads, and determinism on a GPU.

    On a CPU eager kernels give the same bits for the same number of threads anyway. A GPU's memory
    grows in place, so that little of it lies unused between arrays, unless the environment says
    how torch is to allocate.
    """
    if placement.num_threads is not None:
        torch.set_num_threads(placement.num_threads)
    if placement.device != "cpu" and not _ALLOCATOR_VARIABLES & os.environ.keys():
        _grow_memory_in_place()
    if placement.deterministic and placement.device != "cpu":
        # cuBLAS reads this when its first handle is made, so before any work on the device.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def _grow_memory_in_place() -> None:
    """Set what of torch has no public name; where a torch has it not, nothing changes."""
    # The newer first: the older one warns where both are there.
    for holder, name in (
        (torch._C, "_accelerator_setAllocatorSettings"),
        (torch.cuda.memory, "_set_allocator_settings"),
    ):
        if (setting := getattr(holder, name, None)) is not None:
            with contextlib.suppress(RuntimeError):
                setting("expandable_segments:True")
            return


def blocks_dtype(placement: Placement) -> torch.dtype | None:
    """Return the type in which the model's blocks compute; None for float32."""
    names = {None: None, "bfloat16": torch.bfloat16}
    return names[placement.autocast_dtype]


def autocast_dtype(placement: Placement) -> torch.dtype | None:
    """Return the type that autocast computes a loss in; None where nothing is cast by it.

    Of many ranks FSDP casts the weights as it gathers them: half the traffic, and no cast is left.
    """
    return blocks_dtype(placement) if placement.world_size == 1 else None


@contextlib.contextmanager
def autocast_of(placement: Placement) -> Iterator[None]:
    """Return the context in which the placement computes a loss (weights stay float32)."""
    dtype, device = autocast_dtype(placement), torch.device(placement.device)
    with contextlib.ExitStack() as stack:
        if dtype is not None:
            stack.enter_context(torch.autocast(device.type, dtype=dtype))
        if device.type == "cuda" and placement.document_attention is None:
            # Over whole sequences cuDNN's kernel is the fastest where it can be used; torch's own
            # order has it last.
            stack.enter_context(sdpa_kernel(_WHOLE_ATTENTIONS, set_priority=True))
        yield


def placement_changes(old: Placement, new: Placement) -> list[str]:
    """Return what differs between two launches of a run and may change its last bits."""
    before, after = old.model_dump(), new.model_dump()
    changes = [
        f"{name}: {before[name]} → {after[name]}"
        for name in before
        if name != "provenance" and before[name] != after[name]
    ]
    versions = [old.provenance.get("packages", {}), new.provenance.get("packages", {})]
    return changes + [
        f"{package}: {versions[0].get(package)} → {versions[1].get(package)}"
        for package in VERSIONS_OF
        if versions[0].get(package) != versions[1].get(package)
    ]


def cpu_has_bf16_units() -> bool:
    """Tell whether the CPU multiplies bf16 in hardware (AVX-512 BF16 or AMX).

    Without, autocast to bf16 is emulated: 20 times slower than float32 where it was measured.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def choose_device(wanted: str) -> torch.device:
    """Return the device that training.device means here; raises EnvironmentFault."""
    if wanted == "cuda" and not torch.cuda.is_available():
        why = unused_gpu()
        raise EnvironmentFault(
            'training.device = "cuda", but torch sees no CUDA device' + (f": {why}" if why else ""),
            'install a CUDA build of torch and check the driver, or set training.device = "cpu"',
        )
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def _choose_autocast(
    precision: str, device: torch.device, gain: Callable[[str], float]
) -> tuple[str | None, list[str]]:
    """Return the autocast dtype (None: float32 throughout) and warnings."""
    if precision == "float32":
        return None, []
    if device.type == "cuda":
        has_units = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_units = cpu_has_bf16_units()
    if has_units and precision == "auto" and gain(device.type) < _LEAST_HALF_GAIN:
        return None, []
    if has_units:
        return "bfloat16", []
    if precision == "auto":
        return None, []
    return "bfloat16", [
        f'precision = "bf16", but {_device_name(device)} has no bf16 units: '
        'steps may take 20 times as long as with "float32"'
    ]


def _state_bytes_per_rank(science: Science, model: ModelFacts, world: World) -> int:
    """Return what of weights, gradients and moments one rank holds.

    Embedding and head are cut by FSDP alone, blocks by tensor parallelism too.
    """
    outside = (model.num_embedding_parameters + model.num_head_parameters) / model.num_parameters
    share = (outside + (1 - outside) / world.tensor_parallel) / num_shards(world)
    trained = num_trained_at_a_time(science, model)
    return int(state_bytes(model, science.optimizer.kind, trained) * share)


def _total_memory(device: torch.device) -> int | None:
    """Return all memory of a device; None where a CPU's is not told."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return total_bytes()


def _check_room_for_state(device: torch.device, state: int) -> None:
    """Raise EnvironmentFault where a GPU has no room for weights, gradients and moments."""
    total = torch.cuda.get_device_properties(device).total_memory
    if state >= total:
        raise EnvironmentFault(
            f"weights, gradients and moments take {format_bytes(state)} per device, "
            f"{_device_name(device)} has {format_bytes(total)}",
            'use a smaller base, larger devices, more of them, or optimizer.kind = "adamw8bit"',
        )


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
