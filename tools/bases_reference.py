"""Writes docs/bases.md, what is known of released bases, from the table that plans read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from rewarm.planning.base_facts import Fact, KnownBase, ReplayData
from rewarm.planning.known_bases import KNOWN_BASES
from rewarm.reporting.numbers import rate
from rewarm.units import format_count

PAGE = Path(__file__).resolve().parents[1] / "docs" / "bases.md"
_HEAD = """\
# What is known of released bases

How a base was pretrained decides how its pretraining is best continued: from which rate, at which
length, with which text replayed. For the bases below `rewarm plan` takes what the recipe leaves
out of `base.pretraining` from here and names the document; `rewarm init` fills its answers in.
What a recipe says always stands; where it differs from this table a warning tells both.

A base is recognised by `base.hub_id`, or by a hub id as `base.path`. A local folder is recognised
by the shape in its `config.json` (model type, hidden size, layers, vocabulary; positions, where
several share the rest). A fine-tuned copy has its base's shape, so the plan warns; and of bases
that share a shape only what all have in common is taken. For a `base.revision` that is neither a
commit nor `main`, final rate and tokens are not taken: they are the last checkpoint's.

* **–**: not published, or not found in a document that could be read. Nothing was filled in by
  analogy.
* *peak*, *final*: learning rates. A final rate of 0 or – is what `rewarm tune --lr` is for.
* *length*: tokens per sequence in the main part, before any stage for longer contexts.
* **Proxy**: the makers do not publish their text; the data sets named are our choice of open text.
* Small numbers point to the documents under each table. They were read in stored copies; look at
  the document itself before much depends on a number.

This page is written by `tools/bases_reference.py` from `src/rewarm/planning/bases_*.py`.
"""
T = TypeVar("T")
_COLUMNS = ("base", "schedule", "peak", "final", "tokens", "batch", "length", "betas", "decay")


def page() -> str:
    """Return the reference as Markdown: a table and its documents for each family."""
    families = dict.fromkeys(base.family for base in KNOWN_BASES)
    parts = [_HEAD]
    for family in families:
        parts += _family([base for base in KNOWN_BASES if base.family == family])
    return "\n".join(parts)


def _family(bases: Sequence[KnownBase]) -> list[str]:
    documents: dict[str, int] = {}

    def cell(fact: Fact[T] | None, written: Callable[[T], str]) -> str:
        if fact is None:
            return "–"
        number = documents.setdefault(fact.source, len(documents) + 1)
        return f"{written(fact.value)} <sup>{number}</sup>"

    lines = [f"## {bases[0].family}", ""]
    lines += [f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
    for base in bases:
        cells = [
            f"{base.name} (`{'`, `'.join(base.hub_ids)}`)",
            cell(base.schedule, str),
            cell(base.peak_lr, rate),
            cell(base.final_lr, rate),
            cell(base.tokens, format_count),
            cell(base.batch_tokens, format_count),
            cell(base.sequence_length, str),
            cell(base.betas, lambda betas: ", ".join(f"{beta:g}" for beta in betas)),
            cell(base.weight_decay, lambda decay: f"{decay:g}"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_data(bases), *_notes(bases), ""]
    lines += [f"{number}. {source}" for source, number in documents.items()]
    return [*lines, ""]


def _data(bases: Sequence[KnownBase]) -> list[str]:
    members: dict[ReplayData, list[str]] = {}
    for base in bases:
        members.setdefault(base.data, []).append(base.name)
    lines = []
    for data, names in members.items():
        word = "Proxy" if data.is_proxy else "To replay"
        whose = "" if len(members) == 1 else f" ({', '.join(names)})"
        sets = ", ".join(f"`{hub_id}`" for hub_id in data.hub_ids)
        lines.append(f"* **{word}**{whose}: {sets} ({data.source}).")
    return lines


def _notes(bases: Sequence[KnownBase]) -> list[str]:
    members: dict[str, list[str]] = {}
    for base in bases:
        if base.note:
            members.setdefault(base.note, []).append(base.name)
    return [f"* {', '.join(names)}: {note}." for note, names in members.items()]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
