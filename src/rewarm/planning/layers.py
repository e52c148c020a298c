"""Finds, from headers alone, layers that are not like the others: missing or cut tensors.

Loading the weights tells everything that does not fit, hours of tokenization later; this tells
what a plan can know.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rewarm.errors import Problems
from rewarm.planning.weight_files import WeightTensor, read_weight_files
from rewarm.records.facts import ModelFacts

__all__ = ["note_unlike_layers"]

# Families whose layers all have the same tensors: there a missing one shows in the headers. Others
# mix kinds of layers, and only loading them tells.
_ALIKE = frozenset(
    [
        "cohere",
        "gemma",
        "gemma2",
        "gemma3_text",
        "gpt2",
        "gpt_neox",
        "granite",
        "llama",
        "mistral",
        "olmo",
        "olmo2",
        "olmo3",
        "phi",
        "phi3",
        "qwen2",
        "qwen3",
        "smollm3",
        "stablelm",
        "starcoder2",
    ]
)
_IN_LAYER = re.compile(r"(?:.*\.)?(?:layers|h)\.(\d+)\.(.+)")
_MOST_NAMED = 3


def note_unlike_layers(folder: Path, model: ModelFacts, problems: Problems) -> None:
    """Note tensors that a layer lacks, has in another shape than the others, or too many layers.

    `model` are the folder's facts. Only families whose layers are all alike are looked at.
    """
    if model.model_type not in _ALIKE:
        return
    files = read_weight_files(folder, problems)
    found: dict[str, dict[int, WeightTensor]] = {}
    for tensor in (tensor for file in files for tensor in file.tensors):
        match = _IN_LAYER.fullmatch(tensor.name)
        if match is not None:
            found.setdefault(match[2], {})[int(match[1])] = tensor
    _note(str(folder), found, model.num_layers, problems)


def _note(
    where: str, found: dict[str, dict[int, WeightTensor]], num_layers: int, problems: Problems
) -> None:
    extra = sorted({layer for layers in found.values() for layer in layers if layer >= num_layers})
    missing: list[str] = []
    differing: list[str] = []
    for suffix, layers in sorted(found.items()):
        missing += [f"{suffix} of layer {n}" for n in range(num_layers) if n not in layers]
        (usual, _), *_ = Counter(tensor.shape for tensor in layers.values()).most_common(1)
        differing += [
            f"{tensor.name} is {list(tensor.shape)} where others are {list(usual)}"
            for tensor in layers.values()
            if tensor.shape != usual
        ]
    fix = "download the whole model, with the config.json that belongs to it"
    if not found and num_layers:
        problems.add(where, f"none of its {num_layers} layers is among the tensors", fix)
    if missing:
        problems.add(where, f"{len(missing)} tensors are missing: {_some(missing)}", fix)
    if differing:
        problems.add(where, f"shapes differ between its layers: {_some(differing)}", fix)
    if extra:
        told = f"layer {extra[0]}" if len(extra) == 1 else f"layers {extra[0]} to {extra[-1]}"
        problems.add(
            where, f"it has {told}, but config.json says {num_layers} layers (from 0)", fix
        )


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return "; ".join(names[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
