"""Results that are kept in results/: written there from an experiment's folder, and read again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from rewarm.artifacts import write_atomically, write_json
from rewarm.comparison.sentences import sentence
from rewarm.records.comparison import PairedEffect
from rewarm.records.facts import Record

__all__ = ["keep_result", "read_results", "sentences_again"]

_R = TypeVar("_R", bound=Record)


def keep_result(source: Path, target: Path, *, on_one_line: bool = False) -> None:
    """Write a `result.json` to where it is kept, without the folders of the machine that made it.

    `on_one_line` is for those with every look of every run: a third of the size.
    """
    value = json.loads(source.read_text(encoding="utf-8"))
    command = value["provenance"]["command"]
    value["provenance"]["command"] = [
        Path(part).name if Path(part).is_absolute() else part for part in command
    ]
    target.parent.mkdir(parents=True, exist_ok=True)
    _write(target, value, on_one_line=on_one_line)


def _write(target: Path, value: Any, *, on_one_line: bool) -> None:
    if on_one_line:
        write_atomically(target, json.dumps(value, separators=(",", ":")) + "\n")
    else:
        write_json(target, value)


def sentences_again(path: Path, *, write: bool) -> bool:
    """Say a kept result's sentences anew from its own figures, as one that is made today would.

    Returns whether they were these already.
    """
    text = path.read_text(encoding="utf-8")
    value = json.loads(text)
    noise = {e["metric"]: PairedEffect.model_validate(e) for e in value.get("noise", [])}
    same = True
    for kind in ("primary", "secondary", "noise"):
        for entry in value.get(kind, []):
            effect = PairedEffect.model_validate(entry)
            said = sentence(effect, noise.get(effect.metric) if kind == "primary" else None)
            same = same and said == entry["sentence"]
            entry["sentence"] = said
    if write and not same:
        _write(path, value, on_one_line=text.count("\n") == 1)
    return same


def read_results(folder: Path, order: Sequence[str], kind: type[_R]) -> list[_R]:
    """Return the results that there are, in this order of names."""
    paths = [folder / f"{name}.json" for name in order]
    return [
        kind.model_validate_json(path.read_text(encoding="utf-8"))
        for path in paths
        if path.is_file()
    ]
