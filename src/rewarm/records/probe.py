"""What a probe of the machine at hand has measured for one plan."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rewarm.records.facts import Record

__all__ = ["Checkpointing", "Probe", "Trial"]

Checkpointing = Literal["none", "selective", "full"]
"""How much of a block's activations is computed again in the backward pass."""


class Trial(Record):
    """A few steps of a plan, laid on the machine in one way, in a process of their own."""

    micro_batch_sequences: int
    checkpointing: Checkpointing
    fits: bool = Field(description="it ran, and its peaks are below the limit")
    why: str = Field("", description="what went wrong, where it did not run")
    num_steps: int = Field(0, description="that were measured, after those that warm up")
    step_s: float = Field(0.0, description="median seconds from one step's end to the next one's")
    slowest_step_s: float = 0.0
    peak_bytes: int = Field(0, description="of the process in its steps, on the device that trains")
    other_peak_bytes: int = Field(0, description="before and after them: loading, evaluation, save")
    process_bytes: int = Field(0, description="of those, what it took before it had a model")
    steps_bytes: int | None = Field(
        None,
        description="what steps take at most beside the process's own, on a GPU of tensors; None: "
        "the system does not tell them apart, or the record is older",
    )
    predicted_bytes: int = Field(0, description="peak without the process's own, by the estimate")
    start_s: float = Field(0.0, description="from the command to the first step")
    evaluation_tokens: int = Field(0, description="of the evaluation that was measured")
    evaluation_s: float = 0.0
    checkpoint_bytes: int = 0
    checkpoint_s: float = Field(0.0, description="seconds that a step waits for a save")
    watts: float | None = Field(None, description="mean power while it stepped, where it is told")


class Probe(Record):
    """The trials of one plan on one machine, and which of them a launch takes over."""

    key: str = Field(description="fingerprint of all that decides what a step costs")
    device: str
    device_name: str
    num_threads: int | None
    limit_bytes: int = Field(description="memory that a launch may take")
    tokens_per_step: int
    trials: tuple[Trial, ...]
    chosen: int = Field(description="which trial")

    @property
    def best(self) -> Trial:
        """The fastest that fits."""
        return self.trials[self.chosen]
