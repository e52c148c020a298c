"""How many sequences at a time, and how much of the blocks computed again, fit into the memory.

By the estimate and all that the device has, not what is free now, so that each launch chooses
alike.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

import torch

from rewarm.distributed.fsdp import num_shards
from rewarm.distributed.world import World
from rewarm.planning.footprint import peak_of_placement
from rewarm.planning.plan import Placement, Science
from rewarm.planning.retention import retention_cost
from rewarm.planning.selection import num_trained
from rewarm.records.facts import ModelFacts
from rewarm.records.probe import Checkpointing
from rewarm.units import counted, format_bytes

__all__ = ["made_to_fit"]

_LESS_AND_LESS: tuple[Checkpointing, ...] = ("none", "selective", "full")
# Of a GPU's memory, what a step's peak may take by the estimate, which was 2 to 10 % above what was
# measured; the rest is the context's, the kernels' and what lies between arrays.
_GPU_SHARE = 0.9


def made_to_fit(
    placement: Placement,
    science: Science,
    model: ModelFacts,
    world: World,
    *,
    sizes: Sequence[int],
    kinds: Sequence[Checkpointing] = _LESS_AND_LESS,
) -> tuple[Placement, list[str]]:
    """Return a placement of the most sequences at a time that fit, and what has to be said of it.

    Blocks are computed again only where not even the fewest of `sizes` fit without, as the fewer
    times a step adds up gradients and casts weights, the better, but the less is computed twice,
    the better still. Where nothing fits, a CPU's placement is left as it was, for the estimate may
    be wrong; a GPU's is the most sparing one.
    """
    device = torch.device(placement.device)
    room = _room(device, science, model, world)
    if room is None:
        return placement, []

    def of(kind: Checkpointing, size: int) -> tuple[Placement, int]:
        changed = _changed(placement, kind, size)
        return changed, _peak(changed, science, model, world)

    for kind in kinds:
        for size in sorted(sizes, reverse=True):
            found, peak = of(kind, size)
            if peak <= room:
                if kind == kinds[0]:
                    return found, []
                told = f": {kind} activation checkpointing is used"
                return found, [_short_of(room, of(kinds[0], min(sizes))) + told]
    if device.type == "cpu":
        return placement, []
    told = "; it may not fit even so: `rewarm plan --probe` measures it"
    if len(kinds) > 1:
        told = f": {found.checkpointing} activation checkpointing is used{told}"
    return found, [_short_of(room, of(kinds[0], min(sizes))) + told]


def _short_of(room: int, least: tuple[Placement, int]) -> str:
    placement, peak = least
    at_a_time = counted(placement.micro_batch_sequences, "sequence")
    return (
        f"a step of {at_a_time} at a time would take {format_bytes(peak)} of memory, there are "
        f"{format_bytes(room)} for it"
    )


def _changed(placement: Placement, kind: Checkpointing, size: int) -> Placement:
    update = {"checkpointing": kind, "micro_batch_sequences": size}
    return placement.model_copy(update=update)


def _peak(placement: Placement, science: Science, model: ModelFacts, world: World) -> int:
    shards = num_shards(world) * world.tensor_parallel
    trained = num_trained(science, model)
    return peak_of_placement(placement, science, model, trained, num_shards=shards)


def _room(device: torch.device, science: Science, model: ModelFacts, world: World) -> int | None:
    """Return what a step may take by the estimate, what retention keeps beside the model left free;
    None where a CPU's memory is not told.
    """
    total = _total_memory(device)
    if total is None:
        return None
    share = 1.0 if device.type == "cpu" else _GPU_SHARE
    shards = num_shards(world) * world.tensor_parallel
    return int(share * total - retention_cost(science, model).num_bytes / shards)


def _total_memory(device: torch.device) -> int | None:
    """Return all memory of a device; None where a CPU's is not told."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
