"""What a launch with --profile has measured of some steps."""

from __future__ import annotations

from pydantic import Field

from rewarm.records.facts import Record

__all__ = ["OperatorTime", "StepProfile"]


class OperatorTime(Record):
    """What a GPU's kernel took, or a CPU's operator or named part, what it called left out."""

    name: str
    calls: float = Field(description="a step")
    self_s: float = Field(description="seconds a step, on the device that trains")


class StepProfile(Record):
    """Where the time of consecutive steps went, in seconds a step."""

    first_step: int
    num_steps: int
    device_name: str
    step_s: float = Field(description="a step, its wait for data included")
    data_wait_s: float
    forward_s: float = Field(description="the loss included")
    backward_s: float
    optimizer_s: float = Field(description="retention's pulls, clipping and update")
    operators: tuple[OperatorTime, ...] = Field(description="the longest first")
    trace: str = Field(description="file beside this record, for perfetto or chrome://tracing")

    @property
    def rest_s(self) -> float:
        """What is none of these: counting labels, copies, the record; slower for being watched."""
        parts = (self.data_wait_s, self.forward_s, self.backward_s, self.optimizer_s)
        return max(0.0, self.step_s - sum(parts))
