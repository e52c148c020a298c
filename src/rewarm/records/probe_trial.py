"""What is asked of one trial of a probe, and what it answers, between two processes."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from rewarm.records.facts import Record
from rewarm.records.probe import Checkpointing, Trial

__all__ = ["TrialReply", "TrialRequest"]


class TrialRequest(Record):
    """One way to lay a plan on the machine; `folder` holds plan.json, and is thrown away."""

    folder: str
    micro_batch_sequences: int
    checkpointing: Checkpointing
    measures_all: bool = Field(description="evaluation and checkpoint too")


class TrialReply(Record):
    """What one came to; `placement` is a `Placement`'s own form."""

    trial: Trial
    placement: dict[str, Any] | None = None
    limit_bytes: int = 0
