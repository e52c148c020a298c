"""The commented recipe that `rewarm init` writes from what a person answered."""

from __future__ import annotations

import glob
import json
import os
import re
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rewarm.artifacts import parse_json
from rewarm.planning.known_bases import Recognition, replay_hint
from rewarm.recipe.presets import Declared, Shift
from rewarm.stages.init_preset import Choice, choose, keys_of_source, preset_lines
from rewarm.units import parse_count

__all__ = ["Answers", "chosen_for", "config_of", "recipe_text", "told"]

_DEFAULT_LENGTH = 2048
_LARGEST_BATCH = 524_288
_SMALL_CORPUS_BYTES = 100 * 2**20
_WANTED_STEPS = 200


@dataclass(frozen=True, slots=True)
class Answers:
    """What the person said; None or empty where not asked or not answered."""

    base: str | None = None
    text: tuple[str, ...] = ()
    replay: tuple[str, ...] = ()
    qa: tuple[str, ...] = ()
    budget: str | None = None
    peak_lr: float | None = None
    final_lr: float | None = None
    shift: Shift | None = None
    preset: str | None = None
    """The preset that was asked for, in place of the one that is advised."""
    more_to_come: bool = False
    """Whether further data sets will follow."""
    known: Recognition | None = None
    """What the base was recognised as; the two rates then stand for its own where not given."""


def recipe_text(answers: Answers, output: Path) -> str:
    """Return the commented recipe; paths are written as seen from the recipe's folder."""
    assert answers.base is not None
    assert answers.budget is not None
    folder = output.resolve().parent
    budget = parse_count(answers.budget)
    length = _sequence_length(answers, budget)
    batch = _batch_tokens(budget, length)
    choice = chosen_for(answers)
    return "\n".join(
        [
            "# How to continue the pretraining of a model; `rewarm plan` shows what it comes to,",
            "# `rewarm run` takes the whole road. Any key can be overridden: -o budget.tokens=10M",
            f"name = {_quote(_name_from(output))}",
            *preset_lines(choice),
            "",
            "[base]",
            f"path = {_quote(_seen_from(folder, answers.base))}",
            "",
            *_pretraining(answers),
            "",
            "[budget]",
            f"tokens = {_quote(answers.budget)}  # never exceeded",
            "",
            "[batch]",
            f"tokens = {batch}  # per optimizer step: {budget // batch} steps",
            f"sequence_length = {length}",
            "",
            *_sources(answers, choice, folder),
            *_without_replay(answers),
        ]
    )


def chosen_for(answers: Answers) -> Choice:
    """Return the preset that fits what was answered, or that was asked for."""
    assert answers.budget is not None
    given = {"new": answers.text, "replay": answers.replay, "qa": answers.qa}
    declared = Declared(
        sources={role: role for role, paths in given.items() if paths},
        shift=answers.shift,
        peak_lr=answers.peak_lr,
        final_lr=answers.final_lr,
    )
    return choose(
        declared,
        preset=answers.preset,
        budget_tokens=parse_count(answers.budget),
        new_bytes=_num_bytes(answers.text),
        more_to_come=answers.more_to_come,
    )


def _name_from(output: Path) -> str:
    """Return a legal name for the run, as near to the file's as letters without accents come."""
    plain = unicodedata.normalize("NFKD", output.stem).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", plain).strip("-_.")[:64]
    return name or "run"


_EXAMPLES = {"peak_lr": "3e-4", "final_lr": "3e-5"}


def _pretraining(answers: Answers) -> list[str]:
    known = answers.known
    lines = ["[base.pretraining]  # what is known of how the base was trained"]
    if known is not None:
        lines.append(f"# {told(known)}")
    keys: tuple[tuple[Literal["peak_lr", "final_lr"], float | None], ...] = (
        ("peak_lr", answers.peak_lr),
        ("final_lr", answers.final_lr),
    )
    for key, value in keys:
        fact = None if known is None else known.fact(key)
        source = f"  # {fact.source}" if fact is not None and fact.value == value else ""
        lines.append(
            f"{key} = {value!r}{source}" if value is not None else f"# {key} = {_EXAMPLES[key]}"
        )
    length = None if known is None else known.fact("sequence_length")
    lines.append(f"# sequence_length = {4096 if length is None else length.value}")
    return lines


def _sources(answers: Answers, choice: Choice, folder: Path) -> list[str]:
    lines: list[str] = []
    given = (
        ("new", "new", answers.text, "what is to be learned"),
        ("replay", "replay", answers.replay, "like the pretraining: keeps what the base knows"),
        ("qa", "qa", answers.qa, "questions with answers, for the end of the run"),
    )
    for name, role, paths, comment in given:
        if not paths:
            continue
        shown = [_quote(_seen_from(folder, path)) for path in paths]
        lines += [
            f"[sources.{name}]  # {comment}",
            f"path = {shown[0]}" if len(shown) == 1 else f"path = [{', '.join(shown)}]",
            f'role = "{role}"',
            *(['question_field = "question"', 'answer_field = "answer"'] if role == "qa" else []),
            f"held_out = {_held_out(paths)}  # never trained on; measures learning and forgetting",
            *keys_of_source(choice, name),
            "",
        ]
    return lines


def _held_out(paths: Sequence[str]) -> float:
    """Return 1 % of large corpora and 6 % of small ones, so that there is enough to measure on."""
    return 0.06 if 0 < _num_bytes(paths) < _SMALL_CORPUS_BYTES else 0.01


def _num_bytes(paths: Sequence[str]) -> int:
    """Return the size of files, folders and globs; 0 where nothing is found."""
    return sum(
        file.stat().st_size
        for path in paths
        for place in _places(os.path.expanduser(path))
        for file in (place.rglob("*") if place.is_dir() else [place])
        if file.is_file()
    )


def _places(path: str) -> list[Path]:
    # Spelled out, a name may hold brackets and stars.
    return [Path(p) for p in ([path] if os.path.exists(path) else glob.glob(path, recursive=True))]


def _without_replay(answers: Answers) -> list[str]:
    if answers.replay:
        return []
    return [
        "# Nothing is replayed: expect forgetting. Text like the pretraining's would help.",
        *_comment(replay_hint(answers.known) if answers.known is not None else ""),
        "",
    ]


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, 95, break_long_words=False)]


def _quote(text: str) -> str:
    """Return a TOML basic string: JSON's, but for characters beyond U+FFFF and for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _seen_from(folder: Path, path: str) -> str:
    """Return an existing local path (or a glob's) as seen from the recipe; others as they are."""
    expanded = os.path.expanduser(path)
    stem = expanded.split("*", 1)[0]
    looks_local = os.path.exists(stem or ".") and (stem or "*" in path)
    if not looks_local or os.path.isabs(expanded):
        return expanded if looks_local else path
    return os.path.relpath(os.path.abspath(expanded), folder)


def _sequence_length(answers: Answers, budget: int) -> int:
    """Return the base's own length, where a step of one sequence leaves the wanted number of steps.

    Else, and where it is not known, its positions, at most 2,048. A hub id is not opened for this.
    """
    assert answers.base is not None
    known = None if answers.known is None else answers.known.fact("sequence_length")
    config = config_of(answers.base) or {}
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    most = positions if type(positions) is int else None
    wanted = _DEFAULT_LENGTH
    if known is not None and known.value <= max(_DEFAULT_LENGTH, budget // _WANTED_STEPS):
        wanted = known.value
    return wanted if most is None else min(most, wanted)


def _batch_tokens(budget: int, length: int) -> int:
    """Return a whole number of sequences that gives about 200 steps, within usual batch sizes."""
    wanted = min(budget // _WANTED_STEPS, _LARGEST_BATCH)
    return max(length, wanted // length * length)


def told(known: Recognition) -> str:
    """Return in a line what the base was recognised as, and how sure that is."""
    if known.by_name:
        return f"known: {known.name} (docs/bases.md)"
    return f"it has the shape of {known.name} (docs/bases.md), as a fine-tuned copy would too"


def config_of(base: str) -> dict[str, Any] | None:
    """Return the `config.json` of a local base; None where there is none to be read."""
    try:
        value = parse_json((Path(os.path.expanduser(base)) / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
