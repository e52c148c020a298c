"""What pages and terminals share of text: no character that they cannot show, none that acts."""

from __future__ import annotations

import re

__all__ = ["clean", "harmless"]

# Characters that XML forbids, and halves of surrogate pairs, which UTF-8 cannot hold.
_UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
# What acts rather than shows: control characters of both sets (a terminal obeys them), marks that
# turn the direction of what follows, line separators that only some programs know, what has no
# width, tags, and what no page can hold. Line feeds and tabs stay, and the joiners of scripts.
_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\ufffe\uffff\U000e0000-\U000e007f]"
)
_PICTURES = 0x2400
_DELETE, _PICTURE_OF_DELETE = 0x7F, "\N{SYMBOL FOR DELETE}"


def clean(value: str) -> str:
    """Return the text with what no page can hold shown as U+FFFD."""
    return _UNSHOWABLE.sub("\N{REPLACEMENT CHARACTER}", value)


def harmless(value: str) -> str:
    """Return the text with every character that would act, and not show, made visible.

    >>> harmless("\x1b[31mred\x9b0m \u202etxt")
    '␛[31mred⟨U+009B⟩0m ⟨U+202E⟩txt'
    """
    return _ACTING.sub(_visible, value)


def _visible(found: re.Match[str]) -> str:
    number = ord(found[0])
    if number == _DELETE:
        return _PICTURE_OF_DELETE
    return chr(_PICTURES + number) if number < 0x20 else f"⟨U+{number:04X}⟩"
