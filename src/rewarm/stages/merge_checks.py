"""Whether the models of a merge belong together: everything in which they differ, at once."""

from __future__ import annotations

from contextlib import ExitStack

import torch

from rewarm.errors import Problems, UserError
from rewarm.export.place import name_of_dtype
from rewarm.model.weight_folder import (
    note_other_network,
    note_other_tensors,
    note_other_vocabulary,
)
from rewarm.model.weight_stream import Weights
from rewarm.stages.merge_inputs import Input
from rewarm.stages.merge_methods import Composition

__all__ = ["open_alike"]


def open_alike(
    composition: Composition, stack: ExitStack, dtype: torch.dtype | None
) -> tuple[list[Weights], list[str]]:
    """Return every part's tensors, found to belong to one kind of model, and warnings.

    Raises UserError with everything in which they differ from the form.
    """
    problems = Problems()
    form = composition.form
    reference = form.open(stack)
    opened: list[Weights] = []
    warnings: list[str] = []
    for part in composition.parts:
        one = part.model
        weights = reference if one is form else one.open(stack)
        opened.append(weights)
        if one is not form:
            note_other_tensors(reference, weights, problems)
            warnings += _note_differences(form, one, problems)
        if dtype is None:
            _note_other_type(form, one, problems)
        warnings += _other_base(composition, one)
    problems.raise_as(UserError)
    return opened, list(dict.fromkeys(warnings))


def _note_differences(form: Input, one: Input, problems: Problems) -> list[str]:
    labels = (form.label, one.label)
    if form.form.facts.tied_embeddings != one.form.facts.tied_embeddings:
        tied, untied = labels if form.form.facts.tied_embeddings else reversed(labels)
        problems.add(
            one.label,
            f"the output head of {tied} is tied to its embedding, that of {untied} is not",
            "merge models whose heads are alike",
        )
    return [
        *note_other_network(form.form, one.form, labels, problems),
        *note_other_vocabulary(form.form.folder, one.form.folder, labels, problems),
    ]


def _note_other_type(form: Input, one: Input, problems: Problems) -> None:
    """Note a folder that stores other types; a run's weights are float32 whatever its base's."""
    if one.at is None and one.form.dtypes != form.form.dtypes:
        problems.add(
            one.label,
            f"it stores {_types(one)}, {form.label} stores {_types(form)}",
            "say in which type to store the result: --dtype",
        )


def _types(one: Input) -> str:
    return " and ".join(sorted(name_of_dtype(dtype) for dtype in one.form.dtypes))


def _other_base(composition: Composition, one: Input) -> list[str]:
    base = next((part.model for part in composition.parts if part.part == "base"), None)
    if base is None or one.at is None or base.fingerprint == one.at.plan.science.base_weights:
        return []
    return [
        f"{one.label} was not continued from {base.label}: weights far apart rarely average well"
    ]
