"""What a sweep over the weight of a merge measured, and which weight was chosen by which rule."""

from __future__ import annotations

from pydantic import Field

from rewarm.records.facts import EvalRecord, Record

__all__ = ["MergePoint", "MergeSweep", "SweptPoint", "TradeOff"]


class MergePoint(Record):
    """All measures of one merged model; one line of `merge_points.jsonl`."""

    sweep: str = Field(description="fingerprint of the models, the method and the stored type")
    weight: float
    records: tuple[EvalRecord, ...]


class TradeOff(Record):
    """A change against the base in bits per byte, the mean over domains of one kind.

    The 95 % interval is evaluation noise; None where a domain has too few items for one.
    """

    value: float
    low: float | None
    high: float | None


class SweptPoint(Record):
    """What the model merged at one weight forgot (above the base) and learned (below it)."""

    weight: float
    forgetting: TradeOff
    adaptation: TradeOff


class MergeSweep(Record):
    """The trade-off curve of old against new loss, as it stands in `merge_sweep.json`."""

    sweep: str
    method: str
    base: str
    model: str
    step: int = Field(description="updates that the model has had")
    old_domains: tuple[str, ...]
    new_domains: tuple[str, ...]
    points: tuple[SweptPoint, ...] = Field(description="in order of the weight")
    rule: str = Field(description="how the weight is chosen, stated before anything was measured")
    chosen: float
    reason: str
