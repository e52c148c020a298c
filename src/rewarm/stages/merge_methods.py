"""Which models a method of merging takes, with which weights, and what it then computes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rewarm.errors import Problems
from rewarm.model.average import Linear, Spherical
from rewarm.stages.merge_inputs import Input

__all__ = [
    "METHODS",
    "SWEPT",
    "Composition",
    "Given",
    "Part",
    "compose",
    "note_misuse",
    "task_arithmetic_weights",
]


class Method(NamedTuple):
    """How a method is called, what it computes, and whence it is."""

    title: str
    formula: str
    source: str


METHODS: dict[str, Method] = {
    "linear": Method(
        "linear interpolation",
        "(1 − w) base + w model",
        "WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903",
    ),
    "slerp": Method(
        "spherical interpolation",
        "sin((1 − w)ω)/sin ω base + sin(wω)/sin ω model, ω the angle between the two tensors",
        "Shoemake 1985",
    ),
    "average": Method(
        "average",
        "Σ w model / Σ w",
        "model soups, Wortsman et al. 2022, arXiv 2203.05482; along a run: WSM, arXiv 2507.17634",
    ),
    "task-arithmetic": Method(
        "task arithmetic",
        "base + Σ w (model − base)",
        "Ilharco et al. 2023, arXiv 2212.04089",
    ),
    "chat-vector": Method(
        "chat vector",
        "continued + w (instruct − base)",
        "Huang et al. 2024, arXiv 2310.04799",
    ),
}
SWEPT = ("linear", "slerp")
"""Methods with one weight between a base and a model, which a sweep can choose."""

_DEFAULT_WEIGHT = {"linear": 0.5, "slerp": 0.5, "chat-vector": 1.0}
_LARGEST_WEIGHT = 1e6


@dataclass(frozen=True, slots=True)
class Given:
    """What was asked for, apart from the models themselves."""

    method: str
    num_models: int
    has_base: bool
    has_instruct: bool
    weights: tuple[float, ...]
    is_sweep: bool


def note_misuse(given: Given, problems: Problems) -> None:
    """Note everything that a method does not take; the models need not be looked at for it.

    `RUN@all` counts as one of `num_models` although it may be several.
    """
    method = given.method
    if method not in METHODS:
        problems.add("--method", f"{method!r} is not known", f"use one of: {', '.join(METHODS)}")
        return
    if given.num_models == 0:
        problems.add("--model", "it is missing", "name the model to merge; it may be a run folder")
    _note_several(method, given.num_models, problems)
    if given.has_instruct != (method == "chat-vector"):
        problems.add(
            "--instruct",
            "chat-vector needs it" if method == "chat-vector" else f"{method} has no use for it",
            "name the instruction-tuned model that was made from the base"
            if method == "chat-vector"
            else "leave it out, or use --method chat-vector",
        )
    _note_weights(given, problems)
    if given.is_sweep and method not in SWEPT:
        problems.add(
            "--sweep",
            f"{method} has no single weight between base and model",
            f"use one of: {', '.join(SWEPT)}",
        )


def _note_several(method: str, num_models: int, problems: Problems) -> None:
    if num_models > 1 and method not in ("average", "task-arithmetic"):
        problems.add(
            "--model",
            f"{num_models} were given, and {method} takes one",
            "use average or task-arithmetic for several, or name one step: RUN@step",
        )


def _note_weights(given: Given, problems: Problems) -> None:
    if given.is_sweep and given.weights:
        problems.add("--weight", "a sweep chooses it", "leave out --weight, or --sweep")
    for weight in given.weights:
        if not abs(weight) <= _LARGEST_WEIGHT:  # NaN too
            problems.add("--weight", f"{weight} is no weight", "give a finite number")
        elif given.method in SWEPT and not 0.0 <= weight <= 1.0:
            problems.add(
                "--weight",
                f"{weight:g} is not between base (0) and model (1)",
                "stay within, or go beyond with --method task-arithmetic",
            )
        elif given.method == "average" and weight <= 0.0:
            problems.add("--weight", f"{weight:g} is not positive", "leave that model out")


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A model in its place in the formula; `weight` is what the formula has there."""

    part: str
    model: Input
    weight: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Composition:
    """The models in the order in which they are summed, the rule, and whose files are copied."""

    method: Method
    parts: tuple[Part, ...]
    rule: Linear | Spherical
    form: Input


def compose(
    method: str,
    *,
    base: Input | None,
    models: Sequence[Input],
    instruct: Input | None,
    weights: Sequence[float],
    problems: Problems,
) -> Composition | None:
    """Return what a method computes of these models; None, with problems noted, where it cannot.

    What `note_misuse` refuses is not given here.
    """
    if base is None and method != "average":
        problems.add(
            "--base", "it is missing", f"{method} needs the model that the others began as"
        )
    _note_several(method, len(models), problems)
    if method == "average" and len(models) < 2:
        problems.add("--model", "an average needs two models or more", "name others, or RUN@all")
    if weights and len(weights) != (len(models) if instruct is None else 1):
        problems.add(
            "--weight",
            f"{len(weights)} were given for {len(models)} models",
            "give one per --model, in their order, or none",
        )
    named_models = [("--model", model) for model in models]
    if method == "average":
        _note_twice(named_models, problems)
        return None if len(problems) else _average(models, weights, base or models[0])
    named = [("--base", base), *named_models, ("--instruct", instruct)]
    _note_twice([(option, one) for option, one in named if one is not None], problems)
    if len(problems):
        return None
    assert base is not None
    if method == "chat-vector":
        assert instruct is not None
        return _chat_vector(base, models[0], instruct, weights)
    if method == "task-arithmetic":
        return _task_arithmetic(base, models, weights)
    weight = weights[0] if weights else _DEFAULT_WEIGHT[method]
    rule = Spherical(weight) if method == "slerp" else Linear((1.0 - weight, weight))
    parts = (Part("base", base), Part("model", models[0], weight))
    return Composition(METHODS[method], parts, rule, base)


def _note_twice(inputs: Sequence[tuple[str, Input]], problems: Problems) -> None:
    seen: dict[str, str] = {}
    for option, one in inputs:
        where = f"{option} {one.label}"
        if one.fingerprint in seen:
            problems.add(
                where, f"it has the very weights of {seen[one.fingerprint]}", "name another model"
            )
        seen.setdefault(one.fingerprint, where)


def _average(models: Sequence[Input], weights: Sequence[float], form: Input) -> Composition:
    given = weights or (1.0,) * len(models)
    # In one order whatever theirs, so that the same models give the same bits.
    pairs = sorted(zip(models, given, strict=True), key=lambda pair: pair[0].fingerprint)
    parts = tuple(Part("model", model, weight) for model, weight in pairs)
    ordered = tuple(weight for _, weight in pairs)
    return Composition(METHODS["average"], parts, Linear(ordered, math.fsum(ordered)), form)


def task_arithmetic_weights(weights: Sequence[float]) -> tuple[float, ...]:
    """Return what base + Σ w_i (model_i − base) weighs each: (1 − Σ w, w_1, w_2, …)."""
    return (math.fsum((1.0, *(-weight for weight in weights))), *weights)


def _task_arithmetic(base: Input, models: Sequence[Input], weights: Sequence[float]) -> Composition:
    given = tuple(weights) or (1.0 / len(models),) * len(models)
    parts = (
        Part("base", base),
        *(Part("model", model, weight) for model, weight in zip(models, given, strict=True)),
    )
    return Composition(
        METHODS["task-arithmetic"], parts, Linear(task_arithmetic_weights(given)), base
    )


def _chat_vector(
    base: Input, continued: Input, instruct: Input, weights: Sequence[float]
) -> Composition:
    weight = weights[0] if weights else _DEFAULT_WEIGHT["chat-vector"]
    parts = (
        Part("base", base),
        Part("continued", continued),
        Part("instruct", instruct, weight),
    )
    # Its tokenizer, chat format and stop tokens are what makes a chat of it.
    return Composition(METHODS["chat-vector"], parts, Linear((-weight, 1.0, weight)), instruct)
