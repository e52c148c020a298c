"""Whether the matrices of a base's blocks can be cut over so many ranks."""

from __future__ import annotations

from rewarm.errors import Problems
from rewarm.recipe.schema import Recipe
from rewarm.records.facts import ModelFacts

__all__ = ["FAMILIES", "note_tensor_parallel"]

FAMILIES = ("gemma2", "gpt_neox", "llama", "mistral", "olmo2", "qwen2", "qwen3")
"""Model types whose plan in transformers was held against one process."""

_FIELD = "training.tensor_parallel"


def note_tensor_parallel(recipe: Recipe, model: ModelFacts | None, problems: Problems) -> None:
    """Note everything for which a base or a recipe cannot be trained so."""
    count = recipe.training.tensor_parallel
    if count == 1:
        return
    if recipe.optimizer.kind == "adamw8bit":
        problems.add(
            _FIELD,
            "8-bit moments are cut by rows alone",
            'leave it out, or set optimizer.kind = "adamw"',
        )
    if recipe.optimizer.kind == "muon":
        problems.add(
            _FIELD,
            "Muon's updates were not held against one process with matrices that are cut so",
            'leave it out (FSDP needs none), or set optimizer.kind = "adamw"',
        )
    if model is None:
        return
    if model.model_type not in FAMILIES:
        problems.add(
            _FIELD,
            f"it was not held against one process for model type {model.model_type!r}",
            f"leave it out (FSDP needs none), or use one of: {', '.join(FAMILIES)}",
        )
    sizes = {
        "attention heads": model.num_heads,
        "key-value heads": model.num_key_value_heads,
        "intermediate units": model.intermediate_size,
    }
    for name, size in sizes.items():
        if size % count:
            problems.add(
                _FIELD,
                f"{count} does not divide the base's {size} {name}",
                f"use a divisor of {size}",
            )
