"""What trains, from the recipe's words and the base's tensors: stages, what they save, problems."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rewarm.planning.notes import Notes
from rewarm.planning.plan import PlannedPhase
from rewarm.planning.trainable import Names, Stage, stages_of, trained_names, training_cost
from rewarm.recipe.schema import Recipe
from rewarm.records.facts import ModelFacts
from rewarm.units import format_count

__all__ = ["EXPLAINED", "explain_stages", "names_of", "note_selection", "resolve_trainable"]

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
    for key in ("train", "freeze"):
        for index, selector in enumerate(getattr(recipe.parameters, key)):
            alone = recipe.parameters.model_copy(update={"train": [selector], "freeze": []})
            tied_head = selector == "head" and model.tied_embeddings
            if not trained_names(names, alone, Stage(start_step=0), seed=recipe.seed):
                notes.problems.add(
                    f"parameters.{key}[{index}]",
                    f"{selector!r} selects none of the base's tensors"
                    + (": its head is the embeddings" if tied_head else ""),
                    "its tensors are called like "
                    + ", ".join(sorted(names.shapes)[:3])
                    + f"; it has {names.num_layers} layers",
                )
    if not trained_names(names, recipe.parameters, Stage(start_step=0), seed=recipe.seed):
        notes.problems.add(
            "parameters.freeze", "nothing is left to train", "freeze less, or train more"
        )
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
    is_plain = recipe.parameters.train == ["all"] and not recipe.parameters.freeze
    if not names.shapes or (is_plain and len(stages) == 1 and recipe.freezing.kind == "none"):
        return
    sets = [trained_names(names, recipe.parameters, stage, seed=recipe.seed) for stage in stages]
    num_trained = [sum(math.prod(names.shapes[name]) for name in chosen) for chosen in sets]
    ends = [stage.start_step for stage in stages[1:]] + [num_steps]
    spans = [end - stage.start_step for end, stage in zip(ends, stages, strict=True)]
    cost = sum(
        span * training_cost(names, chosen) for span, chosen in zip(spans, sets, strict=True)
    )
    words = ", ".join(recipe.parameters.train)
    if recipe.parameters.freeze:
        words += f", without {', '.join(recipe.parameters.freeze)}"
    notes.because(
        "parameters.train",
        f"{format_count(num_trained[0])} of {format_count(names.num_values)}",
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
        f"{cost / (3 * num_steps):.0%} of all parameters'",
        "a step costs a forward pass, the gradient down to the lowest layer that trains, and those "
        "of the weights that train",
        "3 − 2f forward passes where the lowest share f is frozen",
    )
