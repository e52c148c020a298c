"""What a person gives `rewarm branch` and `rewarm extend`, checked all at once."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from pathlib import Path

from rewarm.errors import Problems, RecipeError
from rewarm.recipe.section import NAME
from rewarm.stages.continued import Anneal, Extension
from rewarm.units import parse_count

__all__ = ["anneal_of", "extension_of", "name_of"]

_SHAPES = ("exponential", "linear", "cosine", "1-sqrt", "inverse-sqrt")


def anneal_of(tokens: str, shape: str, final_lr: float | None, weights: str | None) -> Anneal:
    """Return how a branch anneals; raises RecipeError with everything wrong."""
    problems = Problems()
    count = _count("--anneal", tokens, problems)
    if shape not in _SHAPES:
        near = difflib.get_close_matches(shape, _SHAPES, n=1, cutoff=0.5)
        known = f"known are {', '.join(_SHAPES)}"
        problems.add(
            "--shape", f"{shape!r} is no shape", f"did you mean {near[0]}?" if near else known
        )
    _check_rate(final_lr, shape, problems)
    shares = None if weights is None else _weights(weights, problems)
    problems.raise_as(RecipeError)
    return Anneal(count, shape, final_lr, shares)


def extension_of(
    tokens: str,
    recipe: Path | None,
    overrides: Iterable[str],
    anneal: str | None,
    final_lr: float | None,
) -> Extension:
    """Return how a run is extended; raises RecipeError with everything wrong."""
    problems = Problems()
    count = _count("--budget", tokens.removeprefix("+"), problems)
    annealed = 0 if anneal is None else _count("--anneal", anneal, problems)
    _check_rate(final_lr, "exponential", problems)
    overrides = tuple(overrides)
    if overrides and recipe is None:
        problems.add("-o", "it changes a recipe, and none is given", "add --recipe")
    if final_lr is not None and anneal is None:
        problems.add("--final-lr", "without --anneal the rate stays as it is", "add --anneal")
    problems.raise_as(RecipeError)
    return Extension(count, recipe, overrides, annealed, final_lr)


def name_of(name: str | None) -> str | None:
    """Return a run's name; raises RecipeError where it cannot be one."""
    if name is not None and NAME.fullmatch(name) is None:
        raise RecipeError.one(
            "--name", f"{name!r} cannot be a run's name", "use letters, digits, '-', '_' and '.'"
        )
    return name


def _count(flag: str, text: str, problems: Problems) -> int:
    try:
        return parse_count(text)
    except ValueError as error:
        problems.add(flag, str(error), 'write e.g. "20M"')
        return 1


def _check_rate(rate: float | None, shape: str, problems: Problems) -> None:
    if rate is None:
        return
    if not math.isfinite(rate) or not 0 <= rate < 1:
        problems.add("--final-lr", f"{rate} is not a learning rate", "e.g. 3e-5")
    elif rate == 0 and shape == "exponential":
        problems.add(
            "--final-lr",
            "an exponential decay never reaches 0",
            "give a small rate, or --shape linear",
        )


def _weights(text: str, problems: Problems) -> dict[str, float]:
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, equals, share = part.partition("=")
        try:
            value = float(share)
        except ValueError:
            value = math.nan
        if not equals or not name.strip() or not (math.isfinite(value) and value >= 0):
            problems.add("--weights", f"{part!r} is not a share", "write e.g. new=0.7,qa=0.3")
        elif name.strip() in shares:
            problems.add("--weights", f"{name.strip()!r} has two shares", "give it one")
        else:
            shares[name.strip()] = value
    if shares and not any(shares.values()):
        problems.add("--weights", "all shares are zero", "give at least one source a share")
    return shares
