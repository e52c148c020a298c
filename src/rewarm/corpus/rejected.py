"""When too much of a source is rejected, and what a person can do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rewarm.corpus.records import is_curated
from rewarm.errors import CorpusError

__all__ = ["check_rejected"]

_MAX_REJECTED_SHARE = 0.01
# Source trees are full of empty files.
_HARMLESS = ("empty",)


def check_rejected(
    name: str,
    num_documents: int,
    rejected: Counter[str],
    examples: Sequence[str],
    *,
    shown: Path | None = None,
) -> None:
    """Raise CorpusError where nothing is left of a source, or above 1 % of it is rejected.

    What is empty, and what curation leaves out, does not count: there is nothing in it to mend.
    `shown` is where some of what was
    rejected can be looked at.
    """
    look = "" if shown is None else f"; some of them are in {shown}"
    harmful = sum(count for reason, count in rejected.items() if not _is_harmless(reason))
    total = num_documents + harmful
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(rejected.items()))
    if num_documents == 0:
        raise CorpusError.one(
            f"sources.{name}",
            f"no document could be taken ({reasons or 'all of its files are empty'})"
            + (f", e.g. {'; '.join(examples[:3])}" if examples else ""),
            _remedy(rejected) + look,
        )
    if harmful > _MAX_REJECTED_SHARE * total:
        raise CorpusError.one(
            f"sources.{name}",
            f"{harmful} of {total} documents are rejected ({reasons}), above 1 %; "
            f"e.g. {'; '.join(examples[:3])}",
            _remedy(rejected) + look,
        )


def _is_harmless(reason: str) -> bool:
    return reason in _HARMLESS or is_curated(reason)


_REMEDIES = {
    "bom": "save the files without byte-order marks (U+FEFF)",
    "file_too_large": "write files above 256 MiB as jsonl, one document a line",
    "line_too_long": "split records above 64 MiB, or look for a quote that is never closed",
    "malformed_csv": 'check the quotes (csv.quoted = false where " is text) and csv.delimiter',
    "malformed_json": "write one JSON object a line",
    "wrong_number_of_fields": "check csv.delimiter and the quotes around fields that hold it",
    "needs_tools": "take out conversations that call tools: they are not rendered",
    "no_answer": "take out conversations without an answer of the assistant's",
    "not_a_list": "give messages as a list of {role, content}",
    "not_a_message": "give every message a role (or from) and a content (or value)",
    "not_a_prefix": "the template rewrites earlier turns: mark answers in it with "
    "{% generation %}, or keep conversations of one answer",
    "template_refuses": "bring the messages into the order that the base's template takes",
    "unknown_role": "name roles system, user (human), assistant (gpt) or tool",
    "invalid_utf8": "convert the files to UTF-8",
    "missing_field": "set text_field (group_field, question_field, answer_field) to what it has",
    "not_a_string": "set text_field to a field that holds text",
    "not_an_object": "write one JSON object a line",
    "special_token": "take the names of the tokenizer's special tokens out of the text",
}


def _remedy(rejected: Counter[str]) -> str:
    """Return what to do about the most frequent reason."""
    reasons = [reason for reason, _ in rejected.most_common() if not _is_harmless(reason)]
    if not reasons and any(map(is_curated, rejected)):
        return "look at them, and set its curate accordingly"
    return _REMEDIES.get(
        reasons[0] if reasons else "", "mend or leave out these documents, or check path and format"
    )
