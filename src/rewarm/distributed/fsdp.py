"""FSDP2 over a causal model: one unit per block, the rest (embedding, last norm, head) in the root.

Everything that uses the weights runs *inside* the root's forward, where the root's own weights are
gathered: the loss needs the head, and an evaluation the embedding, neither of them a block's.

Gradients are summed over the ranks, never averaged: each rank's loss is its nats divided by the
valid tokens of the whole step, so that the sum is the gradient of the mean over tokens.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard

from rewarm.distributed.tensor_parallel import split_blocks
from rewarm.distributed.world import World

__all__ = [
    "Part",
    "Root",
    "blocks_of",
    "clip_gradients",
    "copied_to_host",
    "is_sharded",
    "local",
    "local_box",
    "local_rows",
    "make_mesh",
    "materialise",
    "num_shards",
    "part_of",
    "reduce_gradients",
    "reshard",
    "rows_of_part",
    "shard",
    "share_of_copies",
    "whole",
]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """The `index`th of `count` parts into which a tensor's rows are cut."""

    index: int
    count: int


class Root(nn.Module):
    """A model, and the forward in which any work on it runs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """Return `work(model, *arguments)`."""
        return work(self.model, *arguments)


def make_mesh(world: World, device_type: str) -> DeviceMesh:
    """Return the mesh of the ranks: one axis within a node; over several nodes, copies of it.

    Over nodes the weights are sharded within each and replicated between them (HSDP): the gathers
    stay on the fast links. All nodes must have the same number of ranks, else one axis over all.
    With tensor parallelism neighbouring ranks are the last axis.
    """
    parts = num_shards(world)
    axes = {"replicate": world.data_size // parts, "shard": parts, "tensor": world.tensor_parallel}
    names = tuple(name for name, size in axes.items() if size > 1 or name == "shard")
    return init_device_mesh(device_type, tuple(axes[n] for n in names), mesh_dim_names=names)


def num_shards(world: World) -> int:
    """Return into how many parts FSDP cuts the weights."""
    within_nodes = world.local_size > 1 and world.size % world.local_size == 0
    size = world.local_size if within_nodes else world.size
    return size // world.tensor_parallel


def shard(model: nn.Module, mesh: DeviceMesh, *, param_dtype: torch.dtype | None = None) -> Root:
    """Shard a model's parameters over the ranks, in place, and return its root.

    `param_dtype` is what blocks compute in (None: as they are); gradients are reduced, and weights
    and moments kept, in float32 or what the model has. Parameters may be on the meta device.
    """
    policy = MixedPrecisionPolicy(
        param_dtype=param_dtype, reduce_dtype=None if param_dtype is None else torch.float32
    )
    root = Root(model)
    if "tensor" in (names := mesh.mesh_dim_names or ()):
        split_blocks(model, mesh["tensor"])
        mesh = mesh[names[:-1]]
    for block in blocks_of(model):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(root, mesh=mesh, mp_policy=policy)
    for module in _units(root):
        module.set_gradient_divide_factor(1.0)
        # Without this a factor of 1 is done by a pre-multiplied sum, which gloo does not know.
        module.set_force_sum_reduction_for_comms(True)
    return root


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Return the model's repeated blocks: the children of its largest list of modules."""
    lists: list[nn.Module] = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
    return list(max(lists, key=_num_parameters).children()) if lists else []


def materialise(root: Root, device: torch.device) -> None:
    """Give a root whose parameters are on the meta device memory, unset; buffers keep theirs."""
    buffers = {name: buffer.to(device) for name, buffer in root.named_buffers()}
    root.to_empty(device=device)
    for name, buffer in root.named_buffers():
        buffer.copy_(buffers[name])


def reduce_gradients(root: Root, *, now: bool, keep_whole: bool) -> None:
    """Say whether the next backward pass is a step's last, after which gradients are reduced.

    Between nodes (HSDP) they always wait for the last one. Within a node they do where
    `keep_whole`, which costs the memory of all gradients and saves a reduction per micro-batch.
    """
    if isinstance(root, FSDPModule):
        root.set_requires_all_reduce(now)
        root.set_requires_gradient_sync(now or not keep_whole)


def is_sharded(root: Root) -> bool:
    """Tell whether a root's forward is collective."""
    return isinstance(root, FSDPModule)


def reshard(root: Root) -> None:
    """Let go of the root's gathered weights, which a forward without backward leaves behind."""
    if isinstance(root, FSDPModule):
        root.reshard()


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a sharded tensor (the same memory); any other as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return all of a sharded tensor (collective); any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def copied_to_host(tensor: Tensor) -> Tensor:
    """Return a copy in the host's memory, sharded as the tensor is."""
    here = local(tensor).detach()
    copy = here.clone() if here.device.type == "cpu" else here.cpu()
    if not isinstance(tensor, DTensor):
        return copy
    mesh = tensor.device_mesh
    host_mesh = mesh if mesh.device_type == "cpu" else _host_mesh(mesh)
    return DTensor.from_local(
        copy,
        host_mesh,
        tensor.placements,
        run_check=False,
        shape=tensor.shape,
        stride=tensor.stride(),
    )


def local_box(tensor: Tensor) -> tuple[slice, ...]:
    """Return where in the whole tensor this rank's part is, a slice for each dimension.

    Tensor parallelism, the last axis of a mesh, cuts first, and FSDP what that has left.
    """
    box = [slice(0, size) for size in tensor.shape]
    if isinstance(tensor, DTensor):
        mesh = tensor.device_mesh
        for axis in reversed(range(mesh.ndim)):
            dim = getattr(tensor.placements[axis], "dim", None)
            if dim is None:
                continue
            part = Part(mesh.get_local_rank(axis), mesh.size(axis))
            cut = rows_of_part(part, box[dim].stop - box[dim].start)
            box[dim] = slice(box[dim].start + cut.start, box[dim].start + cut.stop)
    return tuple(box)


def local_rows(tensor: Tensor) -> slice:
    """Return which rows (first dimension) of the whole tensor are in this rank's part."""
    return next(iter(local_box(tensor)), slice(None))


def share_of_copies(tensor: Tensor, world: World) -> float:
    """Return one divided by the ranks that hold the same part of a tensor."""
    if not isinstance(tensor, DTensor):
        return 1 / world.size
    axes = zip(tensor.placements, tensor.device_mesh.shape, strict=True)
    cuts = [size for placement, size in axes if not placement.is_replicate()]
    return math.prod(cuts) / world.size


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float, world: World) -> Tensor:
    """Scale gradients down to a norm, as torch's `clip_grad_norm_`; return the one before.

    torch's own knows no parameters of different meshes, and reduces axis after axis, which need not
    give the same bits on all ranks. Collective.
    """
    kept = [parameter for parameter in parameters if parameter.grad is not None]
    if world.tensor_parallel == 1:
        norm: Tensor = nn.utils.clip_grad_norm_(kept, max_norm)
        return whole(norm)
    gradients = [local(parameter.grad) for parameter in kept if parameter.grad is not None]
    shares = [share_of_copies(parameter, world) for parameter in kept]
    norms = torch.stack(torch._foreach_norm(gradients)).double()
    total = world.sum((norms.square() * norms.new_tensor(shares)).sum()).sqrt()
    factor = (max_norm / (total + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, factor.to(gradients[0].dtype))
    return total


def part_of(tensor: Tensor) -> Part:
    """Return which part of the whole tensor this rank has."""
    if not isinstance(tensor, DTensor):
        return Part(0, 1)
    (axis,) = (
        axis for axis, placement in enumerate(tensor.placements) if isinstance(placement, Shard)
    )
    return Part(tensor.device_mesh.get_local_rank(axis), tensor.device_mesh.size(axis))


def rows_of_part(part: Part, num_rows: int) -> slice:
    """Return the rows of a part of a tensor.

    FSDP cuts as `torch.chunk` does: parts of ⌈rows / ranks⌉ rows, the last ones shorter or empty.
    """
    share = -(-num_rows // part.count)
    start = min(num_rows, part.index * share)
    return slice(start, min(num_rows, start + share))


def _host_mesh(mesh: DeviceMesh) -> DeviceMesh:
    """Return the ranks of a mesh of GPUs as one of hosts (whose collectives nobody calls)."""
    names = mesh.mesh_dim_names
    assert names is not None
    whole_mesh = _host_mesh_of_all(mesh._get_root_mesh())
    return whole_mesh if names == whole_mesh.mesh_dim_names else whole_mesh[names]


@functools.cache
def _host_mesh_of_all(mesh: DeviceMesh) -> DeviceMesh:
    return init_device_mesh("cpu", tuple(mesh.shape), mesh_dim_names=mesh.mesh_dim_names)


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _units(root: nn.Module) -> list[FSDPModule]:
    return [module for module in root.modules() if isinstance(module, FSDPModule)]
