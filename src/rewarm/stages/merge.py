"""`rewarm merge`: several models to one, in a verified Hugging Face folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.text import Text

from rewarm.artifacts import fingerprint
from rewarm.errors import EnvironmentFault, Problems, UserError
from rewarm.export import MergedCard, MergedInput, export_merged, find_merged
from rewarm.export.place import dtype_named, name_of_dtype
from rewarm.model.average import Merge
from rewarm.model.weight_folder import (
    note_other_network,
    note_other_tensors,
    note_other_vocabulary,
)
from rewarm.model.weight_stream import Weights
from rewarm.reporting.terminal_table import titled_table
from rewarm.stages.merge_inputs import Input, Option, base_of_run, find_inputs
from rewarm.stages.merge_methods import Composition, Given, Part, compose, note_misuse

__all__ = ["MergeRequest", "run_merge"]


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """What the command line gave."""

    method: str = "linear"
    base: str | None = None
    models: tuple[str, ...] = ()
    instruct: str | None = None
    weights: tuple[float, ...] = ()
    output: Path | None = None
    dtype: str | None = None


class _Inputs(NamedTuple):
    base: Input | None
    models: list[Input]
    instruct: Input | None


def run_merge(request: MergeRequest, console: Console | None = None) -> Path:
    """Merge as asked, print what was merged and where it is, and return the folder.

    Raises UserError with everything that is wrong with options and models, EnvironmentFault where
    the hub or the disk refuses.
    """
    console = console or Console()
    problems = Problems()
    _note_options(request, problems)
    problems.raise_as(UserError)
    inputs = _find(request, console, problems)
    problems.raise_as(UserError)
    composition = _composed(request, inputs, request.weights)
    output = request.output or _default_output(composition)
    dtype = dtype_named(request.dtype, asked=True) if request.dtype else None
    with ExitStack() as stack:
        opened = _open_alike(composition, stack, dtype, console)
        return _write(composition, opened, output, dtype, request, console)


def _note_options(request: MergeRequest, problems: Problems) -> None:
    note_misuse(
        Given(
            method=request.method,
            num_models=len(request.models),
            has_base=request.base is not None,
            has_instruct=request.instruct is not None,
            weights=request.weights,
            is_sweep=False,
        ),
        problems,
    )
    try:
        dtype_named(request.dtype or "float32", asked=True)
    except UserError as error:
        problems.extend(error.problems)


def _find(request: MergeRequest, console: Console, problems: Problems) -> _Inputs:
    """Look for every model; what is wrong with one hides nothing of the others."""

    def look(given: str | None, option: Option) -> list[Input]:
        if given is None:
            return []
        try:
            return find_inputs(given, option, console)
        except UserError as error:
            problems.extend(error.problems)
            return []

    bases = look(request.base, "--base")
    models = [one for given in request.models for one in look(given, "--model")]
    instructs = look(request.instruct, "--instruct")
    for option, found in (("--base", bases), ("--instruct", instructs)):
        if len(found) > 1:
            problems.add(option, f"it names {len(found)} models", "name one step of the run")
    base = bases[0] if bases else _base_of(models)
    return _Inputs(base, models, instructs[0] if instructs else None)


def _base_of(models: Sequence[Input]) -> Input | None:
    """Return the base of the first run among the models; None without one."""
    return next((base_of_run(one) for one in models if one.at is not None), None)


def _composed(request: MergeRequest, inputs: _Inputs, weights: Sequence[float]) -> Composition:
    problems = Problems()
    composition = compose(
        request.method,
        base=inputs.base,
        models=inputs.models,
        instruct=inputs.instruct,
        weights=weights,
        problems=problems,
    )
    problems.raise_as(UserError)
    assert composition is not None
    return composition


def _default_output(composition: Composition) -> Path:
    run = next((part.model.at.run for part in composition.parts if part.model.at), None)
    if run is None:
        raise UserError.one("--output", "it is missing", "name the folder to write")
    return run.merged


# Whether they can be merged


def _open_alike(
    composition: Composition, stack: ExitStack, dtype: torch.dtype | None, console: Console
) -> list[Weights]:
    """Return every part's tensors, after checking that they belong to one kind of model.

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
    for warning in dict.fromkeys(warnings):
        _say(console, f"warning: {warning}")
    return opened


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


# Writing


def _write(
    composition: Composition,
    opened: Sequence[Weights],
    output: Path,
    dtype: torch.dtype | None,
    request: MergeRequest,
    console: Console,
) -> Path:
    form = composition.form.form
    key = _key(composition, dtype)
    make_way: Callable[[], None] | None = None
    held = find_merged(output)
    if held == (key, []):
        _say(console, f"merged already: {output}")
        return output
    if held is not None and request.output is None:
        make_way = partial(_put_aside, output, *held, console)
    console.print(_parts_table(composition))
    card = MergedCard(
        name=output.resolve().name,
        method=f"{composition.method.title} ({composition.method.source})",
        formula=composition.method.formula,
        inputs=tuple(map(_on_card, composition.parts)),
        form=_on_card(Part("form", composition.form)),
        facts=form.facts,
        dtype=name_of_dtype(dtype) if dtype else form.facts.saved_dtype,
    )
    with console.status("merging, and reading back what was written"):
        export_merged(
            Merge(tuple(opened), composition.rule),
            form,
            folder=output,
            card=card,
            key=key,
            dtype=dtype,
            make_way=make_way,
        )
    _say(console, f"merged and verified: {output.resolve()}")
    return output


def _key(composition: Composition, dtype: torch.dtype | None) -> str:
    """Return what tells this merge from any other: models, rule, form and type."""
    form = composition.form.form.facts
    return fingerprint(
        {
            "models": [part.model.fingerprint for part in composition.parts],
            "method": composition.method.title,
            "rule": asdict(composition.rule),
            "form": [form.weights_fingerprint, form.tokenizer_fingerprint],
            "dtype": str(dtype),
        }
    )


def _on_card(part: Part) -> MergedInput:
    return MergedInput(
        part=part.part,
        name=part.model.name,
        weight="" if part.weight is None else f"{part.weight:g}",
        fingerprint=part.model.fingerprint,
        licence=part.model.form.facts.licence,
        hub_id=part.model.hub_id,
    )


def _parts_table(composition: Composition) -> object:
    table = titled_table(f"{composition.method.title}: {composition.method.formula}")
    for name in ("part", "model"):
        table.add_column(name, overflow="fold")
    table.add_column("w", justify="right")
    table.add_column("fingerprint")
    for part in composition.parts:
        weight = "" if part.weight is None else f"{part.weight:g}"
        table.add_row(part.part, Text(part.model.label), weight, part.model.fingerprint[:12])
    return table


def _put_aside(folder: Path, key: str, damage: list[str], console: Console) -> None:
    """Rename a run's earlier merge: nothing that was handed out is lost."""
    name = f"{folder.name}-{key[:8]}" + ("-damaged" if damage else "")
    aside = folder.with_name(name)
    number = 1
    while aside.exists():
        number += 1
        aside = folder.with_name(f"{name}-{number}")
    try:
        os.rename(folder, aside)
    except OSError as error:
        raise EnvironmentFault(
            f"{folder} cannot be renamed ({error.strerror or error})",
            "make the run folder writable, or name another folder with --output",
        ) from error
    if damage:
        _say(console, f"the earlier merge is damaged: {'; '.join(damage)}")
    _say(console, f"the earlier merge is now {aside.name}")


def _say(console: Console, message: str) -> None:
    console.print(message, markup=False, highlight=False, soft_wrap=True)
