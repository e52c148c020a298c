"""The state of torch's AdamW as `torch.save` writes it: an `optimizer.pt`, with numbers for names.

It is opened with `weights_only=True`: what would run code is refused. Its parameters are numbered
in the order of the optimizer's groups. Whose order that was is known of three: groups that carry
`param_names`, one group over `model.parameters()`, and the two groups of a transformers Trainer
(decayed ones, then the others), whose own function says which are which.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rewarm.distributed.fsdp import local, local_box
from rewarm.distributed.tensor_files import Header
from rewarm.errors import BaseModelError, Problems
from rewarm.training.optimizer import MOMENTS
from rewarm.training.stored_moments import StoredMoments

__all__ = ["TorchState", "read_torch_state"]

_FIX = "give the optimizer.pt of this very base, of AdamW in 32 or 16 bits"
_MAX_REASON = 300


class TorchState(NamedTuple):
    """Moments, updates by parameter, and the betas of the first group."""

    moments: StoredMoments
    counts: dict[str, float]
    betas: tuple[float, float] | None


def read_torch_state(path: Path, model: nn.Module) -> TorchState:
    """Return the state in a file for a model's parameters.

    Raises BaseModelError where it cannot be read without running code, is no AdamW's, or has
    groups whose order nobody knows.
    """
    problems = Problems()
    value = _load(path, problems)
    groups, state = _parts_of(value, path, problems)
    problems.raise_as(BaseModelError)
    names = _names_by_id(groups, model, path, problems)
    problems.raise_as(BaseModelError)
    tensors: dict[str, Tensor] = {}
    counts: dict[str, float] = {}
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    for key, name in names.items():
        entry: Any = state.get(key)
        misfits = _misfits(entry, shapes.get(name))
        for why in misfits:
            problems.add(str(path), f"{name} (number {key} there) {why}", _FIX)
        if not misfits:
            tensors |= {f"{moment}.{name}": entry[moment] for moment in MOMENTS}
            counts[name] = float(entry["step"])
    problems.raise_as(BaseModelError)

    def fill(wanted: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in wanted.items():
                stored = tensors[name]
                local(tensor).copy_(stored[local_box(tensor)])

    headers = {name: Header.of(tensor) for name, tensor in tensors.items()}
    return TorchState(StoredMoments(path, headers, fill), counts, _betas_of(groups))


def _load(path: Path, problems: Problems) -> Any:
    try:
        # Mapped: of many ranks each then reads its own rows.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        problems.add(
            str(path),
            f"it asks for more than tensors and numbers ({asked[1] if asked else 'unknown'})",
            "it is not opened, since that could run code; save the moments as safetensors "
            "(docs/optimizer.md)",
        )
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:_MAX_REASON]
        problems.add(str(path), f"it cannot be read ({reason})", "restore it from a copy")
    return None


def _parts_of(
    value: Any, path: Path, problems: Problems
) -> tuple[list[dict[str, Any]], dict[Any, Any]]:
    """Return groups and state of what `Optimizer.state_dict()` gave."""
    if value is None:
        return [], {}
    groups = value.get("param_groups") if isinstance(value, dict) else None
    state = value.get("state") if isinstance(value, dict) else None
    if (
        isinstance(state, dict)
        and isinstance(groups, list)
        and all(isinstance(g, dict) and isinstance(g.get("params"), list) for g in groups)
    ):
        return groups, state
    problems.add(str(path), "it is not the state_dict() of an optimizer", _FIX)
    return [], {}


def _names_by_id(
    groups: Sequence[dict[str, Any]], model: nn.Module, path: Path, problems: Problems
) -> dict[Any, str]:
    """Return the name of every numbered parameter; empty, with a problem noted, where unknown."""
    numbers = [list(group["params"]) for group in groups]
    flat = [number for group in numbers for number in group]
    if not flat or not all(isinstance(number, int | str) for number in flat):
        problems.add(str(path), "its groups of parameters are not numbered or named", _FIX)
        return {}
    if len(set(flat)) != len(flat):
        problems.add(str(path), "a parameter stands in its groups twice", _FIX)
        return {}
    if all(isinstance(name, str) for name in flat):
        return {name: name for name in flat}
    if all("param_names" in group for group in groups):
        told = [group["param_names"] for group in groups]
        if all(isinstance(some, list) for some in told) and list(map(len, told)) == list(
            map(len, numbers)
        ):
            return dict(zip(flat, (str(name) for some in told for name in some), strict=True))
        problems.add(str(path), "its groups do not have as many param_names as parameters", _FIX)
        return {}
    names = [name for name, _ in model.named_parameters()]
    if len(numbers) == 1:
        expected, whose = [names], "AdamW(model.parameters())"
    elif len(numbers) == 2:
        decayed = _decayed_by_trainer(model)
        expected = [[n for n in names if n in decayed], [n for n in names if n not in decayed]]
        whose = "a transformers Trainer"
    else:
        problems.add(
            str(path),
            f"its {len(numbers)} groups of parameters have no names, and no known order",
            "save the moments by name as safetensors (docs/optimizer.md)",
        )
        return {}
    if [len(group) for group in numbers] != [len(group) for group in expected]:
        problems.add(
            str(path),
            f"its groups have {_sizes(numbers)} parameters, those of {whose} over this base "
            f"{_sizes(expected)}",
            _FIX,
        )
        return {}
    return dict(zip(flat, (name for group in expected for name in group), strict=True))


def _decayed_by_trainer(model: nn.Module) -> frozenset[str]:
    """Return what a Trainer puts into its first group (it takes seconds to import)."""
    from transformers import Trainer

    return frozenset(Trainer.get_decay_parameter_names(None, model))


def _sizes(groups: Sequence[Sequence[object]]) -> str:
    return " and ".join(str(len(group)) for group in groups)


def _betas_of(groups: Sequence[dict[str, Any]]) -> tuple[float, float] | None:
    found = groups[0].get("betas") if groups else None
    match found:
        case (float() | int() as first, float() | int() as second):
            return (float(first), float(second))
    return None


def _misfits(entry: Any, shape: torch.Size | None) -> list[str]:
    """Return why an entry is no AdamW state of a parameter of a shape; nothing where it is one."""
    if not isinstance(entry, dict) or entry.keys() != {"step", *MOMENTS}:
        return [f"has {_told(entry)} instead of step, exp_avg, exp_avg_sq"]
    misfits = []
    step = entry["step"]
    if not isinstance(step, int | float) and not (isinstance(step, Tensor) and step.numel() == 1):
        misfits.append("has a step that is no number")
    for name in MOMENTS:
        moment = entry[name]
        if not isinstance(moment, Tensor) or moment.layout != torch.strided or moment.is_meta:
            misfits.append(f"has no plain tensor as its {name}")
        elif shape is not None and moment.shape != shape:
            misfits.append(f"is {list(shape)}, its {name} {list(moment.shape)}")
    return misfits


def _told(entry: Any) -> str:
    if not isinstance(entry, dict) or not entry:
        return "no state"
    keys = ", ".join(sorted(str(key) for key in entry))
    return f"{keys} (8-bit moments of bitsandbytes)" if "state1" in entry else keys
