"""What both ways of cutting a source into windows make of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rewarm.records.facts import Record

__all__ = ["WAYS", "Packing", "PackingFacts", "Windows"]

Packing = Literal["contiguous", "best-fit"]
"""contiguous: windows are cut from the documents in a row; best-fit: documents are packed into
windows, and cut only where they are longer than one."""


WAYS: tuple[Packing, ...] = ("contiguous", "best-fit")


class Windows(Record):
    """One way's windows of a source."""

    num_windows: int
    num_text_tokens: int = Field(description="inputs that are text, each with its label")
    num_cut: int = Field(description="documents that an edge between windows cuts")

    def padding_share(self, sequence_length: int) -> float:
        """Return which share of the windows' inputs is no text."""
        num_inputs = self.num_windows * sequence_length
        return 1 - self.num_text_tokens / num_inputs if num_inputs else 0.0


class PackingFacts(Record):
    """Contiguous and best-fit windows of one prepared source, side by side."""

    sequence_length: int
    num_documents: int
    num_long: int = Field(description="documents longer than a window: every way cuts them")
    num_tokens: int = Field(description="training tokens; the last one is a label only")
    contiguous: Windows
    best_fit: Windows
    fingerprint: str = Field(description="of the bin index")

    def way(self, packing: Packing) -> Windows:
        """Return the windows of one way."""
        return self.contiguous if packing == "contiguous" else self.best_fit
