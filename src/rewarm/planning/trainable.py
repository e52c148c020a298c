"""Which parameters train at a step: a function of (plan, amendments, step).

A run is a sequence of *stages*. Within one, a set of parameters trains; what does not keeps its
bits, has no moments, and, where it is the lower part of the network, is not even computed a
gradient for: the backward pass stops above it. A stage is described by how many of the lowest
layers are frozen (the embeddings with them) and by which half is drawn.

Layers are those of the names: `model.layers.7.mlp.up_proj.weight` is in layer 7. A tied head is the
embeddings: it freezes with them.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from pydantic import Field

from rewarm.order.shuffle import derive_key, permute
from rewarm.recipe.parameters import FreezingRecipe, ParametersRecipe
from rewarm.records.facts import Record

__all__ = [
    "Names",
    "Stage",
    "freezeout_end",
    "in_layer",
    "is_adapter_target",
    "is_embedding",
    "layer_of",
    "layer_rate_scale",
    "layers_named",
    "lowest_trained",
    "stages_of",
    "trained_names",
    "training_cost",
    "within_layer",
]

_IN_LAYER = re.compile(r"(?:.*\.)?(?:layers|h|blocks|block)\.(\d+)\.(.+)")
_EMBEDDINGS = re.compile(
    r"(?:.*\.)?(?:embed_tokens|wte|wpe|embed_in|word_embeddings|tok_embeddings|embeddings)\.weight"
)
_HEADS = re.compile(r"(?:.*\.)?(?:lm_head|embed_out|output)\.(?:weight|bias)")
_NORM = re.compile(r"norm|(?:^|\.)ln_|layernorm", re.IGNORECASE)
_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_MLP = re.compile(r"(?:^|\.)(?:mlp|feed_forward|ffn|moe|experts)\b", re.IGNORECASE)
_ADAPTED = {"attention": ("attn", "attention"), "mlp": ("mlp", "feed_forward", "ffn")}
_RANGE = re.compile(r"layers\.(?:(\d+)(?:-(\d+))?|(top|bottom)-(\d+))")


class Stage(Record):
    """From `start_step` on the lowest `frozen_layers` and the embeddings (if any) do not train."""

    start_step: int = Field(ge=0)
    frozen_layers: int = Field(0, ge=0)
    half: int | None = Field(None, description="which random half trains; None: all")


@dataclass(frozen=True)
class Names:
    """A model's parameters by name, each with its number of dimensions and of values.

    `expanded` are layers that were added to the base.
    """

    num_layers: int
    shapes: Mapping[str, tuple[int, ...]]
    expanded: frozenset[int] = field(default_factory=frozenset)

    @property
    def num_values(self) -> int:
        """Values of all parameters."""
        return sum(math.prod(shape) for shape in self.shapes.values())


def layer_of(name: str) -> int | None:
    """Return which layer a parameter is of; None for embeddings, head and last norm."""
    match = _IN_LAYER.fullmatch(name)
    return int(match[1]) if match else None


def in_layer(name: str, layer: int) -> str:
    """Return the name that a layer's parameter has in another layer.

    >>> in_layer("model.layers.7.mlp.up_proj.weight", 8)
    'model.layers.8.mlp.up_proj.weight'
    """
    match = _IN_LAYER.fullmatch(name)
    assert match is not None
    return f"{name[: match.start(1)]}{layer}{name[match.end(1) :]}"


def within_layer(name: str) -> str:
    """Return a layer's parameter's name without the layer.

    >>> within_layer("model.layers.7.mlp.up_proj.weight")
    'mlp.up_proj.weight'
    """
    match = _IN_LAYER.fullmatch(name)
    assert match is not None
    return match[2]


def is_embedding(name: str) -> bool:
    """Tell whether a parameter is the input embeddings (and so, where tied, the head)."""
    return layer_of(name) is None and _EMBEDDINGS.fullmatch(name) is not None


def stages_of(
    parameters: ParametersRecipe,
    freezing: FreezingRecipe,
    *,
    num_layers: int,
    num_steps: int,
    phase_starts: Sequence[int],
) -> tuple[Stage, ...]:
    """Return the stages that the recipe itself fixes, the first of which begins at step 0."""
    frozen = dict(_frozen_from(freezing, num_layers, num_steps))
    halves = dict(enumerate(phase_starts)) if parameters.random_half else {}
    starts = sorted({0, *frozen, *halves.values()})
    half_from = {start: index for index, start in halves.items()}
    stages: list[Stage] = []
    count, half = 0, None
    for start in starts:
        count = frozen.get(start, count)
        half = half_from.get(start, half)
        stages.append(Stage(start_step=start, frozen_layers=count, half=half))
    return tuple(stages)


def _frozen_from(
    freezing: FreezingRecipe, num_layers: int, num_steps: int
) -> list[tuple[int, int]]:
    """Return [(step, lowest layers that are frozen from it on)]."""
    most = num_layers - freezing.keep_top
    if most < 1 or freezing.kind in ("none", "auto"):
        return [(0, 0)]
    if freezing.kind == "freezeout":
        ends = [freezeout_end(freezing.first, layer, num_layers) for layer in range(most)]
        return [(0, 0)] + [
            (_ceil(end * num_steps), layer + 1)
            for layer, end in enumerate(ends)
            if end * num_steps < num_steps
        ]
    # Top first: `most` layers join one after the other, at equal distances, until `all_by`.
    steps = [_ceil(freezing.all_by * num_steps * (n + 1) / most) for n in range(most)]
    return [(0, most)] + [(step, most - 1 - n) for n, step in enumerate(steps)]


def _ceil(steps: float) -> int:
    """Return the first whole step at or after a share of a run; 0.8³ of 1,000 steps are 512."""
    return math.ceil(steps - 1e-9 * max(1.0, steps))


def freezeout_end(first: float, layer: int, num_layers: int) -> float:
    """Return the share of the run after which a layer is frozen (Brock et al. 2017, cubed).

    t_i = (t₀ + (1 − t₀) i/L)³ for layer i of L, counted from the bottom.
    """
    return float((first + (1 - first) * layer / num_layers) ** 3)


def layer_rate_scale(
    freezing: FreezingRecipe, layer: int | None, num_layers: int, progress: float
) -> float:
    """Return what a layer's learning rate is multiplied by: ½(1 + cos(π t/t_i)), 0 after t_i.

    `layer` None: of embeddings (they go with the lowest layer) it is asked as 0; of the head and
    the last norm it is 1.
    """
    if freezing.kind != "freezeout" or not freezing.scale_rate or layer is None:
        return 1.0
    if layer >= num_layers - freezing.keep_top:
        return 1.0
    end = freezeout_end(freezing.first, layer, num_layers)
    return (1 + math.cos(math.pi * min(1.0, progress / end))) / 2


def trained_names(
    names: Names, parameters: ParametersRecipe, stage: Stage, *, seed: int
) -> frozenset[str]:
    """Return the parameters that train in a stage."""
    chosen = _selected(names, parameters.train) - _selected(names, parameters.freeze)
    if stage.frozen_layers:
        chosen -= {name for name in chosen if _is_below(name, stage.frozen_layers)}
    if stage.half is not None:
        chosen -= _other_half(names, stage.half, seed)
    return frozenset(chosen)


def _is_below(name: str, num_frozen: int) -> bool:
    layer = layer_of(name)
    return is_embedding(name) if layer is None else layer < num_frozen


def _selected(names: Names, selectors: Sequence[str]) -> set[str]:
    return {
        name for selector in selectors for name in names.shapes if _matches(names, name, selector)
    }


def _matches(names: Names, name: str, selector: str) -> bool:
    layer = layer_of(name)
    half = names.num_layers // 2
    match selector:
        case "all":
            return True
        case "embeddings":
            return is_embedding(name)
        case "head":
            return layer is None and _HEADS.fullmatch(name) is not None
        case "norms":
            return _NORM.search(name) is not None
        case "attention":
            return _ATTENTION.search(name) is not None and _NORM.search(name) is None
        case "mlp":
            return layer is not None and _MLP.search(name) is not None
        case "expanded":
            return layer in names.expanded
        case "layers.lower-half":
            return layer is not None and layer < half
        case "layers.upper-half":
            return layer is not None and layer >= half
    found = _RANGE.fullmatch(selector)
    if found is None:
        return fnmatch.fnmatchcase(name, selector)
    if layer is None:
        return False
    if found[3] is not None:
        count = int(found[4])
        return layer >= names.num_layers - count if found[3] == "top" else layer < count
    return int(found[1]) <= layer <= int(found[2] or found[1])


def is_adapter_target(module: str, target: str) -> bool:
    """Tell whether a word of an adapter's targets means a module, by its name in the model.

    >>> is_adapter_target("model.layers.7.self_attn.q_proj", "attention")
    True
    """
    parts = module.split(".")
    if target in _ADAPTED:
        return any(word in part.lower() for part in parts[:-1] for word in _ADAPTED[target])
    return target in (parts[-1], module)


def layers_named(selector: str) -> int:
    """Return how many layers a model must have for a selector to mean what it says.

    >>> [layers_named(word) for word in ("layers.2-5", "layers.7", "layers.top-4", "all")]
    [6, 8, 4, 0]
    """
    found = _RANGE.fullmatch(selector)
    if found is None:
        return 0
    return int(found[4]) if found[3] is not None else int(found[2] or found[1]) + 1


def _other_half(names: Names, half: int, seed: int) -> set[str]:
    """Return the matrices, half of every layer's, that the draw leaves out."""
    by_layer: dict[int, list[str]] = {}
    for name, shape in sorted(names.shapes.items()):
        layer = layer_of(name)
        if layer is not None and len(shape) >= 2:
            by_layer.setdefault(layer, []).append(name)
    left_out: set[str] = set()
    for layer, matrices in by_layer.items():
        places = permute(
            np.arange(len(matrices)), len(matrices), derive_key(seed, "half", half, layer)
        )
        left_out |= {
            name
            for name, place in zip(matrices, places.tolist(), strict=True)
            if place >= (len(matrices) + 1) // 2
        }
    return left_out


def training_cost(names: Names, trained: Collection[str]) -> float:
    """Return the cost of a training step in forward passes over the layers: 3 where all train.

    A forward pass, the gradient of what lies between (down to the lowest layer that trains), and
    the gradients of the weights that train: 3 − 2f where the lowest share f of the layers, and the
    embeddings, do not. Every layer counts alike; embeddings and head are left to `flops_per_token`.
    """
    layers = max(1, names.num_layers)
    in_layers = {name: shape for name, shape in names.shapes.items() if layer_of(name) is not None}
    total = sum(math.prod(shape) for shape in in_layers.values())
    kept = sum(math.prod(shape) for name, shape in in_layers.items() if name in trained)
    lowest = lowest_trained(names, trained)
    return 1 + (layers - lowest) / layers + (kept / total if total else 0.0)


def lowest_trained(names: Names, trained: Collection[str]) -> int:
    """Return the lowest layer that the backward pass reaches; all of them for embeddings."""
    found = [names.num_layers]
    for name in trained:
        layer = layer_of(name)
        if layer is not None:
            found.append(layer)
        elif is_embedding(name):
            found.append(0)
    return min(found)
