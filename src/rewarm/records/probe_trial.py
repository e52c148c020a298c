"""What is asked of one trial of a probe, and what it answers, between two processes."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from rewarm.records.facts import Record
from rewarm.records.probe import Checkpointing, Trial

__all__ = ["TrialReply", "TrialRequest"]


class TrialRequest(Record):
    """One way to lay a plan on the machine; `folder` holds plan.json, and is thrown away.

    Without a way it is the one that a launch takes where nothing was probed.
    """

    folder: str
    micro_batch_sequences: int | None = None
    checkpointing: Checkpointing | None = None
    measures_all: bool = Field(description="evaluation and checkpoint too")


class TrialReply(Record):
    """What one came to; `placement` is a `Placement`'s own form.

    It is written before the first step, as of a trial that was killed, and again after the last.
    """

    trial: Trial
    placement: dict[str, Any]
    limit_bytes: int
    num_trained: int = Field(description="parameters; all of the model's where it was not loaded")
