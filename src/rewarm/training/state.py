"""All that a run carries from step to step, and how it lies on the disk.

    weights                 every persistent buffer, and every parameter that trains at some time,
                            a tied one once
    moments                 exp_avg.<parameter> and exp_avg_sq.<parameter> (8 bits: eight_bit.py)
    average                 the running average of what trains, where the plan keeps one
    state.json              step, plan, updates per parameter, versions

One process writes a file of each (`model.safetensors`, …), many ranks write a part each
(`distributed/tensor_files.py`); any number of ranks reads either. The data order, the learning rate
and the random numbers of a step are functions of (plan, step) and are not here. Reading is strict
in both directions, and nothing is copied into the state before everything was checked. Files come
here only after their hashes were verified (`checkpoint.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rewarm.artifacts import provenance, write_json
from rewarm.distributed.fsdp import Root, copied_to_host
from rewarm.distributed.tensor_files import Header, fill, place_of, read_headers, write_tensors
from rewarm.distributed.world import ALONE, World
from rewarm.errors import CheckpointError, Problem
from rewarm.model.trainable import trained_in
from rewarm.planning.amendments import Amendments
from rewarm.planning.plan import Plan, Science
from rewarm.retention.anchor import Anchor
from rewarm.retention.average import Average
from rewarm.training.optimizer import MOMENTS, is_eight_bit, moments, set_step_counts, step_counts
from rewarm.training.placement import VERSIONS_OF
from rewarm.training.saved import (
    STATE_FILE,
    GuardMemory,
    SavedState,
    SettlingMemory,
    check_plan,
    read_saved_state,
)
from rewarm.training.stored_moments import (
    StoredMoments,
    copy_moments,
    moments_in_checkpoint,
    num_parts,
)

__all__ = [
    "Snapshot",
    "TrainState",
    "buffers_of",
    "names_in_checkpoint",
    "read_average",
    "read_state",
    "read_weights",
    "take_snapshot",
    "trained_at_some_time",
    "weights_of",
    "write_snapshot",
]

_WEIGHTS = "model"
_MOMENTS = "optimizer"
_AVERAGE = "average"


@dataclass(slots=True)
class TrainState:
    """Weights, moments, and how many steps were taken or skipped (= the next one)."""

    root: Root
    optimizer: Optimizer
    step: int = 0
    world: World = ALONE
    amendments: Amendments = field(default_factory=Amendments)
    guard: GuardMemory = field(default_factory=GuardMemory)
    settling: SettlingMemory = field(default_factory=SettlingMemory)
    anchor: Anchor | None = None
    average: Average | None = None

    @property
    def model(self) -> nn.Module:
        """The model itself; what uses its weights runs inside `root`."""
        return self.root.model

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A state as it was after `saved.step` updates; of many ranks, this one's part."""

    saved: SavedState
    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    average: Mapping[str, Tensor] = field(default_factory=dict)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's own parameters and persistent buffers by name, each tensor once."""
    seen: set[int] = set()
    weights: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            weights[name] = tensor
    return weights


def buffers_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's own persistent buffers by name: what of `weights_of` is no parameter."""
    weights = weights_of(model)
    return {
        name: tensor for name, tensor in weights.items() if not isinstance(tensor, nn.Parameter)
    }


def _stored_weights(model: nn.Module, science: Science) -> dict[str, Tensor]:
    """Return what a checkpoint holds, by name."""
    names = names_in_checkpoint(model, science)
    return {name: tensor for name, tensor in weights_of(model).items() if name in names}


def names_in_checkpoint(model: nn.Module, science: Science) -> frozenset[str]:
    """Return the names of what a checkpoint holds: buffers, and parameters that some stage trains.

    The others are the base's own bits to the end, and are read from it. The model may be one
    without weights.
    """
    trained = trained_at_some_time(model, science)
    return frozenset(
        name
        for name, tensor in weights_of(model).items()
        if name in trained or not isinstance(tensor, nn.Parameter)
    )


def trained_at_some_time(model: nn.Module, science: Science) -> dict[str, nn.Parameter]:
    """Return every parameter that some stage trains, by name."""
    names = {
        name
        for stage in science.stages
        for name in trained_in(model, science.parameters, stage, seed=science.seed)
    }
    return {name: found for name, found in model.named_parameters() if name in names}


def take_snapshot(state: TrainState, science: Science, *, copy: bool) -> Snapshot:
    """Return the state as it is now; with `copy` later steps do not change it."""
    saved = SavedState(
        step=state.step,
        num_samples=state.step * science.sequences_per_step,
        num_tokens=state.step * science.tokens_per_step,
        plan=Plan.science_fingerprint(science),
        science=science.model_dump(mode="json"),
        amendments_head=state.amendments.last,
        guard=state.guard,
        settling=state.settling,
        optimizer_steps=step_counts(state.optimizer),
        num_ranks=state.world.size,
        versions=provenance(VERSIONS_OF)["packages"],
    )
    groups: list[Mapping[str, Tensor]] = [
        _stored_weights(state.model, science),
        moments(state.optimizer),
        {} if state.average is None else state.average.weights,
    ]
    if copy:
        groups = [
            {name: copied_to_host(tensor) for name, tensor in group.items()} for group in groups
        ]
    return Snapshot(saved, *groups)


def write_snapshot(folder: Path, snapshot: Snapshot, world: World) -> None:
    """Write a snapshot's files into a folder; collective. An OSError: the disk refuses."""
    groups = {_WEIGHTS: snapshot.weights, _MOMENTS: snapshot.moments}
    if snapshot.average:
        groups[_AVERAGE] = snapshot.average
    write_tensors(folder, groups, world)
    if world.is_main:
        write_json(folder / STATE_FILE, snapshot.saved.model_dump(mode="json"))


def read_state(folder: Path, state: TrainState, science: Science) -> None:
    """Bring a state to what a verified checkpoint holds; collective.

    Raises RunFolderError where the plan is another one and CheckpointError, with every difference,
    where tensors or parameters are missing, extra or of another shape; the state is then untouched.
    """
    saved = read_saved_state(folder)
    check_plan(saved, science, where=folder)
    weights, kept = _stored_weights(state.model, science), moments(state.optimizer)
    groups: dict[str, Mapping[str, Tensor]] = {_WEIGHTS: weights}
    if state.average is not None:
        groups[_AVERAGE] = state.average.weights
    problems = [
        problem
        for group, tensors in groups.items()
        for problem in _differences(folder, group, _headers_of(tensors))
    ]
    cut_anew = _moments_cut_anew(folder, state)
    if cut_anew is None:
        of_all = state.world.ranks.together(lambda: _headers_of(kept))
        wanted = {name: header for found in of_all for name, header in found.items()}
        problems += _differences(folder, _MOMENTS, wanted)
    else:
        names = step_counts(state.optimizer)
        expected = [f"{moment}.{name}" for moment in MOMENTS for name in names]
        problems += _key_differences(folder, cut_anew.headers.keys(), expected)
    problems += _key_differences(
        folder / STATE_FILE, saved.optimizer_steps.keys(), step_counts(state.optimizer).keys()
    )
    if problems:
        raise CheckpointError(problems)
    if cut_anew is None:
        fill(folder, {**groups, _MOMENTS: kept}, state.world)
    else:
        fill(folder, groups, state.world)
        copy_moments(cut_anew, state.optimizer)
    set_step_counts(state.optimizer, saved.optimizer_steps)
    state.step = saved.step
    state.guard = saved.guard
    state.settling = saved.settling


def _moments_cut_anew(folder: Path, state: TrainState) -> StoredMoments | None:
    """Return 8-bit moments that another number of ranks cut into blocks, as plain numbers."""
    if not is_eight_bit(state.optimizer):
        return None
    here = state.world.ranks.together(lambda: num_parts(moments(state.optimizer)))
    if num_parts(read_headers(folder, _MOMENTS)) == max(here):
        return None
    return moments_in_checkpoint(folder, state.world)


def read_weights(folder: Path, model: nn.Module, science: Science) -> int:
    """Bring a model in this process to the weights of a verified checkpoint.

    Returns the updates it has had. Raises as `read_state` does; the model is then untouched.
    """
    saved = read_saved_state(folder)
    check_plan(saved, science, where=folder)
    wanted = _stored_weights(model, science)
    problems = list(_differences(folder, _WEIGHTS, _headers_of(wanted)))
    if problems:
        raise CheckpointError(problems)
    fill(folder, {_WEIGHTS: wanted}, ALONE)
    return saved.step


def read_average(folder: Path, model: nn.Module, science: Science) -> int:
    """Bring a model in this process to the average of a verified checkpoint.

    Returns the updates that it is of. Raises as `read_state` does, the model then being untouched.
    """
    wanted: Mapping[str, Tensor] = trained_at_some_time(model, science)
    problems = list(_differences(folder, _AVERAGE, _headers_of(wanted)))
    if problems:
        raise CheckpointError(problems)
    step = read_weights(folder, model, science)
    fill(folder, {_AVERAGE: wanted}, ALONE)
    return step


def _headers_of(tensors: Mapping[str, Tensor]) -> dict[str, Header]:
    return {name: Header.of(tensor) for name, tensor in tensors.items()}


def _differences(folder: Path, group: str, wanted: Mapping[str, Header]) -> Iterable[Problem]:
    """Yield every name, shape and dtype in which a folder differs from what the plan expects."""
    found = read_headers(folder, group)
    place = place_of(folder, group)
    yield from _key_differences(place, found.keys(), wanted.keys())
    for name in sorted(found.keys() & wanted.keys()):
        here, there = found[name], wanted[name]
        if here != there:
            yield _foreign(
                place,
                f"{name} is {here.dtype} {list(here.shape)} instead of "
                f"{there.dtype} {list(there.shape)}",
            )


def _key_differences(path: Path, found: Iterable[str], wanted: Iterable[str]) -> list[Problem]:
    names, expected = set(found), set(wanted)
    missing = [_foreign(path, f"{name} is missing") for name in sorted(expected - names)]
    return missing + [_foreign(path, f"{name} is unexpected") for name in sorted(names - expected)]


def _foreign(path: Path, what: str) -> Problem:
    return Problem(str(path), what, "the checkpoint is of another model; use the run's own base")
