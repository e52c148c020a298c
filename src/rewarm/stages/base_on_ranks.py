"""A plan's base on many ranks, each of which reads the rows that are its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from rewarm.distributed.fsdp import Root, local, local_box, materialise
from rewarm.distributed.tensor_files import stored_part
from rewarm.distributed.world import World
from rewarm.errors import BaseModelError, Problems
from rewarm.model.load import base_without_weights, load_base, stored_places
from rewarm.planning.plan import Plan
from rewarm.stages.trained import check_planned_base
from rewarm.training.state import weights_of

__all__ = ["fill_base", "planned_base_without_weights"]

Places = Mapping[str, Sequence[tuple[Path, str]]]


def planned_base_without_weights(plan: Plan, world: World) -> nn.Module:
    """Return a plan's base with its parameters on the meta device; collective.

    Raises BaseModelError where it is not the planned one or cannot be used.
    """
    found: list[nn.Module] = []

    def build() -> None:
        found.append(base_without_weights(Path(plan.conduct.base_folder)))

    world.ranks.on_main(lambda: check_planned_base(plan))
    world.ranks.together(build)
    return found[0]


def fill_base(root: Root, folder: Path, world: World, *, device: str) -> list[str]:
    """Set the weights of a sharded base from its folder; collective.

    Returns what to tell people: that the main rank has to load all of it, where it has. Raises
    BaseModelError, listing every tensor that is of another shape than its place or not finite.
    """
    places = stored_places(root.model, folder)
    materialise(root, torch.device(device))
    tensors = weights_of(root.model)
    if places is None:
        _fill_from_main(tensors, folder, world)
    else:
        world.ranks.together(lambda: _fill_from_files(tensors, places, folder))
    _check_finite(tensors, folder, world)
    if places is not None:
        return []
    return [
        f"{folder} stores tensors under other names than the model's: the main rank loads all of "
        "it and hands out the parts"
    ]


def _fill_from_files(tensors: Mapping[str, Tensor], places: Places, folder: Path) -> None:
    problems = Problems()
    with torch.no_grad():
        for name, tensor in tensors.items():
            copies = [stored_part(path, key, local_box(tensor)) for path, key in places[name]]
            here = local(tensor)
            if copies[0].shape != here.shape:
                problems.add(
                    str(folder),
                    f"tensor {name} has another shape than its place {list(tensor.shape)}",
                    "make config.json and the weights agree",
                )
            elif any(not torch.equal(copies[0], copy) for copy in copies[1:]):
                names = " and ".join(key for _, key in places[name])
                problems.add(
                    str(folder / "config.json"),
                    f"tie_word_embeddings is true, but {names} differ in the checkpoint",
                    "set tie_word_embeddings to false, if both are right",
                )
            else:
                here.copy_(copies[0])
    problems.raise_as(BaseModelError)


def _fill_from_main(tensors: Mapping[str, Tensor], folder: Path, world: World) -> None:
    loaded: dict[str, Tensor] = {}

    def load() -> None:
        loaded.update(weights_of(load_base(folder)))

    world.ranks.on_main(load)
    with torch.no_grad():
        for name, tensor in tensors.items():
            whole = loaded.pop(name).detach() if world.is_main else torch.empty(tensor.shape)
            local(tensor).copy_(world.broadcast(whole)[local_box(tensor)])


def _check_finite(tensors: Mapping[str, Tensor], folder: Path, world: World) -> None:
    damaged = [int((~torch.isfinite(local(tensor))).any()) for tensor in tensors.values()]
    counts = world.sum(torch.tensor(damaged)).tolist()
    problems = Problems()
    for name, count in zip(tensors, counts, strict=True):
        if count:
            problems.add(
                str(folder),
                f"tensor {name} holds values that are not finite",
                "get an intact checkpoint; training from this one cannot work",
            )
    world.ranks.together(lambda: problems.raise_as(BaseModelError))
