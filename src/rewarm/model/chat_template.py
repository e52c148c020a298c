"""Writes messages as a model's own chat template does, through the library that it is for."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from rewarm.model.load import quiet_transformers

__all__ = ["FolderTemplate", "chat_renderer"]

# Some templates write today's date. A measure must score the same text on every day, and what the
# library hands to templates cannot be replaced from outside: a macro of the name goes before it.
_DATE = "%Y=2025 %y=25 %m=01 %d=01 %e=1 %H=12 %M=00 %S=00 %b=Jan %B=January %a=Wed %A=Wednesday"
_FIXED_DATE = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join("|replace({!r}, {!r})".format(*pair.split("=")) for pair in _DATE.split())
    + " }}{%- endmacro -%}"
)


_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")


class FolderTemplate:
    """The chat template of a tokenizer; made by `chat_renderer`. It runs in the library's sandbox.

    What the template refuses is a ValueError.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._template = _FIXED_DATE + tokenizer.get_chat_template()

    @property
    def marks_answers(self) -> bool:
        """Whether it says itself which characters are answers: {% generation %}."""
        return _MARKS.search(self._template) is not None

    def __call__(self, messages: Sequence[Mapping[str, str]], begin_answer: bool, /) -> str:
        """Return the text of messages, with `begin_answer` up to where an answer would begin."""
        with _told():
            return str(
                self._tokenizer.apply_chat_template(
                    [dict(message) for message in messages],
                    tokenize=False,
                    add_generation_prompt=begin_answer,
                    chat_template=self._template,
                )
            )

    def marked(self, messages: Sequence[Mapping[str, str]], /) -> tuple[str, list[tuple[int, int]]]:
        """Return the text of messages and the characters [first, last) of each marked answer."""
        from transformers.utils.chat_template_utils import render_jinja_template

        with _told():
            texts, spans = render_jinja_template(
                conversations=[[dict(message) for message in messages]],
                chat_template=self._template,
                return_assistant_tokens_mask=True,
                **self._tokenizer.special_tokens_map,
            )
        return str(texts[0]), [(int(first), int(last)) for first, last in spans[0]]


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (jinja2.TemplateError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"the template refuses the messages ({error})") from error


def chat_renderer(folder: Path) -> FolderTemplate:
    """Return the template of a folder: (messages, whether an answer is to be begun) → text.

    Raises ValueError where the tokenizer cannot be loaded or has no template.
    """
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            tokenizer: Any = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # the library raises whatever a folder leads it to
        raise ValueError(f"transformers cannot load its tokenizer ({error})") from error
    return FolderTemplate(tokenizer)
