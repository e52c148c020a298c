"""Reads what was kept of rejected documents: `rejects.jsonl` of a prepared folder, and of folders
in it that say which documents are dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rewarm.artifacts import parse_json, read_json_lines
from rewarm.corpus.records import Reject
from rewarm.records.facts import CorpusFacts

__all__ = ["REJECTED", "counted_rejects", "read_rejects"]

REJECTED = "rejects.jsonl"


def read_rejects(folder: Path, *, most: int, reason: str | None = None) -> list[Reject]:
    """Return up to `most` rejected documents of each reason (of one reason alone, where it is
    given), by reason; lines that are torn or are something else are passed over."""
    found: dict[str, list[Reject]] = {}
    for value in _lines(folder):
        if not isinstance(value, dict):
            continue
        reject = Reject(
            str(value.get("where", "")), str(value.get("reason", "")), str(value.get("excerpt", ""))
        )
        of_reason = found.setdefault(reject.reason, [])
        if reason in (None, reject.reason) and len(of_reason) < most:
            of_reason.append(reject)
    return [reject for name in sorted(found) for reject in found[name]]


def _lines(folder: Path) -> Iterator[Any]:
    """Yield the lines of all logs; one after another, so that memory does not grow with them."""
    shards = [] if (folder / REJECTED).is_file() else sorted(folder.glob(f"shard-*.{REJECTED}"))
    for path in (folder / REJECTED, *shards, *sorted(folder.glob(f"*/*/{REJECTED}"))):
        yield from read_json_lines(path)


def counted_rejects(folder: Path, facts: CorpusFacts | None) -> Mapping[str, int]:
    """Return how many documents were rejected, by reason.

    Without facts (too much was rejected, or `prepare` was stopped) it is those of the shards that
    are there.
    """
    if facts is not None:
        return facts.rejected
    counts = Counter[str]()
    for path in sorted(folder.glob("shard-*.json")):
        try:
            counts.update(parse_json(path.read_bytes())["rejected"])
        except (OSError, ValueError, LookupError, TypeError):
            continue  # half-written: `prepare` makes it again
    return counts
