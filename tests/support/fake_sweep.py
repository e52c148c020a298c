"""A trade-off curve that nobody measured, with the shape that real ones have."""

from __future__ import annotations

from rewarm.records.merging import MergeSweep, SweptPoint, TradeOff


def make_sweep(*, chosen: float = 0.5, hostile: str = "") -> MergeSweep:
    points = []
    for k in range(5):
        weight = k / 4
        forgetting, adaptation = 0.6 * weight**2, 0.7 * (1 - (1 - weight) ** 2)
        points.append(
            SweptPoint(
                weight=weight,
                forgetting=TradeOff(
                    value=forgetting,
                    low=forgetting - 0.02 * weight,
                    high=forgetting + 0.03 * weight,
                ),
                adaptation=TradeOff(value=adaptation, low=None, high=None)
                if k == 3
                else TradeOff(value=adaptation, low=adaptation - 0.01, high=adaptation + 0.01),
            )
        )
    return MergeSweep(
        sweep="ab" * 32,
        method="linear interpolation",
        base=hostile or "base",
        model=hostile or "medical, step 1,000",
        step=1000,
        old_domains=(hostile or "web",),
        new_domains=("papers",),
        points=tuple(points),
        rule="the knee: the largest difference of shares",
        chosen=chosen,
        reason="75 % of the adaptation for 25 % of the forgetting",
    )
