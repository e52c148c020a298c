"""What turns a source's documents into tokens, by what the source holds."""

from __future__ import annotations

from rewarm.corpus.chat import ChatEncoder, OpenChat
from rewarm.corpus.documents import DocumentEncoder, TextEncoder
from rewarm.corpus.place import SourceText
from rewarm.corpus.tokenize import Encoder
from rewarm.errors import BaseModelError

__all__ = ["document_encoder"]


def document_encoder(
    text: SourceText, encoder: Encoder, open_chat: OpenChat | None
) -> DocumentEncoder:
    """Return what encodes the documents of a source.

    Raises BaseModelError where conversations cannot be written: no template that can be loaded.
    """
    if text.source.format != "chat":
        return TextEncoder(encoder)
    assert open_chat is not None, "whoever prepares conversations hands in how to open a template"
    try:
        template = open_chat(text.tokenizer_folder)
    except ValueError as error:
        raise BaseModelError.one(
            f"sources.{text.name}.format",
            f"conversations cannot be written: {error}",
            "use a base that was tuned on chats, or put a chat_template.jinja into its folder",
        ) from error
    return ChatEncoder(encoder, template)
