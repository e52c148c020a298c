"""How many sequences at a time, and how much of the blocks computed again, fit into the memory.

One rule for a launch, and for the plan that tells beforehand what one takes: by the estimate and
all that the device has, not what is free now, so that each launch chooses alike.
"""

from __future__ import annotations

from collections.abc import Sequence

from rewarm.planning.footprint import peak_of_placement
from rewarm.planning.plan import Placement, Science
from rewarm.planning.retention import retention_cost
from rewarm.planning.selection import num_trained_at_a_time
from rewarm.recipe.steps import TrainingRecipe
from rewarm.records.facts import ModelFacts
from rewarm.records.probe import Checkpointing
from rewarm.units import counted, format_bytes

__all__ = ["compiles_blocks", "keeps_whole_gradients", "laid_to_fit", "room_bytes"]

_LESS_AND_LESS: tuple[Checkpointing, ...] = ("none", "selective", "full")
# Of a GPU's memory, what a step's peak may take by the estimate, which was 2 to 10 % above what was
# measured; the rest is the context's, the kernels' and what lies between arrays.
_GPU_SHARE = 0.9
# Some minutes of a GPU: a fifth of them is more than the half a minute that compiling takes.
_WORTH_COMPILING_FLOPS = 5e16
# More at a time gained nothing on an H200: 65,536 tokens were 2 % slower than 32,768 at 1B
# parameters, where 16,384 were 2.6 % faster than 8,192 at 3B (docs/speed.md).
_MOST_GPU_TOKENS = 32_768
# Of a GPU's memory, what gradients may take that are kept whole until a step's last micro-batch.
_WHOLE_GRADIENTS_SHARE = 0.2


def compiles_blocks(
    training: TrainingRecipe, science: Science, model: ModelFacts, device_type: str
) -> bool:
    """Tell whether blocks are compiled: on a CPU, where a run has its bits, only if asked for.

    On a GPU where the run is long enough to earn what each launch spends on it.
    """
    if training.compile != "auto":
        return training.compile == "blocks"
    if device_type != "cuda" or training.deterministic:
        return False
    num_tokens = science.num_steps * science.tokens_per_step
    return 6 * model.num_parameters * num_tokens >= _WORTH_COMPILING_FLOPS


def keeps_whole_gradients(
    model: ModelFacts,
    *,
    world_size: int,
    tensor_parallel: int,
    device_type: str,
    total_bytes: int | None,
) -> bool:
    """Tell whether gradients wait for a step's last micro-batch.

    Not with tensor parallelism: what transformers adds up after each backward pass (the gradients
    of norms of single heads) would be added up again with what had waited.
    """
    if world_size == 1 or tensor_parallel > 1:
        return False
    if device_type == "cpu" or total_bytes is None:
        return True
    return 4 * model.num_parameters <= _WHOLE_GRADIENTS_SHARE * total_bytes


def laid_to_fit(
    placement: Placement,
    training: TrainingRecipe,
    science: Science,
    model: ModelFacts,
    *,
    sequences_per_rank: int,
    total_bytes: int | None,
    num_shards: int,
) -> tuple[Placement, list[str]]:
    """Return a placement that fits a device of `total_bytes`, and what has to be said of it.

    On a GPU the sequences at a time are chosen, on either what of blocks is computed again, unless
    the recipe names them. `num_shards` ranks share weights, gradients and moments.
    """
    sizes: tuple[int, ...] = (placement.micro_batch_sequences,)
    if placement.device != "cpu" and training.micro_batch_sequences is None:
        most = max(1, _MOST_GPU_TOKENS // science.sequence_length)
        sizes = tuple(size for size in _divisors(sequences_per_rank) if size <= most)
    wanted = training.activation_checkpointing
    kinds = _LESS_AND_LESS if wanted == "auto" else (wanted,)
    room = room_bytes(
        science, model, placement.device, total_bytes=total_bytes, num_shards=num_shards
    )
    if room is None or len(sizes) == len(kinds) == 1:
        changed = {"micro_batch_sequences": sizes[0], "checkpointing": kinds[0]}
        return placement.model_copy(update=changed), []
    return _made_to_fit(placement, science, model, room, num_shards, sizes=sizes, kinds=kinds)


def room_bytes(
    science: Science,
    model: ModelFacts,
    device: str,
    *,
    total_bytes: int | None,
    num_shards: int,
) -> int | None:
    """Return what a step may take by the estimate, what retention keeps beside the model left free;
    None where a CPU's memory is not told.
    """
    if total_bytes is None:
        return None
    share = 1.0 if device == "cpu" else _GPU_SHARE
    return int(share * total_bytes - retention_cost(science, model).num_bytes / num_shards)


def _made_to_fit(
    placement: Placement,
    science: Science,
    model: ModelFacts,
    room: int,
    num_shards: int,
    *,
    sizes: Sequence[int],
    kinds: Sequence[Checkpointing],
) -> tuple[Placement, list[str]]:
    """Return a placement of the most sequences at a time that fit, and what has to be said of it.

    Blocks are computed again only where not even the fewest of `sizes` fit without, as the fewer
    times a step adds up gradients and casts weights, the better, but the less is computed twice,
    the better still. Where nothing fits, a CPU's placement is left as it was, for the estimate may
    be wrong; a GPU's is the most sparing one.
    """
    trained = num_trained_at_a_time(science, model)

    def of(kind: Checkpointing, size: int) -> tuple[Placement, int]:
        changed = _changed(placement, kind, size)
        return changed, peak_of_placement(changed, science, model, trained, num_shards=num_shards)

    for kind in kinds:
        for size in sorted(sizes, reverse=True):
            found, peak = of(kind, size)
            if peak <= room:
                if kind == kinds[0]:
                    return found, []
                told = f": {kind} activation checkpointing is used"
                return found, [_short_of(room, of(kinds[0], min(sizes))) + told]
    if placement.device == "cpu":
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


def _divisors(number: int) -> tuple[int, ...]:
    return tuple(size for size in range(1, number + 1) if number % size == 0)
