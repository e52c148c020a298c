"""What an experiment over corpora must have, and what is for labelled examples alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rewarm.recipe.section import NAME
from rewarm.stream.sections import LearnerRecipe, SourceRecipe

__all__ = ["OWN_KEYS", "REPLAYS", "corpora_problems", "tables"]

REPLAYS = ("er",)
"""Algorithms that replay from the memory of documents."""

_ALGORITHMS = ("fine-tune", "joint", *REPLAYS)

OWN_KEYS = (
    *("name", "preset", "shift", "seed", "run_folder", "base", "sources", "phases", "budget"),
)
"""Sections and keys of a recipe that are the stream's own to say."""

_MERGED = ("batch", "evaluation", "schedule")
"""Sections that the stream adds keys of its own to."""


def corpora_problems(tree: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (field, what, fix) for an experiment whose source is corpora, as far as it is there."""
    yield from _of_source(tree["source"])
    yield from _of_scenario(tree)
    yield from _of_recipe(tree.get("recipe"))
    for key in ("preset", "probe"):
        if key in tree:
            yield key, "corpora have no classes that a probe could tell apart", "leave it out"
    if "checkpoint_every_s" in tree:
        yield (
            "checkpoint_every_s",
            "corpora are trained on as any run is",
            "give recipe.checkpoints",
        )
    recipe = tree.get("recipe")
    has_peak = "peak_lr" in tables(recipe).get("schedule", {})
    for name, backbone in tables(tree.get("backbones")).items():
        where = f"backbones.{name}"
        if "small" in backbone:
            yield f"{where}.small", "it reads no corpora", "give path, and from_scratch = true"
        if "lr" not in backbone and not has_peak:
            fix = "give the rate that the schedule peaks at, or recipe.schedule.peak_lr"
            yield f"{where}.lr", "is missing", fix
    for name, learner in tables(tree.get("learners")).items():
        algorithm = learner.get("algorithm")
        if isinstance(algorithm, str) and algorithm not in _ALGORITHMS:
            fix = (
                f"there are {', '.join(_ALGORITHMS)}; for retention of other kinds: rewarm compare"
            )
            yield f"learners.{name}.algorithm", f"{algorithm} does not learn corpora", fix
        for key in learner.keys() & (LearnerRecipe.model_fields.keys() - {"algorithm"}):
            yield f"learners.{name}.{key}", "it has no meaning with corpora", "leave it out"


def _of_source(source: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    corpora = tables(source.get("corpora"))
    if len(corpora) < 2:
        yield (
            "source.corpora",
            f"{len(corpora)} corpora",
            "a stream needs two: [source.corpora.NAME]",
        )
    for name, corpus in corpora.items():
        if NAME.fullmatch(name) is None:
            fix = "use letters, digits, '-', '_' or '.' (up to 64)"
            yield f"source.corpora.{name}", f"{name!r} cannot be a name", fix
        if name.startswith("memory-"):
            yield f"source.corpora.{name}", "the name is taken", "give it another one"
        if corpus.get("held_out") == 0:
            fix = "leave it out, or give a share above 0"
            yield f"source.corpora.{name}.held_out", "nothing of it could be measured", fix
        if corpus.get("format") == "chat":
            fix = "make documents of them beforehand"
            yield f"source.corpora.{name}.format", "a memory does not know answers alone", fix
        if corpus.get("role", "new") != "new":
            yield f"source.corpora.{name}.role", "corpora of a stream are new", "leave it out"
    for key in source.keys() & (SourceRecipe.model_fields.keys() - {"kind", "corpora"}):
        yield f"source.{key}", "it is for labelled examples", "leave it out"


def _of_scenario(tree: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    scenario, memory = (tables(tree).get(key, {}) for key in ("scenario", "memory"))
    num_corpora = len(tables(tree["source"].get("corpora")))
    tasks = scenario.get("tasks")
    if isinstance(tasks, int) and tasks != num_corpora:
        fix = "leave it out: each corpus is one"
        yield "scenario.tasks", f"{tasks} tasks of {num_corpora} corpora", fix
    # A list: what is written there may be anything.
    algorithms = [learner.get("algorithm") for learner in tables(tree.get("learners")).values()]
    batch, of_memory = scenario.get("batch", 10), memory.get("batch", 1)
    is_told = isinstance(batch, int) and isinstance(of_memory, int)
    replayed = any(algorithm in REPLAYS for algorithm in algorithms)
    if is_told and replayed and of_memory >= batch:
        what = (
            f"{of_memory} of a step's {batch} sequences (scenario.batch) leave none for the stream"
        )
        yield "memory.batch", what, "give fewer, or raise scenario.batch"


def _of_recipe(recipe: object) -> Iterator[tuple[str, str, str]]:
    if not isinstance(recipe, dict):
        return
    for key in OWN_KEYS:
        if key in recipe:
            yield f"recipe.{key}", "the stream says so itself", "leave it out"
    for key in _MERGED:
        if key in recipe and not isinstance(recipe[key], dict):
            yield f"recipe.{key}", f"{recipe[key]!r} is no table", f"write [recipe.{key}]"
    if "tokens" in tables(recipe).get("batch", {}):
        fix = "give scenario.batch, in sequences"
        yield "recipe.batch.tokens", "the stream says so itself", fix
    if "every_steps" in tables(recipe).get("evaluation", {}):
        fix = "give scenario.evaluate_every"
        yield "recipe.evaluation.every_steps", "the stream says so itself", fix


def tables(value: object) -> Mapping[str, Mapping[str, Any]]:
    """Return the tables of a table, by name."""
    if not isinstance(value, dict):
        return {}
    return {name: entry for name, entry in value.items() if isinstance(entry, dict)}
