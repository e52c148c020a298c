"""Writes messages as a model's own chat template does, through the library that it is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from rewarm.model.load import quiet_transformers

__all__ = ["chat_renderer"]

# Some templates write today's date. A measure must score the same text on every day, and what the
# library hands to templates cannot be replaced from outside: a macro of the name goes before it.
_DATE = "%Y=2025 %y=25 %m=01 %d=01 %e=1 %H=12 %M=00 %S=00 %b=Jan %B=January %a=Wed %A=Wednesday"
_FIXED_DATE = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join("|replace({!r}, {!r})".format(*pair.split("=")) for pair in _DATE.split())
    + " }}{%- endmacro -%}"
)


def chat_renderer(folder: Path) -> Callable[[Sequence[Mapping[str, str]], bool], str]:
    """Return (messages, whether an answer is to be begun) → text, by the folder's template.

    Templates run in the library's sandbox. Raises ValueError where the tokenizer cannot be loaded;
    what is returned raises it where the template refuses the messages.
    """
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            tokenizer: Any = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # the library raises whatever a folder leads it to
        raise ValueError(f"transformers cannot load its tokenizer ({error})") from error

    def render(messages: Sequence[Mapping[str, str]], begin_answer: bool) -> str:
        try:
            text = tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=begin_answer,
                chat_template=_FIXED_DATE + tokenizer.get_chat_template(),
            )
        except (jinja2.TemplateError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"the template refuses the messages ({error})") from error
        return str(text)

    return render
