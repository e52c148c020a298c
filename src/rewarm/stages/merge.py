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
from rewarm.model.weight_stream import Weights, headers_to_store
from rewarm.reporting.terminal_table import titled_table
from rewarm.stages.merge_checks import open_alike
from rewarm.stages.merge_inputs import Input, Option, base_of_run, find_inputs
from rewarm.stages.merge_methods import Composition, Given, Part, compose, note_misuse
from rewarm.stages.sweep import DEFAULT_GRID, Chosen, Sweep, note_grid, run_sweep

__all__ = ["MergeRequest", "run_merge"]


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """What the command line gave."""

    method: str = "linear"
    base: str | None = None
    models: tuple[str, ...] = ()
    instruct: str | None = None
    weights: tuple[float, ...] = ()
    sweep: bool = False
    grid: str = ""
    tolerance: float | None = None
    output: Path | None = None
    dtype: str | None = None


def _parse_grid(text: str, problems: Problems) -> tuple[float, ...]:
    """Return the weights of `0.25, 0.5`, noting what is no number."""
    weights: list[float] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            weights.append(float(part))
        except ValueError:
            problems.add("--grid", f"{part!r} is no number", 'write e.g. "0.25,0.5,0.75"')
    return tuple(weights)


class _Inputs(NamedTuple):
    base: Input | None
    models: list[Input]
    instruct: Input | None


def run_merge(request: MergeRequest, console: Console | None = None) -> Path | None:
    """Merge as asked, print what was merged and where it is, and return the folder.

    None where a sweep chose the base itself. Raises UserError with everything that is wrong with
    options and models, EnvironmentFault where the hub or the disk refuses.
    """
    console = console or Console()
    problems = Problems()
    grid = _parse_grid(request.grid, problems)
    _note_options(request, grid, problems)
    problems.raise_as(UserError)
    inputs = _find(request, console, problems)
    problems.raise_as(UserError)
    composition = _composed(request, inputs, request.weights)
    output = request.output or _default_output(composition)
    dtype = dtype_named(request.dtype, asked=True) if request.dtype else None
    with ExitStack() as stack:
        opened, warnings = open_alike(composition, stack, dtype)
        for warning in warnings:
            _say(console, f"warning: {warning}")
        chosen: Chosen | None = None
        if request.sweep:
            at_weight = partial(_at_weight, request, inputs)
            chosen = _swept(composition, at_weight, opened, grid, dtype, request, console)
            if chosen.weight == 0.0:
                _say(console, "nothing was written: the chosen model is the base itself")
                return None
            composition = at_weight(chosen.weight)
        return _write(composition, opened, output, dtype, request, console, chosen)


def _at_weight(request: MergeRequest, inputs: _Inputs, weight: float) -> Composition:
    return _composed(request, inputs, (weight,))


def _swept(
    composition: Composition,
    at_weight: Callable[[float], Composition],
    opened: Sequence[Weights],
    grid: Sequence[float],
    dtype: torch.dtype | None,
    request: MergeRequest,
    console: Console,
) -> Chosen:
    """Return the weight that the sweep's rule chooses."""
    base, model = (part.model for part in composition.parts)
    if model.at is None:
        raise UserError.one(
            "--sweep",
            f"{model.label} is no run, so there is no held-out text to measure on",
            "give a run folder as --model, or a --weight instead of --sweep",
        )
    sweep = Sweep(
        method=composition.method.title,
        base=base,
        model=model,
        at=model.at,
        merge=lambda weight: Merge(tuple(opened), at_weight(weight).rule),
        headers=headers_to_store(composition.form.form.layout(dtype)),
        key=_key(composition, dtype, with_rule=False),
        grid=tuple(sorted({0.0, 1.0, *(grid or DEFAULT_GRID)})),
        tolerance=request.tolerance,
    )
    return run_sweep(sweep, console)


def _note_options(request: MergeRequest, grid: Sequence[float], problems: Problems) -> None:
    note_misuse(
        Given(
            method=request.method,
            num_models=len(request.models),
            has_base=request.base is not None,
            has_instruct=request.instruct is not None,
            weights=request.weights,
            is_sweep=request.sweep,
        ),
        problems,
    )
    if not request.sweep and (request.grid or request.tolerance is not None):
        problems.add("--sweep", "--grid and --tolerance are its own", "give it too")
    note_grid(grid, request.tolerance, problems)
    output = request.output
    if output is not None and os.path.lexists(output) and find_merged(output) is None:
        problems.add(
            f"--output {output}",
            "there is something already",
            "name another folder, or remove this one",
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
    runs = {part.model.at.run for part in composition.parts if part.model.at}
    if len(runs) != 1:
        several = f"it is missing, and {len(runs)} runs are merged" if runs else "it is missing"
        raise UserError.one("--output", several, "name the folder to write")
    return runs.pop().merged


# Writing


def _write(
    composition: Composition,
    opened: Sequence[Weights],
    output: Path,
    dtype: torch.dtype | None,
    request: MergeRequest,
    console: Console,
    chosen: Chosen | None,
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
    _say(console, f"{composition.method.title}: {composition.method.formula}")
    console.print(_parts_table(composition))
    card = MergedCard(
        name=output.resolve().name,
        method=f"{composition.method.title} ({composition.method.source})",
        formula=composition.method.formula,
        inputs=tuple(map(_on_card, composition.parts)),
        form=_on_card(Part("form", composition.form)),
        facts=form.facts,
        dtype=name_of_dtype(dtype) if dtype else form.facts.saved_dtype,
        choice=chosen.reason if chosen else "",
        verdicts=chosen.verdicts if chosen else (),
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


def _key(composition: Composition, dtype: torch.dtype | None, *, with_rule: bool = True) -> str:
    """Return what tells this merge from any other: models, rule (with its weights), form, type."""
    form = composition.form.form.facts
    return fingerprint(
        {
            "models": [part.model.fingerprint for part in composition.parts],
            "method": composition.method.title,
            "rule": asdict(composition.rule) if with_rule else None,
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
    table = titled_table("")
    table.title = None
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
