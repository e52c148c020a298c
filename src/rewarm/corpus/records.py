"""A record (a JSON object, a row of a table) to a document, or the reason why it is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rewarm.corpus.conversations import Message, read_messages
from rewarm.recipe.sources import SourceRecipe

__all__ = ["Document", "Reject", "Rejections", "document_of", "unfit"]

_NUM_EXAMPLES = 3
_KEPT_PER_REASON = 20
_EXCERPT_CHARACTERS = 500
_TAG_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Document:
    """One document; `group` is what the held-out split keeps together, where the source has it.

    Of a conversation `text` is empty until a chat template has written its `messages`. `language`
    and `licence` are what fields of its own say of it.
    """

    id: str
    text: str
    group: str | None = None
    question: str | None = None
    answer: str | None = None
    messages: tuple[Message, ...] = ()
    language: str | None = None
    licence: str | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """One document that was not taken: where it stands, why, and how it begins."""

    where: str
    reason: str
    excerpt: str


@dataclass(slots=True)
class Rejections:
    """Documents that were not taken, by reason, with the first ones of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    kept: list[Reject] = field(default_factory=list)

    def joined(self, others: Rejections) -> Rejections:
        """Return these and then the others, as if all had been added here."""
        kept = [
            reject
            for reason in dict.fromkeys(one.reason for one in (*self.kept, *others.kept))
            for reject in [one for one in (*self.kept, *others.kept) if one.reason == reason][
                :_KEPT_PER_REASON
            ]
        ]
        examples = [*self.examples, *others.examples][:_NUM_EXAMPLES]
        return Rejections(self.counts + others.counts, examples, kept)

    def add(self, reason: str, where: str, content: object = "") -> None:
        """Count one rejected document; of the first of each reason the beginning is kept."""
        self.counts[reason] += 1
        if len(self.examples) < _NUM_EXAMPLES:
            self.examples.append(f"{where} ({reason})")
        if self.counts[reason] <= _KEPT_PER_REASON:
            self.kept.append(Reject(where, reason, _excerpt(content)))


def _excerpt(content: object) -> str:
    """Return how something begins, as text that can be written as UTF-8."""
    if isinstance(content, bytes):
        return content[:_EXCERPT_CHARACTERS].decode("utf-8", "backslashreplace")
    # A row may hold megabytes: no more of it is spelled out than is kept.
    if isinstance(content, Mapping):
        content = {str(key): _begin(value) for key, value in list(content.items())[:20]}
    text = content if isinstance(content, str) else repr(content)
    return text[:_EXCERPT_CHARACTERS].encode("utf-8", "backslashreplace").decode("utf-8")


def _begin(value: object) -> object:
    if isinstance(value, str | bytes):
        return value[:_EXCERPT_CHARACTERS]
    return value if isinstance(value, int | float | bool | None) else type(value).__name__


def document_of(value: Mapping[str, Any], source: SourceRecipe, where: str) -> Document | str:
    """Return the document of a record, or the reason why it is rejected."""
    question = answer = None
    if source.question_field is not None and source.answer_field is not None:
        question, answer = value.get(source.question_field), value.get(source.answer_field)
        if question is None or answer is None:
            return "missing_field"
        reason = unfit(question) or unfit(answer)
        if reason is not None:
            return reason
    messages: tuple[Message, ...] = ()
    text: Any = ""
    if source.format == "chat":
        found = read_messages(value, source.messages_field)
        if isinstance(found, str):
            return found
        messages = found
        reasons = (unfit(message["content"], may_be_empty=True) for message in messages)
        reason = next((reason for reason in reasons if reason is not None), None)
    else:
        text = value.get(source.text_field)
        if text is None and question is not None:
            text = f"Question: {question}\nAnswer: {answer}"
        reason = "missing_field" if text is None else unfit(text)
    if reason is not None:
        return reason
    group = None
    if source.group_field is not None:
        group = value.get(source.group_field)
        if group is None:
            return "missing_field"
    identity = value.get("id")
    if identity is None or identity == "":
        identity = where
    return Document(
        _printable(identity),
        text,
        None if group is None else _printable(group),
        question,
        answer,
        messages,
        _tag(value, source.language_field),
        _tag(value, source.licence_field),
    )


def _tag(value: Mapping[str, Any], name: str | None) -> str | None:
    """Return what a record says of its language or licence, cut where it is no tag; None where no
    field is named, empty where it says nothing."""
    if name is None:
        return None
    said = value.get(name)
    return "" if said is None else _printable(said).strip()[:_TAG_CHARACTERS]


def _printable(value: object) -> str:
    """Return an id, group or tag as text that can be written as UTF-8."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def unfit(text: object, *, may_be_empty: bool = False) -> str | None:
    """Return the reason why a text cannot be a document; None where it can."""
    if not isinstance(text, str):
        return "not_a_string"
    if not text.strip() and not may_be_empty:
        return "empty"
    if "\x00" in text:
        return "nul"
    if "\ufeff" in text:  # at the start a mark of the file's, inside one of files joined blindly
        return "bom"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "lone_surrogate"
    return None
