"""The processes of a launch and the groups through which they talk.

One process is a world of its own and never communicates. Several are started by torchrun (or by
anything that sets its variables) and join a process group: gloo on a CPU, NCCL beside gloo on GPUs.
What concerns files, errors and signals goes over gloo, so that no GPU is waited for. A rank that is
dead or stopped makes the others' next collective fail within the timeout (LostRankFault).
"""

from __future__ import annotations

import contextlib
import datetime
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from rewarm.distributed.ranks import Ranks
from rewarm.errors import EnvironmentFault, LostRankFault

__all__ = ["ALONE", "World", "join", "launched_world", "told_as_lost_rank"]

_JOIN_WITHIN = datetime.timedelta(minutes=10)
_POLL_S = 0.02
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True, slots=True)
class World:
    """The processes of a launch as one of them sees them; by default one that is alone.

    `local_rank` and `local_size` are within the node; `group` talks over gloo, with `timeout`.
    `tensor_parallel` neighbouring ranks share each block's matrices, and so see the same data.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    group: dist.ProcessGroup | None = None
    timeout: datetime.timedelta = datetime.timedelta(minutes=10)
    tensor_parallel: int = 1

    @property
    def data_rank(self) -> int:
        """Which share of the data this rank sees."""
        return self.rank // self.tensor_parallel

    @property
    def data_size(self) -> int:
        """Into how many shares the data are split."""
        return self.size // self.tensor_parallel

    @property
    def is_alone(self) -> bool:
        """Tell whether there is no other rank."""
        return self.size == 1

    @property
    def is_main(self) -> bool:
        """Tell whether this is the rank that writes, logs and speaks."""
        return self.rank == 0

    @property
    def ranks(self) -> Ranks:
        """The same ranks as those who agree."""
        return Ranks() if self.is_alone else Ranks(self.rank, self.size, self._exchange)

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up a tensor over the ranks, in place, and return it; collective."""
        if not self.is_alone:
            with told_as_lost_rank(self):
                dist.all_reduce(tensor, group=None if tensor.is_cuda else self.group)
        return tensor

    def sum_of_data(self, tensor: Tensor) -> Tensor:
        """Add up, as `sum` does, what came of the data: that of each share once."""
        if self.rank % self.tensor_parallel:
            tensor.zero_()
        return self.sum(tensor)

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Give a tensor on the host the main rank's values, in place; collective."""
        if not self.is_alone:
            with told_as_lost_rank(self):
                dist.broadcast(tensor, src=0, group=self.group)
        return tensor

    def on_a_group_of_its_own(self) -> World:
        """Return the same ranks on a new group, for a thread beside the training; collective."""
        if self.is_alone:
            return self
        return replace(self, group=dist.new_group(backend="gloo", timeout=self.timeout))

    def _exchange(self, value: Any) -> list[Any]:
        values = [None] * self.size
        with told_as_lost_rank(self):
            dist.all_gather_object(values, value, group=self.group)
        return values


ALONE = World()
"""A single process."""


def launched_world(environment: Mapping[str, str] = os.environ) -> World:
    """Return the world that torchrun's variables describe; a single process without them.

    Nothing is joined yet. Raises EnvironmentFault where they contradict each other.
    """
    if "WORLD_SIZE" not in environment or environment["WORLD_SIZE"] == "1":
        return World()
    try:
        rank, size = (int(environment[name]) for name in _VARIABLES[:2])
        local_rank = int(environment.get("LOCAL_RANK", rank))
        local_size = int(environment.get("LOCAL_WORLD_SIZE", size))
        if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
            raise ValueError(f"rank {rank} of {size}, local {local_rank} of {local_size}")
    except (KeyError, ValueError) as error:
        given = ", ".join(f"{name}={environment.get(name)!r}" for name in _VARIABLES)
        raise EnvironmentFault(
            f"the variables of this launch make no sense ({given}: {error})",
            "launch with torchrun, or unset WORLD_SIZE for a single process",
        ) from error
    return World(rank, size, local_rank, local_size)


@contextlib.contextmanager
def join(world: World, *, device_type: str, timeout_s: float) -> Iterator[World]:
    """Join the process group for the length of a block; a world that is alone stays so.

    `device_type` is "cpu" or "cuda"; `timeout_s` bounds every collective. Raises EnvironmentFault
    where the ranks do not find each other within ten minutes.
    """
    if world.is_alone:
        yield world
        return
    if device_type == "cuda":
        torch.cuda.set_device(world.local_rank)
    timeout = datetime.timedelta(seconds=timeout_s)
    backend = "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo"
    try:
        dist.init_process_group(
            backend,
            store=_store_of_this_launch(world),
            rank=world.rank,
            world_size=world.size,
            timeout=timeout,
        )
        group = dist.new_group(backend="gloo", timeout=timeout)
    except (RuntimeError, ValueError) as error:
        raise EnvironmentFault(
            f"rank {world.rank} of {world.size} did not find the others ({_first_line(error)})",
            "check that every node reaches MASTER_ADDR:MASTER_PORT and was given the same size",
        ) from error
    try:
        yield replace(world, group=group, timeout=timeout)
    except LostRankFault:
        if device_type == "cpu":  # NCCL waits for the others once more; the process just ends
            dist.destroy_process_group()
        raise
    except BaseException:
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()


@contextlib.contextmanager
def told_as_lost_rank(world: World) -> Iterator[None]:
    """Raise LostRankFault for what torch raises where a collective fails."""
    try:
        yield
    except RuntimeError as error:
        if world.is_alone or not _is_communication(error):
            raise
        raise _lost(error) from error


def _store_of_this_launch(world: World) -> Any:
    """Return the launch's key-value store, past what an earlier attempt left in it.

    torchrun may keep its store over a restart; ranks would then call the addresses of the dead.
    So the main rank invents a name for this attempt, and gives it to each rank that shows a token
    of its own until all have answered under that name.
    """
    store, _, _ = next(rendezvous("env://", timeout=_JOIN_WITHIN))
    deadline = time.monotonic() + _JOIN_WITHIN.total_seconds()
    if world.is_main:
        name = uuid.uuid4().hex
        missing = set(range(1, world.size))
        while missing and time.monotonic() < deadline:
            for rank in sorted(missing):
                if store.check([f"rewarm/{rank}"]):
                    token = store.get(f"rewarm/{rank}").decode("ascii")
                    store.set(f"rewarm/{rank}/{token}", name)
                if store.check([f"rewarm/{name}/{rank}"]):
                    missing.remove(rank)
            time.sleep(_POLL_S)
        if missing:
            raise RuntimeError(f"no sign of rank {min(missing)}")
    else:
        token = uuid.uuid4().hex
        store.set(f"rewarm/{world.rank}", token)
        store.wait([f"rewarm/{world.rank}/{token}"], _JOIN_WITHIN)
        name = store.get(f"rewarm/{world.rank}/{token}").decode("ascii")
        store.set(f"rewarm/{name}/{world.rank}", "here")
    return dist.PrefixStore(f"rewarm/{name}", store)  # type: ignore[attr-defined]


def _lost(error: RuntimeError) -> LostRankFault:
    return LostRankFault(
        f"rank {dist.get_rank()} lost another rank: it died, was stopped, or did not answer within "
        f"the timeout ({_first_line(error)})",
        "look for the first error of any rank above; the same command resumes from the newest "
        "verified checkpoint (torchrun --max-restarts does so by itself)",
    )


def _is_communication(error: RuntimeError) -> bool:
    """Tell whether an error is a collective's: for gloo torch has no class of its own."""
    if isinstance(error, dist.DistError):
        return True
    text = str(error).lower()
    return any(word in text for word in ("gloo", "connection closed", "timed out waiting"))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
