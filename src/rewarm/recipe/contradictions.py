"""What sections of a recipe say against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from rewarm.recipe.phases import RoleOrOld
from rewarm.recipe.section import NAME
from rewarm.recipe.sources import OLD_ROLES

__all__ = ["contradictions"]


def contradictions(tree: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (field, what, fix) for everything that sections of a recipe say against each other.

    `tree` is what the TOML holds: a section that is not of its form is passed over here, so that
    this can be told beside the errors of single fields.
    """
    sources = _table(tree, "sources")
    for name in sources:
        if NAME.fullmatch(name) is None:
            yield (
                f"sources.{name}",
                f"{name!r} cannot be the name of a source",
                "use letters, digits, '-', '_' or '.' (up to 64)",
            )
        yield from _contradictions_of_rehearsal(name, sources)
        yield from _contradictions_of_keep(name, sources)
    yield from _contradictions_of_tasks(_table(tree, "evaluation"), sources)
    yield from _contradictions_of_muon(tree)
    phases = tree.get("phases")
    if isinstance(phases, list) and all(isinstance(phase, dict) for phase in phases):
        yield from _contradictions_of_phases(phases, sources)


def _contradictions_of_tasks(
    evaluation: Mapping[str, Any], sources: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    tasks = _table(evaluation, "tasks")
    for name in tasks:
        if name in sources:
            yield (
                f"evaluation.tasks.{name}",
                f"a source is called {name!r} too, and figures go by name",
                "give the task another name",
            )
    of_harness = _table(evaluation, "harness").get("tasks")
    for name in of_harness if isinstance(of_harness, list) else ():
        if isinstance(name, str) and (name in sources or name in tasks):
            other = "source" if name in sources else "local task"
            yield (
                "evaluation.harness.tasks",
                f"a {other} is called {name!r} too, and figures go by name",
                f"give the {other} another name",
            )


def _contradictions_of_rehearsal(
    name: str, sources: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    wanted = _table(_table(sources, name), "rehearse").get("prefixes")
    if isinstance(wanted, str) and "rehearse" in _table(sources, wanted):
        yield (
            f"sources.{name}.rehearse.prefixes",
            f"source {wanted!r} is made by rehearsal too",
            "take prefixes from a source of real text",
        )


def _contradictions_of_keep(
    name: str, sources: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    keep = _table(_table(sources, name), "keep")
    others = sorted(set(sources) - {name})
    for key, itself, read in (
        ("reference", "its own reference", "a reference is read whole"),
        ("nearest", "near to itself", "its questions are read whole"),
    ):
        wanted = keep.get(key)
        if not isinstance(wanted, str):
            continue
        where = f"sources.{name}.keep.{key}"
        if wanted == name:
            yield (
                where,
                f"{name!r} would be {itself}",
                "name another source: what its documents are held against has to come from "
                "elsewhere",
            )
        elif wanted not in sources:
            yield (
                where,
                f"no source is called {wanted!r}",
                f"name one of: {', '.join(others)}" if others else "add such a source",
            )
        elif _table(sources, wanted).get("keep") is not None:
            yield (
                where,
                f"source {wanted!r} keeps a part of itself, and {read}",
                f"leave keep out of sources.{wanted}, or name another source",
            )


def _contradictions_of_muon(tree: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    if _table(tree, "optimizer").get("kind") != "muon":
        return
    if "adapter" in _table(tree, "parameters"):
        yield (
            "optimizer.kind",
            "muon makes whole matrices' updates orthogonal, and an adapter trains thin factors of "
            "a change, one of which begins at zero: nobody has shown that it is of use there",
            'use "adamw", or leave parameters.adapter out',
        )
    if "optimizer_state" in _table(tree, "base"):
        yield (
            "base.optimizer_state",
            "these are AdamW's moments, and muon has others",
            'leave it out, or set optimizer.kind = "adamw"',
        )


def _contradictions_of_phases(
    phases: Sequence[Mapping[str, Any]], sources: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    names = [phase.get("name") for phase in phases]
    for index, phase in enumerate(phases):
        for source in _table(phase, "weights"):
            if sources and source not in sources:
                yield (
                    f"phases[{index}].weights.{source}",
                    f"no source is called {source!r}",
                    f"name one of: {', '.join(sorted(sources))}",
                )
        among = phase.get("among")
        named = among if isinstance(among, list) else list(sources)
        for source in named:
            if sources and isinstance(source, str) and source not in sources:
                yield (
                    f"phases[{index}].among",
                    f"no source is called {source!r}",
                    f"name some of: {', '.join(sorted(sources))}",
                )
        for role, share in _table(phase, "roles").items():
            has_it = any(
                isinstance(source, dict)
                and (
                    source.get("role") == role
                    or (role == "old" and source.get("role") in OLD_ROLES)
                )
                for name, source in sources.items()
                if name in named
            )
            if share and role in get_args(RoleOrOld) and not has_it:
                yield (
                    f"phases[{index}].roles.{role}",
                    "no source has this role"
                    + (", among those that are named" if isinstance(among, list) else ""),
                    "add such a source, or leave the role out",
                )
        last = index == len(phases) - 1
        if last and phase.get("until") is not None:
            yield (
                f"phases[{index}].until",
                "the last phase runs to the end of the budget",
                "leave `until` out there",
            )
        if not last and phase.get("until") is None:
            yield (
                f"phases[{index}].until",
                f"phase {names[index]!r} never ends, so {names[index + 1]!r} never begins",
                'say where it ends, e.g. until = { lr_below = "start/5" }',
            )
        if names[index] is not None and names[index] in names[:index]:
            yield (
                f"phases[{index}].name",
                f"two phases are called {names[index]!r}",
                "give each its own name",
            )


def _table(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = tree.get(key)
    return value if isinstance(value, dict) else {}
