"""What is known of released bases: recognises one, and fills in what a recipe leaves out.

A recipe's own word always stands. A fact of the table is taken where the recipe says nothing, with
its source among the plan's reasons; where the two disagree, a warning tells both. Recognised by its
hub id, a base is what it is called; recognised by its shape alone it may be a fine-tuned copy, or
any of several that share the shape, and only what all of those have in common is taken.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rewarm.planning.base_facts import Fact, KnownBase, ReplayData, Shape
from rewarm.planning.bases_open import OPEN_BASES
from rewarm.planning.bases_unpublished import UNPUBLISHED_BASES
from rewarm.planning.blends import used_sources
from rewarm.planning.notes import Notes
from rewarm.recipe.advice import advise
from rewarm.recipe.base import BasePretraining, BaseRecipe
from rewarm.recipe.presets import declared_in
from rewarm.recipe.schema import Recipe
from rewarm.recipe.sources import OLD_ROLES
from rewarm.records.facts import ModelFacts
from rewarm.units import format_count

__all__ = [
    "KNOWN_BASES",
    "Recognition",
    "recognise",
    "replay_hint",
    "shape_in_config",
    "shape_of",
    "with_known_base",
]

KNOWN_BASES: tuple[KnownBase, ...] = (*OPEN_BASES, *UNPUBLISHED_BASES)

FactName = Literal["schedule", "peak_lr", "final_lr", "tokens", "batch_tokens", "sequence_length"]
_FACTS: tuple[FactName, ...] = (
    "schedule",
    "peak_lr",
    "final_lr",
    "tokens",
    "batch_tokens",
    "sequence_length",
)
_RATES: frozenset[FactName] = frozenset({"peak_lr", "final_lr"})
# What holds of the last checkpoint alone.
_OF_THE_END: frozenset[FactName] = frozenset({"final_lr", "tokens"})
# People round: 15T and 15.6T tokens are the same pretraining, 3e-4 and 4e-4 are not.
_SAME_WITHIN = 0.05
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
# Above it people count in millions: a length is read to the token, a budget is not.
_MANY = 10**6
_TABLE = "docs/bases.md"


@dataclass(frozen=True, slots=True)
class Recognition:
    """The base that a hub id names, or every base that has a checkpoint's shape."""

    bases: tuple[KnownBase, ...]
    by_name: bool

    @property
    def name(self) -> str:
        """The base's name; of several, all of them."""
        return " or ".join(base.name for base in self.bases)

    def fact(self, key: FactName) -> Fact[Any] | None:
        """Return what all of the bases have in common; None where they differ or none says."""
        facts: list[Fact[Any] | None] = [getattr(base, key) for base in self.bases]
        first = facts[0]
        same = first is not None and all(f is not None and f.value == first.value for f in facts)
        return first if same else None

    def replay_data(self) -> tuple[ReplayData, ...]:
        """Return the data sets of all of the bases, each once."""
        return tuple(dict.fromkeys(base.data for base in self.bases))


def recognise(hub_ids: tuple[str | None, ...], shape: Shape | None) -> Recognition | None:
    """Return the base of the first hub id that is known, else those of this shape, else None."""
    by_id = {hub_id.lower(): base for base in KNOWN_BASES for hub_id in base.hub_ids}
    for hub_id in hub_ids:
        if hub_id is not None and (base := by_id.get(hub_id.lower())) is not None:
            return Recognition((base,), by_name=True)
    if shape is None:
        return None
    alike = [base for base in KNOWN_BASES if base.shape is not None and _fits(base.shape, shape)]
    # Positions tell Llama 3 from 3.1; yet a copy may have been given others.
    same_length = [base for base in alike if base.shape and _fits_length(base.shape, shape)]
    bases = tuple(same_length or alike)
    return Recognition(bases, by_name=False) if bases else None


def _fits(known: Shape, found: Shape) -> bool:
    return (
        known.model_type == found.model_type
        and known.hidden_size == found.hidden_size
        and known.num_layers == found.num_layers
        and known.vocab_size in (None, found.vocab_size)
    )


def _fits_length(known: Shape, found: Shape) -> bool:
    return known.max_positions in (None, found.max_positions)


def shape_of(model: ModelFacts) -> Shape:
    """Return the shape of a checkpoint whose facts were read."""
    return Shape(
        model.model_type,
        model.hidden_size,
        model.num_layers,
        model.vocab_size,
        model.max_positions,
    )


def shape_in_config(config: Mapping[str, Any]) -> Shape | None:
    """Return the shape that a `config.json` gives; None where it does not give one."""
    numbers = [
        config.get(key)
        for key in (
            "hidden_size",
            "num_hidden_layers",
            "vocab_size",
            "max_position_embeddings",
        )
    ]
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not all(type(number) is int for number in numbers):
        return None
    return Shape(model_type, *(int(number or 0) for number in numbers))


def with_known_base(recipe: Recipe, model: ModelFacts | None, notes: Notes) -> Recipe:
    """Return the recipe with what is known of its base where it leaves that out.

    Notes what was taken and from which document, where recipe and table disagree, and which data
    could be replayed where the recipe replays none.
    """
    base = recipe.base
    shape = None if model is None else shape_of(model)
    found = recognise((base.hub_id, base.path), shape)
    if found is None:
        return recipe
    how = "by its hub id" if found.by_name else "by its shape, which fine-tuned copies share"
    remarks = "".join(f"; {base.note}" for base in found.bases if base.note and found.by_name)
    notes.because("base", found.name, f"recognised {how}{remarks}", _TABLE)
    _warn_of_disagreement(found, base.pretraining, notes)
    taken = dict(_facts_to_take(found, base, model))
    for key, fact in taken.items():
        reason = f"the recipe does not say; {found.name} was trained so"
        notes.because(f"base.pretraining.{key}", _shown(fact.value), reason, fact.source)
    _warn_of_guess(found, base, taken, notes)
    _note_unpublished_rates(found, recipe, taken, notes)
    if not any(recipe.sources[name].role in OLD_ROLES for name in used_sources(recipe)):
        notes.warnings.append(replay_hint(found))
    values = {key: fact.value for key, fact in taken.items()}
    pretraining = base.pretraining.model_copy(update=values)
    changed = base.model_copy(update={"pretraining": pretraining})
    completed = recipe.model_copy(update={"base": changed})
    _warn_of_other_preset(found, recipe, completed, notes)
    return completed


def _facts_to_take(
    found: Recognition, base: BaseRecipe, model: ModelFacts | None
) -> Iterator[tuple[FactName, Fact[Any]]]:
    said = base.pretraining
    other_rates = any(_disagrees(found, said, key) for key in _RATES)
    for key in _FACTS:
        fact = found.fact(key)
        if fact is None or getattr(said, key) is not None:
            continue
        if key in _OF_THE_END and not _is_last_checkpoint(base.revision):
            continue
        if key in _RATES and other_rates:
            continue  # half of another pretraining's schedule would be no schedule
        if key == "sequence_length" and model is not None and fact.value > model.max_positions:
            continue
        yield key, fact


def _is_last_checkpoint(revision: str | None) -> bool:
    """Tell a branch of an earlier checkpoint from the main one and from a pinned commit."""
    return revision in (None, "main") or _COMMIT.fullmatch(str(revision)) is not None


def _disagrees(found: Recognition, said: BasePretraining, key: FactName) -> bool:
    fact, value = found.fact(key), getattr(said, key)
    if fact is None or value is None or key == "schedule":
        return False
    return not math.isclose(fact.value, value, rel_tol=_SAME_WITHIN)


def _warn_of_disagreement(found: Recognition, said: BasePretraining, notes: Notes) -> None:
    for key in _FACTS:
        fact = found.fact(key)
        if fact is not None and _disagrees(found, said, key):
            notes.warnings.append(
                f"base.pretraining.{key}: the recipe says {_shown(getattr(said, key))}, which is "
                f"used; {found.name} was trained with {_shown(fact.value)} ({fact.source})"
            )


def _warn_of_guess(
    found: Recognition, base: BaseRecipe, taken: Mapping[FactName, Fact[Any]], notes: Notes
) -> None:
    """Say what stands on less than the base's name and its last checkpoint."""
    if not _is_last_checkpoint(base.revision):
        notes.warnings.append(
            f"base.revision = {base.revision!r}: the final rate of {found.name} is not taken for "
            "that of another checkpoint; give base.pretraining.final_lr"
        )
    if not found.by_name and taken:
        named = f"{base.hub_id!r} is not in the table, but the" if base.hub_id else "The"
        notes.warnings.append(
            f"{named} base has the shape of {found.name}, so {', '.join(taken)} of its pretraining "
            "are taken from there. A fine-tuned copy ended at other rates: if this is one, say so "
            "in base.pretraining; if it is the base itself, name it in base.hub_id"
        )


def _warn_of_other_preset(
    found: Recognition, recipe: Recipe, completed: Recipe, notes: Notes
) -> None:
    """Say where a preset fits only as long as the base's rates are not known.

    A recipe without phases got its preset before its base was recognised.
    """
    before, after = advise(declared_in(recipe)), advise(declared_in(completed))
    if recipe.preset == before.preset != after.preset:
        notes.warnings.append(
            f'preset = "{before.preset}" fits where the rates of {found.name} are not known. They '
            f'are, and with them preset = "{after.preset}" fits: {after.reasons[0]}'
        )


def _note_unpublished_rates(
    found: Recognition, recipe: Recipe, taken: Mapping[FactName, Fact[Any]], notes: Notes
) -> None:
    """Note, where the schedule is named after rates that nobody published, what to do instead."""
    said, schedule = recipe.base.pretraining, recipe.schedule
    known = taken.keys() | {key for key in _FACTS if getattr(said, key) is not None}
    is_named = schedule.kind != "pieces" and str(schedule.peak_lr.name).startswith("pretraining.")
    if is_named and not known & _RATES and all(base.peak_lr is None for base in found.bases):
        notes.problems.add(
            "base.pretraining",
            f"no document was found that gives the learning rates of {found.name}",
            "set schedule.peak_lr to a number; `rewarm tune RECIPE --lr --around 3e-5` measures "
            "three around the one you try",
        )


def replay_hint(found: Recognition) -> str:
    """Return, as a sentence, which data could be replayed for a base."""
    data = found.replay_data()
    sets = ", ".join(dict.fromkeys(hub_id for one in data for hub_id in one.hub_ids))
    where = "take a part of it as a source with role 'replay'"
    if any(one.is_proxy for one in data):
        return (
            f"the pretraining text of {found.name} is not published; the nearest open data that we "
            f"know (a proxy, {data[0].source}) are {sets}: {where}"
        )
    return f"the pretraining text of {found.name} is open ({sets}): {where}"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return str(value) if value < _MANY else format_count(value)
    return str(value)
