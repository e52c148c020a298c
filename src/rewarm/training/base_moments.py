"""The moments of a base's pretraining, taken over by the AdamW that goes on with it.

Everything is looked at before a step is taken: that there is a moment of its parameter's shape for
each parameter, of no other, that all are finite and the second ones not below zero.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer

from rewarm.distributed.tensor_files import (
    Header,
    fill_from_parts,
    fill_from_safetensors,
    read_part_headers,
    read_safetensors_headers,
)
from rewarm.distributed.world import World
from rewarm.errors import BaseModelError, CheckpointError, Problem, Problems
from rewarm.records.facts import OptimizerStateFacts
from rewarm.training.checkpoint import checkpoint_problems
from rewarm.training.optimizer import MOMENTS, named_parameters, set_step_counts
from rewarm.training.saved import read_saved_state
from rewarm.training.stored_moments import (
    StoredMoments,
    copy_moments,
    moments_in_checkpoint,
    moments_in_files,
)
from rewarm.training.torch_state import read_torch_state

__all__ = ["TakenOver", "take_over_moments"]

_FIX = "give the optimizer state of this very base, or leave it out for fresh moments"
_IN_STATE = re.compile(r"(?:.*?\.)?state\.(?P<name>.+)\.(?P<what>exp_avg|exp_avg_sq|step)")


class TakenOver(NamedTuple):
    """What an optimizer goes on from: updates of its parameters, and the betas where known."""

    fewest_updates: int
    most_updates: int
    betas: tuple[float, float] | None

    def __str__(self) -> str:
        fewest, most = self.fewest_updates, self.most_updates
        updates = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
        return f"the base's optimizer state is taken over, {updates} updates"


class _Found(NamedTuple):
    """Moments, the updates that they have had (by parameter, or under "" for all), the betas."""

    moments: StoredMoments
    counts: Mapping[str, float]
    betas: tuple[float, float] | None = None


def take_over_moments(
    facts: OptimizerStateFacts, model: nn.Module, optimizer: Optimizer, world: World
) -> TakenOver:
    """Bring a fresh optimizer over (parts of) a model to a base's state; collective.

    Parameters of the model that the optimizer does not train may have moments, which are left out.
    Raises BaseModelError with everything that does not fit, CheckpointError for a file that is
    damaged. The optimizer is of no use then.
    """
    found = _open(facts, model, world)
    known = {name for name, _ in model.named_parameters()}
    counts = _counts(found, optimizer)
    world.ranks.together(lambda: _check(facts.path, found.moments, counts, optimizer, known))
    damaged = copy_moments(found.moments, optimizer)
    _check_numbers(facts.path, damaged, world)
    whole = {name: int(count) for name, count in counts.items()}
    set_step_counts(optimizer, whole)
    return TakenOver(min(whole.values()), max(whole.values()), found.betas)


def _open(facts: OptimizerStateFacts, model: nn.Module, world: World) -> _Found:
    path = Path(facts.path)
    if facts.kind == "checkpoint":
        return _open_checkpoint(path, world)
    if facts.kind == "dcp":
        (found, *_) = world.ranks.together(lambda: read_part_headers(path))
        return _in_parts(path, found, world)
    opened: list[_Found] = []

    def open_alone() -> None:
        if facts.kind == "torch":
            opened.append(_Found(*read_torch_state(path, model)))
        else:
            opened.append(_in_safetensors(path))

    world.ranks.together(open_alone)
    return opened[0]


def _open_checkpoint(folder: Path, world: World) -> _Found:
    saved = read_saved_state(folder)
    problems = checkpoint_problems(folder, saved.step, world.ranks)
    if problems:
        what = "; ".join(problems)
        raise CheckpointError.one(str(folder), what, "restore it from a copy, or leave it out")
    return _Found(moments_in_checkpoint(folder, world), saved.optimizer_steps)


def _in_safetensors(path: Path) -> _Found:
    paths = [path] if path.is_file() else sorted(path.glob("optimizer*.safetensors"))
    counts: dict[str, float] = {}
    for file in paths:
        for key in read_safetensors_headers(file):
            kind, _, name = key.partition(".")
            if kind == "step":
                count = torch.zeros((), dtype=torch.float64)
                fill_from_safetensors(file, {key: count})
                counts[name] = float(count)
    return _Found(moments_in_files(path, paths), counts)


def _in_parts(folder: Path, headers: Mapping[str, Header], world: World) -> _Found:
    """Return what a DCP folder holds that torch wrote: [….]state.<parameter>.exp_avg and so on."""
    stored = {
        (match["what"], match["name"]): key
        for key, header in headers.items()
        if (match := _IN_STATE.fullmatch(key)) is not None
        and (match["what"] != "step" or not header.shape)
    }
    steps = {key: torch.zeros(()) for (what, _), key in stored.items() if what == "step"}
    if steps:
        fill_from_parts(folder, steps, world)
    counts = {name: float(steps[key]) for (what, name), key in stored.items() if what == "step"}
    key_of = {f"{what}.{name}": key for (what, name), key in stored.items() if what in MOMENTS}
    moments = StoredMoments(
        folder,
        {name: headers[key] for name, key in key_of.items()},
        lambda wanted: fill_from_parts(
            folder, {key_of[name]: tensor.detach() for name, tensor in wanted.items()}, world
        ),
    )
    return _Found(moments, counts)


def _counts(found: _Found, optimizer: Optimizer) -> dict[str, float]:
    """Return the updates of each parameter that is trained; nan where nothing says."""
    for_all = found.counts.get("", float("nan"))
    return {name: float(found.counts.get(name, for_all)) for name, _ in named_parameters(optimizer)}


def _check(
    where: str,
    stored: StoredMoments,
    counts: Mapping[str, float],
    optimizer: Optimizer,
    known: set[str],
) -> None:
    problems = Problems()
    for name, parameter in named_parameters(optimizer):
        for moment in MOMENTS:
            key = f"{moment}.{name}"
            header = stored.headers.get(key)
            if header is None:
                problems.add(where, f"{key} is missing", _FIX)
            elif header.shape != tuple(parameter.shape) or not header.dtype.is_floating_point:
                problems.add(
                    where,
                    f"{key} is {header.dtype} {list(header.shape)}, its parameter "
                    f"{list(parameter.shape)}",
                    _FIX,
                )
        if math.isnan(counts[name]):
            problems.add(where, f"nothing says how many updates {name} has had", _FIX)
        elif not (counts[name] >= 0 and counts[name].is_integer()):
            problems.add(where, f"{name} is said to have had {counts[name]:g} updates", _FIX)
    for key in sorted(stored.headers):
        if key.partition(".")[2] not in known:
            problems.add(where, f"{key} is of no parameter of the base", _FIX)
    problems.raise_as(BaseModelError)


def _check_numbers(where: str, damaged: list[str], world: World) -> None:
    everywhere = world.ranks.together(lambda: damaged)
    names = sorted({name for names in everywhere for name in names})
    if names:
        raise BaseModelError(
            Problem(
                where,
                f"{name} holds numbers that are not finite"
                + (", or below zero" if name.startswith("exp_avg_sq.") else ""),
                "get an intact copy, or leave it out for fresh moments",
            )
            for name in names
        )
