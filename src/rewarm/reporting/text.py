"""What pages and terminals share of text: no character that they cannot show."""

from __future__ import annotations

import re

__all__ = ["clean"]

# Characters that XML forbids, and halves of surrogate pairs, which UTF-8 cannot hold.
_UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def clean(value: str) -> str:
    """Return the text with what no page can hold shown as U+FFFD."""
    return _UNSHOWABLE.sub("\N{REPLACEMENT CHARACTER}", value)
