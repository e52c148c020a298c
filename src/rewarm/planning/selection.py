"""What trains, from the recipe's words and the base's tensors: stages, what they save, problems."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from rewarm.planning.notes import Notes
from rewarm.planning.plan import PlannedPhase, Science
from rewarm.planning.trainable import (
    Names,
    Stage,
    is_adapter_target,
    is_embedding,
    layers_named,
    lowest_trained,
    stages_of,
    trained_names,
    training_cost,
)
from rewarm.recipe.parameters import AdapterRecipe, ParametersRecipe
from rewarm.recipe.schema import Recipe
from rewarm.records.facts import ModelFacts
from rewarm.units import format_count

__all__ = [
    "EXPLAINED",
    "explain_stages",
    "names_of",
    "note_selection",
    "num_trained",
    "num_trained_at_a_time",
    "num_untouched_layers",
    "resolve_trainable",
    "training_share",
]

EXPLAINED = ("parameters.train", "freezing.kind", "training cost")
"""The fields that `explain_stages` gives reasons for."""

_SOURCES = {
    "freezeout": "Brock et al. 2017, arXiv 1706.04983",
    "auto": "Liu et al. 2021, arXiv 2102.01386",
    "unfreeze": "Howard and Ruder 2018, arXiv 1801.06146",
}


def names_of(model: ModelFacts) -> Names:
    """Return a base's parameters, as far as its headers tell."""
    return Names(model.num_layers, model.tensor_shapes, frozenset(model.expanded_layers))


def note_selection(recipe: Recipe, model: ModelFacts, notes: Notes) -> None:
    """Note words that select nothing in this base, and a selection of which nothing is left."""
    if not model.tensor_shapes:
        return
    names = names_of(model)
    told = len(notes.problems)
    for key in ("train", "freeze"):
        for index, selector in enumerate(getattr(recipe.parameters, key)):
            _note_selector(recipe, model, names, (f"parameters.{key}[{index}]", selector), notes)
    if len(notes.problems) == told and not trained_names(
        names, recipe.parameters, Stage(start_step=0), seed=recipe.seed
    ):
        notes.problems.add(
            "parameters.freeze", "nothing is left to train", "freeze less, or train more"
        )
    if recipe.parameters.adapter is not None:
        _note_targets(recipe.parameters.adapter.targets, names, notes)
    if recipe.freezing.kind != "none" and recipe.freezing.keep_top >= model.num_layers:
        notes.problems.add(
            "freezing.keep_top",
            f"the base has {model.num_layers} layers, so none would ever freeze",
            f"use at most {model.num_layers - 1}",
        )
    if recipe.freezing.kind != "none" and recipe.parameters.adapter is not None:
        notes.problems.add(
            "freezing.kind",
            "with an adapter the weights are frozen from the start, and its matrices are small: "
            "freezing layers of them saves next to nothing",
            "leave one of the two out",
        )


def _note_selector(
    recipe: Recipe, model: ModelFacts, names: Names, found: tuple[str, str], notes: Notes
) -> None:
    """Note a word that selects nothing, or layers that the base does not have."""
    where, selector = found
    alone = recipe.parameters.model_copy(update={"train": [selector], "freeze": []})
    if not trained_names(names, alone, Stage(start_step=0), seed=recipe.seed):
        tied_head = selector == "head" and model.tied_embeddings
        notes.problems.add(
            where,
            f"{selector!r} selects none of the base's tensors"
            + (": its head is the embeddings" if tied_head else ""),
            "its tensors are called like "
            + ", ".join(sorted(names.shapes)[:3])
            + f"; it has {names.num_layers} layers",
        )
    elif layers_named(selector) > names.num_layers:
        notes.problems.add(
            where,
            f"{selector!r} goes beyond the base, which has {names.num_layers} layers",
            f"they are numbered from 0 to {names.num_layers - 1}",
        )


def _matrices(names: Names) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the matrices that may get an adapter, by module; embeddings do not."""
    return {
        name.removesuffix(".weight"): shape
        for name, shape in names.shapes.items()
        if len(shape) == 2 and name.endswith(".weight") and not is_embedding(name)
    }


def _note_targets(targets: Sequence[str], names: Names, notes: Notes) -> None:
    """Note targets of an adapter that are no matrix of the base, as far as names tell."""
    matrices = _matrices(names)
    for index, target in enumerate(targets):
        if not any(is_adapter_target(matrix, target) for matrix in matrices):
            own = sorted({matrix.rpartition(".")[2] for matrix in matrices})
            notes.problems.add(
                f"parameters.adapter.targets[{index}]",
                f"{target!r} names no matrix of the base",
                f"use attention, mlp, or some of: {', '.join(own)}",
            )


def num_in_adapters(adapter: AdapterRecipe, names: Names) -> int:
    """Return the values of an adapter's matrices: rank · (in + out) each, dora's magnitudes."""
    return sum(
        adapter.rank * sum(shape) + (shape[0] if adapter.kind == "dora" else 0)
        for matrix, shape in _matrices(names).items()
        if any(is_adapter_target(matrix, target) for target in adapter.targets)
    )


def training_share(
    recipe: Recipe, model: ModelFacts, stages: Sequence[Stage], num_steps: int
) -> tuple[int, float]:
    """Return the values that train at most at a time, and the cost of the layers' steps as a share
    of what it is where all of them train.

    With an adapter the weights' own gradients are not computed: two thirds, and a little more for
    its matrices.
    """
    names = names_of(model)
    if not names.shapes:
        return model.num_parameters, 1.0
    if recipe.parameters.adapter is not None:
        return num_in_adapters(recipe.parameters.adapter, names), 2 / 3
    sets = _trained_in_stages(names, recipe.parameters, stages, recipe.seed)
    ends = [stage.start_step for stage in stages[1:]] + [num_steps]
    costs = [
        (end - stage.start_step) * training_cost(names, chosen)
        for end, stage, chosen in zip(ends, stages, sets, strict=True)
    ]
    return max(_num_values(names, chosen) for chosen in sets), sum(costs) / (3 * num_steps)


def num_trained(science: Science, model: ModelFacts) -> int:
    """Return how many weights train at some time, of which retention keeps what it holds them to.

    An adapter's own, where there is one.
    """
    return _num_of_stages(science, model, at_a_time=False)


def num_trained_at_a_time(science: Science, model: ModelFacts) -> int:
    """Return how many weights train at most at a time: of those a step has gradients and moments.

    As `training_share` counts them; an adapter's own, where there is one.
    """
    return _num_of_stages(science, model, at_a_time=True)


def _num_of_stages(science: Science, model: ModelFacts, *, at_a_time: bool) -> int:
    names = names_of(model)
    if science.parameters.adapter is not None:
        return num_in_adapters(science.parameters.adapter, names)
    if not names.shapes:
        return model.num_parameters
    sets = _trained_in_stages(names, science.parameters, science.stages, science.seed)
    if at_a_time:
        return max(_num_values(names, chosen) for chosen in sets)
    return _num_values(names, frozenset[str]().union(*sets))


def _trained_in_stages(
    names: Names, parameters: ParametersRecipe, stages: Sequence[Stage], seed: int
) -> list[frozenset[str]]:
    return [trained_names(names, parameters, stage, seed=seed) for stage in stages]


def num_untouched_layers(science: Science, model: ModelFacts) -> int:
    """Return how many of the lowest layers no backward pass reaches in any stage."""
    names = names_of(model)
    if science.parameters.adapter is not None or not names.shapes:
        return 0
    lowest = model.num_layers
    # Asked for again and again: in a stage no layer below its frozen ones trains.
    for stage in sorted(science.stages, key=lambda stage: stage.frozen_layers):
        if stage.frozen_layers >= lowest:
            break
        chosen = trained_names(names, science.parameters, stage, seed=science.seed)
        lowest = min(lowest, lowest_trained(names, chosen))
    return lowest


def _num_values(names: Names, chosen: Collection[str]) -> int:
    return sum(math.prod(names.shapes[name]) for name in chosen)


def resolve_trainable(
    recipe: Recipe,
    model: ModelFacts,
    num_steps: int,
    phases: Sequence[PlannedPhase],
    notes: Notes,
) -> dict[str, Any]:
    """Return the fields of the science that say what trains, with what it saves explained."""
    stages = stages_of(
        recipe.parameters,
        recipe.freezing,
        num_layers=model.num_layers,
        num_steps=num_steps,
        phase_starts=[phase.start_step for phase in phases],
    )
    explain_stages(recipe, model, stages, num_steps, notes)
    return {
        "num_layers": model.num_layers,
        "parameters": recipe.parameters,
        "freezing": recipe.freezing,
        "stages": stages,
    }


def explain_stages(
    recipe: Recipe, model: ModelFacts, stages: Sequence[Stage], num_steps: int, notes: Notes
) -> None:
    """Say what trains when, and what that saves; nothing where all of the base always trains."""
    names = names_of(model)
    adapter = recipe.parameters.adapter
    is_plain = recipe.parameters == ParametersRecipe() and recipe.freezing.kind == "none"
    if not names.shapes or (is_plain and len(stages) == 1):
        return
    num_trained, share = training_share(recipe, model, stages, num_steps)
    if adapter is not None:
        notes.because(
            "parameters.adapter",
            f"{adapter.kind}, rank {adapter.rank}",
            f"{format_count(num_trained)} values train beside {format_count(names.num_values)} "
            "that keep their bits and have no moments; export adds them up",
        )
        return
    words = ", ".join(recipe.parameters.train)
    if recipe.parameters.freeze:
        words += f", without {', '.join(recipe.parameters.freeze)}"
    notes.because(
        "parameters.train",
        f"{format_count(num_trained)} of {format_count(names.num_values)}",
        f"{words}; what does not train keeps its bits and has no moments",
    )
    milestones = ", ".join(
        f"{stage.frozen_layers} from step {stage.start_step}" for stage in stages
    )
    if recipe.freezing.kind != "none":
        told = milestones if recipe.freezing.kind != "auto" else "decided while the run goes on"
        notes.because(
            "freezing.kind",
            recipe.freezing.kind,
            f"lowest layers that do not train: {told}",
            _SOURCES[recipe.freezing.kind],
        )
    elif any(stage.frozen_layers for stage in stages):
        notes.because(
            "freezing.kind",
            "none",
            f"what has frozen stays so; lowest layers that do not train: {milestones}",
        )
    notes.because(
        "training cost",
        f"{share:.0%} of all parameters'",
        "a step costs a forward pass, the gradient down to the lowest layer that trains, and those "
        "of the weights that train",
        "3 − 2f forward passes where the lowest share f is frozen",
    )
