"""What fields of a stream's experiment say against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from rewarm.recipe.section import NAME
from rewarm.records.margins import margin_problem
from rewarm.stream.cells import PRESET, PROBED, side_problems
from rewarm.stream.corpora_problems import corpora_problems, tables
from rewarm.stream.sections import Algorithm

__all__ = ["contradictions"]

_OF_LOOKS = ("min_acc", "wc_acc", "stability_gap")
"""Figures that looks within tasks tell."""

_OWN_KEYS = {
    "candidates": ("mir",),
    "compared": ("gss",),
    "temperature": ("lwf", "scr"),
    "ewc": ("ewc++",),
    "fisher_decay": ("ewc++",),
    "fisher_every": ("ewc++",),
    "memory_epochs": ("gdumb",),
}
"""Keys of a learner, and the algorithms that they are of."""


def contradictions(tree: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (field, what, fix) for what fields say against each other, as far as they are there."""
    for section in ("backbones", "learners"):
        for name in tables(tree.get(section)):
            if NAME.fullmatch(name) is None:
                fix = "use letters, digits, '-', '_' or '.' (up to 64)"
                yield f"{section}.{name}", f"{name!r} cannot be a name", fix
            if name in (PRESET, PROBED):
                yield f"{section}.{name}", "the name is taken", "give it another one"
    if not tables(tree.get("learners")) and "preset" not in tree:
        fix = f"describe one under [learners.NAME], or give preset = {PRESET!r}"
        yield "learners", "there is none", fix
    yield from side_problems(tree)
    contrasts = tree.get("contrasts")
    for index, contrast in enumerate(contrasts if isinstance(contrasts, list) else []):
        if isinstance(contrast, dict):
            problem = margin_problem([contrast.get("expect")], given="within" in contrast)
            if problem is not None:
                yield f"contrasts[{index}].within", *problem
        if isinstance(contrast, dict) and contrast.get("metric") in _OF_LOOKS:
            yield from _of_looks(f"contrasts[{index}].metric", contrast, tree)
    source = tree.get("source")
    kind = source.get("kind") if isinstance(source, dict) else None
    if kind == "corpora":
        yield from corpora_problems(tree)
    elif kind in ("image", "text"):
        yield from _of_labelled(tree)
    for name, backbone in tables(tree.get("backbones")).items():
        where = f"backbones.{name}"
        if ("path" in backbone) == ("small" in backbone):
            yield where, "one of path and small is needed, and not both", "give one of them"
        if "small" in backbone and "from_scratch" in backbone:
            yield f"{where}.from_scratch", "small ones always begin from scratch", "leave it out"
        if "small" in backbone and "revision" in backbone:
            yield f"{where}.revision", "small ones have none", "leave it out"
        wanted = {"cnn": "image", "bytes": "text"}.get(str(backbone.get("small")))
        if wanted is not None and kind in ("image", "text") and wanted != kind:
            what = f"{backbone['small']!r} reads {wanted}s, and the source holds {kind}s"
            yield f"{where}.small", what, "name the other small architecture"
    yield from _without_effect(tree)


def _without_effect(tree: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield what is set and would change nothing: whoever sets it expects that it does."""
    scenario, source = (tables(tree).get(section, {}) for section in ("scenario", "source"))
    is_corpora = source.get("kind") == "corpora"  # where no key of a learner has an effect
    for name, learner in tables(tree.get("learners")).items():
        algorithm = learner.get("algorithm")
        if is_corpora or algorithm not in get_args(Algorithm):
            continue
        for key, owners in _OWN_KEYS.items():
            if key in learner and algorithm not in owners:
                what = f"{algorithm} has none: it is of {' and '.join(owners)}"
                yield f"learners.{name}.{key}", what, "leave it out, or name another algorithm"
    if "epochs" in scenario and scenario.get("mode", "online") == "online":
        what = "a stream is passed over once where its mode is online, which it is by default"
        yield "scenario.epochs", what, 'give mode = "offline", or leave it out'
    if "test_share" in source and "split" in source:
        what = "source.split says which examples are for the test"
        yield "source.test_share", what, "leave one of them out"
    for key, kind, whose in (("image_size", "text", "images"), ("max_bytes", "image", "texts")):
        if key in source and source.get("kind") == kind:
            yield f"source.{key}", f"it is of {whose}, and the source holds {kind}s", "leave it out"


def _of_labelled(tree: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    source, scenario = tree["source"], tree.get("scenario")
    if "path" not in source:
        yield "source.path", "is missing", "add it: a parquet or JSONL file, or a folder of images"
    if isinstance(scenario, dict) and "tasks" not in scenario:
        yield "scenario.tasks", "is missing", "say into how many tasks the classes are dealt"
    told = {"source": ("corpora",), "scenario": ("tokens", "order")}
    for section, names in told.items():
        given = tree.get(section)
        for name in names:
            if isinstance(given, dict) and name in given:
                yield f"{section}.{name}", "it is for corpora", 'leave it out, or kind = "corpora"'
    if "recipe" in tree:
        yield "recipe", "it is for corpora", 'leave it out, or kind = "corpora"'


def _of_looks(
    where: str, contrast: Mapping[str, Any], tree: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    metric = contrast["metric"]
    if "evaluate_every" not in tables(tree).get("scenario", {}):
        what = f"{metric} is told by looks within tasks, and there are none"
        yield where, what, "give scenario.evaluate_every"
    if tables(tree).get("source", {}).get("kind") != "corpora":
        return
    learners = tables(tree.get("learners"))
    joint = {name for name, learner in learners.items() if learner.get("algorithm") == "joint"}
    for key in ("cell", "against"):
        cells = str(contrast.get(key, "")).split(" - ")
        for name in sorted(joint & {cell.strip().partition("/")[2] for cell in cells}):
            what = f"{name} has no {metric}: joint learns corpora anew for each task"
            yield where, what, "name another learner, or another metric"
