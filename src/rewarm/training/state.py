"""All that a run carries from step to step, and its two tensor files and one JSON file on disk.

    model.safetensors       every parameter and persistent buffer, a tied one once
    optimizer.safetensors   exp_avg.<parameter> and exp_avg_sq.<parameter>
    state.json              step, plan, random state, updates per parameter, versions

The data order and the learning rate are functions of (plan, step) and are not here. Reading is
strict in both directions, and nothing is copied into the state before everything was checked.
Files come here only after their hashes were verified (`checkpoint.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import AdamW

from rewarm.artifacts import open_to_others, provenance, write_json
from rewarm.errors import CheckpointError, Problem
from rewarm.planning.plan import Plan, Science
from rewarm.training.optimizer import moments, set_step_counts, step_counts
from rewarm.training.placement import VERSIONS_OF
from rewarm.training.randomness import RandomState
from rewarm.training.saved import STATE_FILE, SavedState, check_plan, read_saved_state

__all__ = [
    "OPTIMIZER_FILE",
    "WEIGHTS_FILE",
    "TrainState",
    "buffers_of",
    "read_state",
    "read_weights",
    "weights_of",
    "write_state",
]

WEIGHTS_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"


@dataclass(slots=True)
class TrainState:
    """Weights, moments, and how many updates were taken (= the next step)."""

    model: nn.Module
    optimizer: AdamW
    step: int = 0

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device


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


def write_state(folder: Path, state: TrainState, science: Science) -> None:
    """Write the three files into a folder; an OSError says where the disk refuses."""
    random_state = RandomState.capture(state.device)
    saved = SavedState(
        step=state.step,
        num_samples=state.step * science.sequences_per_step,
        num_tokens=state.step * science.tokens_per_step,
        plan=Plan.science_fingerprint(science),
        science=science.model_dump(mode="json"),
        optimizer_steps=step_counts(state.optimizer),
        random_cpu=_to_hex(random_state.cpu),
        random_cuda=None if random_state.cuda is None else _to_hex(random_state.cuda),
        versions=provenance(VERSIONS_OF)["packages"],
    )
    _save_tensors(weights_of(state.model), folder / WEIGHTS_FILE)
    _save_tensors(moments(state.optimizer), folder / OPTIMIZER_FILE)
    write_json(folder / STATE_FILE, saved.model_dump(mode="json"))


def read_state(folder: Path, state: TrainState, science: Science) -> None:
    """Bring a state to what a verified checkpoint holds, random state included.

    Raises RunFolderError where the plan is another one and CheckpointError, with every difference,
    where tensors or parameters are missing, extra or of another shape; the state is then untouched.
    """
    saved = read_saved_state(folder)
    check_plan(saved, science, where=folder)
    pairs = [
        (folder / WEIGHTS_FILE, weights_of(state.model)),
        (folder / OPTIMIZER_FILE, moments(state.optimizer)),
    ]
    loaded = [_load_tensors(path) for path, _ in pairs]
    problems = [
        problem
        for (path, wanted), found in zip(pairs, loaded, strict=True)
        for problem in _differences(path, found, wanted)
    ]
    problems += _key_differences(
        folder / STATE_FILE, saved.optimizer_steps.keys(), step_counts(state.optimizer).keys()
    )
    if problems:
        raise CheckpointError(problems)
    with torch.no_grad():
        for (_, wanted), found in zip(pairs, loaded, strict=True):
            for name, tensor in wanted.items():
                tensor.copy_(found[name])
    set_step_counts(state.optimizer, saved.optimizer_steps)
    state.step = saved.step
    _random_state_of(saved).restore(state.device)


def read_weights(folder: Path, model: nn.Module, science: Science) -> int:
    """Bring a model to the weights of a verified checkpoint; return the updates it has had.

    Raises as `read_state` does; the model is then untouched.
    """
    saved = read_saved_state(folder)
    check_plan(saved, science, where=folder)
    wanted = weights_of(model)
    found = _load_tensors(folder / WEIGHTS_FILE)
    problems = list(_differences(folder / WEIGHTS_FILE, found, wanted))
    if problems:
        raise CheckpointError(problems)
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(found[name])
    return saved.step


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, readable by whoever may read the folder."""
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{path.name}: {error}") from error
    open_to_others(path)


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError.one(
            str(path), f"it cannot be read ({error})", "restore it from a copy"
        ) from error
    return tensors


def _differences(
    path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> Iterable[Problem]:
    """Yield every name, shape and dtype in which a file differs from what the plan expects."""
    yield from _key_differences(path, found.keys(), wanted.keys())
    for name in sorted(found.keys() & wanted.keys()):
        here, there = found[name], wanted[name]
        if here.shape != there.shape or here.dtype != there.dtype:
            yield _foreign(
                path,
                f"{name} is {here.dtype} {list(here.shape)} instead of "
                f"{there.dtype} {list(there.shape)}",
            )


def _key_differences(path: Path, found: Iterable[str], wanted: Iterable[str]) -> list[Problem]:
    names, expected = set(found), set(wanted)
    missing = [_foreign(path, f"{name} is missing") for name in sorted(expected - names)]
    return missing + [_foreign(path, f"{name} is unexpected") for name in sorted(names - expected)]


def _foreign(path: Path, what: str) -> Problem:
    return Problem(str(path), what, "the checkpoint is of another model; use the run's own base")


def _to_hex(state: Tensor) -> str:
    return bytes(state.tolist()).hex()


def _from_hex(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)


def _random_state_of(saved: SavedState) -> RandomState:
    cuda = None if saved.random_cuda is None else _from_hex(saved.random_cuda)
    return RandomState(_from_hex(saved.random_cpu), cuda)
