"""`rewarm expand`: a base to a deeper one that computes the same, in a verified folder."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from rewarm.errors import Problems, UserError
from rewarm.export import ExpandedCard, export_expanded, find_expanded
from rewarm.model.expand import Expansion, evenly, every_nth, expand
from rewarm.model.weight_folder import WeightFolder
from rewarm.planning.trainable import layer_of
from rewarm.stages.base import find_model
from rewarm.units import format_count

__all__ = ["ExpandRequest", "run_expand"]


@dataclass(frozen=True, slots=True)
class ExpandRequest:
    """What the command line gave."""

    base: str
    output: Path
    every: int | None = None
    copies: int | None = None


def run_expand(request: ExpandRequest, console: Console | None = None) -> Path:
    """Write the deeper model, print what was added and where it is, and return its folder.

    What is there already, whole, is not written again.

    Raises UserError with everything that is wrong with options, base and place, EnvironmentFault
    where the hub or the disk refuses.
    """
    console = console or Console()
    problems = Problems()
    _note_options(request, problems)
    base = _read(request, problems)
    if base is not None:
        _note_too_many(request, base.facts.num_layers, problems)
    expansion = None
    if base is not None and not len(problems):
        expansion = expand(base, _behind(request, base.facts.num_layers))
        damage = find_expanded(request.output, base, expansion)
        if damage == []:
            _say(console, f"expanded already: {request.output.resolve()}")
            return request.output
        if damage:
            problems.add(
                str(request.output),
                f"it is this expansion, damaged: {'; '.join(damage)}",
                "remove the folder, then run the command again",
            )
            problems.raise_as(UserError)
    _note_taken(request, problems)
    problems.raise_as(UserError)
    assert base is not None
    assert expansion is not None
    card = _card(request, base, expansion)
    with console.status("expanding, and reading back what was written"):
        export_expanded(base, expansion, folder=request.output, card=card)
    for line in _told(card, request.output):
        _say(console, line)
    return request.output


def _note_options(request: ExpandRequest, problems: Problems) -> None:
    if (request.every is None) == (request.copies is None):
        both = "both are given" if request.every else "neither is given"
        problems.add(
            "--every, --copies",
            both,
            "give one: --every 4 copies each fourth block, --copies 8 spreads eight evenly",
        )


def _note_taken(request: ExpandRequest, problems: Problems) -> None:
    if os.path.lexists(request.output):
        problems.add(
            str(request.output),
            "there is something already",
            "name another folder, or remove this one",
        )


def _read(request: ExpandRequest, problems: Problems) -> WeightFolder | None:
    try:
        return WeightFolder.read(find_model(request.base, None, Path.cwd(), where="BASE"))
    except UserError as error:
        problems.extend(error.problems)
        return None


def _note_too_many(request: ExpandRequest, num_layers: int, problems: Problems) -> None:
    for option, number in (("--every", request.every), ("--copies", request.copies)):
        if number is not None and number > num_layers:
            problems.add(
                option,
                f"{number} is more than the base's {num_layers} layers",
                f"give at most {num_layers}",
            )


def _behind(request: ExpandRequest, num_layers: int) -> tuple[int, ...]:
    if request.every is not None:
        return every_nth(num_layers, request.every)
    assert request.copies is not None
    return evenly(num_layers, request.copies)


def _card(request: ExpandRequest, base: WeightFolder, expansion: Expansion) -> ExpandedCard:
    is_local = os.path.isdir(os.path.expanduser(request.base))
    copied = [expansion.source[layer] for layer in expansion.copies]
    added = sum(
        math.prod(shape)
        for name, shape in base.facts.tensor_shapes.items()
        for layer in copied
        if layer_of(name) == layer
    )
    return ExpandedCard(
        name=request.output.resolve().name,
        base=base.folder.name if is_local else request.base,
        hub_id=None if is_local else request.base,
        facts=base.facts,
        num_layers=len(expansion.source),
        num_parameters=base.facts.num_parameters + added,
        copies=tuple(sorted(expansion.copies)),
        expanded=expansion.expanded,
        silent=tuple(expansion.silent),
    )


def _told(card: ExpandedCard, output: Path) -> list[str]:
    return [
        f"layers: {card.facts.num_layers} → {card.num_layers}; "
        f"copies: {', '.join(map(str, card.copies))} (from 0)",
        f"parameters: {format_count(card.facts.num_parameters)} → "
        f"{format_count(card.num_parameters)}",
        f"silent in each copy: {', '.join(card.silent)}",
        "logits are the base's, bit for bit",
        f"expanded and verified: {output.resolve()}",
        'to train the copies alone: [parameters] train = ["expanded"]',
    ]


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
