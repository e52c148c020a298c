"""What a run comes to beside other runs from its base: a control's, and a joint training's."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rewarm.records.curves import DomainCurve
from rewarm.records.facts import Metric, Record, Role

__all__ = ["AgainstControl", "AgainstOthers", "LayerChange", "RecoveredFraction", "WeightChange"]


class AgainstControl(Record):
    """A domain's gap with the same figure of a control run taken off, at the steps of both.

    With w how much worse a run's figure is than the base's, all is of w - w of the control.
    """

    domain: str
    role: Role | Literal["task"]
    metric: Metric
    num_steps: int = Field(description="evaluations that both have")
    num_items: int
    depth: float = Field(description="largest excess; 0 or more")
    steps_to_peak: int
    area: float = Field(description="sum of the positive excess, times updates")
    forgetting: float = Field(description="excess at the last step of both")
    last_step: int
    low: float | None = Field(description="95 % interval of `forgetting`, over the items")
    high: float | None


class RecoveredFraction(Record):
    """(base - run) / (base - joint): 1 where a run has come as far as training on everything."""

    domain: str
    role: Role | Literal["task"]
    metric: Metric
    base: float
    run: float
    joint: float
    fraction: float | None = Field(
        description="None where joint training is not better than the base on these items"
    )
    low: float | None = Field(description="95 % interval, over the items")
    high: float | None
    reason: str = Field("", description="why there is no fraction, or no interval")


class AgainstOthers(Record):
    """What `rewarm evaluate --control --joint` found; `against.json` of a run."""

    control: str | None = Field(None, description="the control's run folder")
    joint: str | None = Field(None, description="the jointly trained run's folder")
    gaps: tuple[AgainstControl, ...] = ()
    control_curves: tuple[DomainCurve, ...] = Field(
        (), description="the control's, of the domains of `gaps`"
    )
    recovered: tuple[RecoveredFraction, ...] = ()
    warnings: tuple[str, ...] = ()


class LayerChange(Record):
    """How far the weights of a layer (or of what belongs to none) are from the base's."""

    layer: int | None = Field(description="None: embeddings, last norm, head")
    relative: float = Field(description="|weights - base's| / |base's|, Frobenius norms")


class WeightChange(Record):
    """How far a run's weights have gone from the base's after `step` updates."""

    step: int
    layers: tuple[LayerChange, ...]

    def ends(self, count: int = 5) -> tuple[float, float] | None:
        """Return the means over the lowest and the topmost layers, `count` of each.

        Of fewer than twice as many layers, half of them each; None for fewer than two.
        """
        of_layers = [one.relative for one in self.layers if one.layer is not None]
        each = min(count, len(of_layers) // 2)
        if not each:
            return None
        return sum(of_layers[:each]) / each, sum(of_layers[-each:]) / each
