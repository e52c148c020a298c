"""Which parameters Muon updates, and what that saves and costs.

They are the matrices within blocks. Embeddings, head, norms and biases are AdamW's, whose second
moment Muon's matrices do not have; in its place each update costs matrix products.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from rewarm.planning.notes import Notes
from rewarm.planning.plan import Science
from rewarm.planning.selection import names_of
from rewarm.planning.trainable import Stage, layer_of, trained_names
from rewarm.recipe.schema import Recipe
from rewarm.records.facts import ModelFacts

__all__ = [
    "NUM_ITERATIONS",
    "MuonCost",
    "is_muons",
    "least_muon_values",
    "muon_cost",
    "note_muon",
    "passing_bytes",
]

NUM_ITERATIONS = 5
"""Of Newton-Schulz, in every update of every matrix (Jordan et al. 2024)."""

# The momentum that is made orthogonal, itself in the products' type, the next one, two Gram ones.
_MATRICES_AT_A_TIME = 5


class MuonCost(NamedTuple):
    """What orthogonal updates add to a run: operations, and what of."""

    flops: float = 0.0
    words: str = ""


def is_muons(name: str, shape: tuple[int, ...]) -> bool:
    """Tell whether Muon updates a parameter: a block's own matrix.

    >>> is_muons("model.layers.7.mlp.up_proj.weight", (64, 16))
    True
    >>> is_muons("model.embed_tokens.weight", (61, 16))
    False
    """
    return len(shape) == 2 and layer_of(name) is not None


def note_muon(recipe: Recipe, model: ModelFacts, notes: Notes) -> None:
    """Note a selection of parameters in which Muon has nothing to update."""
    names = names_of(model)
    if recipe.optimizer.kind != "muon" or not names.shapes:
        return
    chosen = trained_names(names, recipe.parameters, Stage(start_step=0), seed=recipe.seed)
    if chosen and not any(is_muons(name, names.shapes[name]) for name in chosen):
        notes.problems.add(
            "optimizer.kind",
            "muon updates the matrices of blocks, and none of them trains",
            'use "adamw", or train more (parameters.train)',
        )


def least_muon_values(model: ModelFacts, num_trained: int) -> int:
    """Return how many of `num_trained` values are in Muon's matrices, at least.

    All others of the model are taken to train too: exact where all of it does.
    """
    shapes = model.tensor_shapes
    values = sum(math.prod(shape) for name, shape in shapes.items() if is_muons(name, shape))
    if not shapes:
        outside = model.num_embedding_parameters + model.num_head_parameters
        values = model.num_parameters - outside
    return max(0, num_trained - (model.num_parameters - values))


def passing_bytes(model: ModelFacts) -> int:
    """Return the float32 bytes that the update of the largest matrix needs while it is made."""
    sizes = [math.prod(s) for name, s in model.tensor_shapes.items() if is_muons(name, s)]
    largest = max(sizes, default=model.hidden_size * model.intermediate_size)
    return 4 * _MATRICES_AT_A_TIME * largest


def muon_cost(science: Science, model: ModelFacts) -> MuonCost:
    """Return what a run's orthogonal updates cost; nothing where AdamW makes them all.

    An iteration over a matrix of m ≤ n takes X Xᵀ (2 m² n), its square (2 m³) and that times X
    (2 m² n).
    """
    if science.optimizer.kind != "muon":
        return MuonCost()
    names = names_of(model)
    ends = [stage.start_step for stage in science.stages[1:]] + [science.num_steps]
    flops = 0.0
    for end, stage in zip(ends, science.stages, strict=True):
        chosen = trained_names(names, science.parameters, stage, seed=science.seed)
        matrices = [names.shapes[n] for n in chosen if is_muons(n, names.shapes[n])]
        flops += (end - stage.start_step) * sum(map(_flops_of_update, matrices))
    return MuonCost(
        flops, f"steps · {NUM_ITERATIONS} · Σ (4 m² n + 2 m³) over matrices of m ≤ n in blocks"
    )


def _flops_of_update(shape: tuple[int, ...]) -> float:
    small, large = sorted(shape)
    return NUM_ITERATIONS * (4.0 * small**2 * large + 2.0 * small**3)
