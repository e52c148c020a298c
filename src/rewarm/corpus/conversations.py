"""Instruction data in the shapes that are usual, as messages with role and content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rewarm.artifacts import parse_json

__all__ = ["Message", "read_messages"]

_LISTS = ("messages", "conversations", "conversation")
_ROLES = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "tool": "tool",
}


Message = dict[str, str]
"""One turn: `role`, who speaks (system, developer, user, assistant, tool), and `content`."""


def read_messages(value: Mapping[str, Any], field: str | None) -> tuple[Message, ...] | str:
    """Return the messages of a record, or the reason why there are none that can be trained on.

    They stand in `field`, or in messages, conversations or conversation as a list (in a csv: its
    JSON), each with role (or from) and content (or value); or in prompt and completion, both texts
    or both lists. The last two name user and assistant by themselves. A conversation without an
    answer to something has nothing to learn from; what needs tools is not rendered.
    """
    found = _listed(value, field)
    if isinstance(found, str):
        return found
    messages: list[Message] = []
    for one in found:
        message = _message(one)
        if isinstance(message, str):
            return message
        messages.append(message)
    if value.get("tools"):
        return "needs_tools"
    if not any(message["role"] == "assistant" for message in messages[1:]):
        return "no_answer"
    return tuple(messages)


def _listed(value: Mapping[str, Any], field: str | None) -> Sequence[Any] | str:
    """Return what the record has as messages, one after the other, or why it has none."""
    name = field or next((name for name in _LISTS if value.get(name) is not None), None)
    if name is not None:
        return _as_list(value.get(name))
    prompt, completion = value.get("prompt"), value.get("completion")
    if prompt is None or completion is None:
        return "missing_field"
    if isinstance(prompt, str) and isinstance(completion, str):
        return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    asked, answered = _as_list(prompt), _as_list(completion)
    if isinstance(asked, str) or isinstance(answered, str):
        return "not_a_list"
    return [*asked, *answered]


def _as_list(value: Any) -> list[Any] | str:
    if value is None:
        return "missing_field"
    if isinstance(value, str):  # tables without lists have their JSON
        try:
            value = parse_json(value)
        except ValueError:
            return "malformed_json"
    return value if isinstance(value, list) else "not_a_list"


def _message(one: Any) -> Message | str:
    if not isinstance(one, dict):
        return "not_a_message"
    if one.get("tool_calls") or one.get("function_call"):
        return "needs_tools"
    role = one.get("role") if one.get("role") is not None else one.get("from")
    content = one.get("content") if one.get("content") is not None else one.get("value")
    if role is None or content is None:
        return "not_a_message"
    known = _ROLES.get(role.strip().lower()) if isinstance(role, str) else None
    if known is None:
        return "unknown_role"
    if isinstance(content, list):  # parts, as models that see pictures have them
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        written = [text for text in texts if isinstance(text, str)]
        if not written or len(written) < len(content):
            return "not_only_text"
        content = "".join(written)
    return {"role": known, "content": content} if isinstance(content, str) else "not_a_string"
