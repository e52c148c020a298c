"""datatrove without its words on the terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = ["without_a_word"]


@contextlib.contextmanager
def without_a_word() -> Iterator[None]:
    """Let nothing that datatrove logs reach the terminal: a bar is there."""
    from loguru import logger

    logger.disable("datatrove")
    try:
        yield
    finally:
        logger.enable("datatrove")
