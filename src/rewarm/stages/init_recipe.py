"""The commented recipe that `rewarm init` writes from what a person answered."""

from __future__ import annotations

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
from rewarm.units import parse_count

__all__ = ["Answers", "config_of", "recipe_text", "told"]

_DEFAULT_LENGTH = 2048
_LARGEST_BATCH = 524_288
_SMALL_CORPUS_BYTES = 100 * 2**20
_WANTED_STEPS = 200
# Used for 3B and 8B models by Guo et al. 2024; a stated stand-in where nothing is known.
_FALLBACK_LR = 3e-5


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
    return "\n".join(
        [
            "# How to continue the pretraining of a model; `rewarm plan` shows what it comes to,",
            "# `rewarm run` takes the whole road. Any key can be overridden: -o budget.tokens=10M",
            f"name = {_quote(_name_from(output))}",
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
            *_schedule(answers),
            "",
            *_sources(answers, folder),
            *_phases(answers),
        ]
    )


def _name_from(output: Path) -> str:
    """Return a legal name for the run, as near to the file's as letters without accents come."""
    plain = unicodedata.normalize("NFKD", output.stem).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", plain).strip("-_.")[:64]
    return name or "run"


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
        lines.append(f"{key} = {value!r}{source}" if value is not None else f"# {key} = 3e-4")
    length = None if known is None else known.fact("sequence_length")
    lines.append(f"# sequence_length = {4096 if length is None else length.value}")
    return lines


def _schedule(answers: Answers) -> list[str]:
    if answers.final_lr or answers.peak_lr:
        peak = '"pretraining.final"  # continue where the pretraining ended: nothing jumps'
        if not answers.final_lr:
            said = "is not known" if answers.final_lr is None else "is 0"
            peak += (
                f"\n# The final rate {said}: the plan assumes a tenth of the peak, and says so; "
                "rewarm tune --lr\n# measures three rates around it"
            )
    else:
        peak = (
            f"{_FALLBACK_LR:g}  # ASSUMED: nothing is known of the base's rates\n"
            "# (3e-5 served 3B and 8B models, 3e-4 a 1.1B model in Guo et al. 2024). Better: give\n"
            '# base.pretraining above and write "pretraining.final" here, or let rewarm tune --lr\n'
            "# measure three rates around this one"
        )
    return [
        "[schedule]  # Parmar et al. 2024: no warm-up, cosine to a hundredth",
        'kind = "cosine"',
        f"peak_lr = {peak}",
        'final_lr = "peak/100"',
        "warmup_fraction = 0.0",
    ]


def _sources(answers: Answers, folder: Path) -> list[str]:
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
            "",
        ]
    return lines


def _held_out(paths: Sequence[str]) -> float:
    """Return 1 % of large corpora and 6 % of small ones, so that there is enough to measure on."""
    total = 0
    for path in paths:
        found = Path(os.path.expanduser(path))
        files = found.rglob("*") if found.is_dir() else [found]
        total += sum(file.stat().st_size for file in files if file.is_file())
    return 0.06 if 0 < total < _SMALL_CORPUS_BYTES else 0.01


def _phases(answers: Answers) -> list[str]:
    blend = {"new": 0.75, "replay": 0.25} if answers.replay else {"new": 1.0}
    if not answers.replay:
        lines = [
            "# Nothing is replayed: expect forgetting. Text like the pretraining's would help.",
            *_comment(replay_hint(answers.known) if answers.known is not None else ""),
        ]
    else:
        lines = ["# 25 % replay for a strong shift, 5 % for a weak one (Ibrahim et al. 2024)."]
    if not answers.qa:
        return [*lines, "[[phases]]", 'name = "general"', f"weights = {_table(blend)}", ""]
    with_qa = {name: round(weight * 0.9, 4) for name, weight in blend.items()} | {"qa": 0.1}
    return [
        *lines,
        "[[phases]]",
        'name = "general"',
        f"weights = {_table(blend)}",
        'until = { lr_below = "start/5" }  # the switch of Parmar et al. 2024',
        "",
        "[[phases]]",
        'name = "qa"',
        f"weights = {_table(with_qa)}",
        "",
    ]


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, 95, break_long_words=False)]


def _table(weights: dict[str, float]) -> str:
    return "{ " + ", ".join(f"{name} = {weight:g}" for name, weight in weights.items()) + " }"


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
