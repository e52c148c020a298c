"""The rule that picks a point of the curve, on curves whose answer is known beforehand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from rewarm.evaluation.trade_off import (
    choose_weight,
    mean_change,
    new_verdicts,
    old_verdicts,
    rule_in_words,
    swept_point,
)
from rewarm.records.facts import EvalRecord, Metric, Role
from rewarm.records.merging import SweptPoint, TradeOff


def point(
    weight: float, forgetting: float, adaptation: float, half: float | None = 0.0
) -> SweptPoint:
    def change(value: float) -> TradeOff:
        ends = (None, None) if half is None else (value - half, value + half)
        return TradeOff(value=value, low=ends[0], high=ends[1])

    return SweptPoint(weight=weight, forgetting=change(forgetting), adaptation=change(adaptation))


def record(
    domain: str, role: Role, step: int, nats: Sequence[float], metric: Metric = "bits_per_byte"
) -> EvalRecord:
    weights = (10,) * len(nats)
    return EvalRecord(
        step=step,
        domain=domain,
        role=role,
        metric=metric,
        value=sum(nats) / sum(weights) / math.log(2),
        standard_error=None,
        item_values=tuple(nats),
        item_weights=weights,
        items_key=domain,
        seconds=0.0,
    )


# The knee


def test_the_knee_of_a_quarter_circle_is_its_middle() -> None:
    """F = 1 − cos, A = sin over a quarter: the chord is farthest at 45°."""
    points = [
        point(k / 10, 3.0 * (1 - math.cos(k * math.pi / 20)), 7.0 * math.sin(k * math.pi / 20))
        for k in range(11)
    ]
    assert choose_weight(points) == (0.5, "71 % of the adaptation for 29 % of the forgetting")
    # Whatever the units of the two axes, and whatever the order in which points are given.
    scaled = [point(p.weight, p.forgetting.value * 9, p.adaptation.value / 9) for p in points]
    assert choose_weight(scaled[::-1]).weight == 0.5


def test_shares_are_of_the_most_at_any_weight_not_of_the_end() -> None:
    """Beyond 0.6 the new text gets worse again: the end is not the yardstick."""
    points = [point(0, 0, 0), point(0.3, 0.05, 0.5), point(0.6, 0.5, 1.0), point(1, 1.0, 0.4)]
    assert choose_weight(points) == (0.6, "100 % of the adaptation for 50 % of the forgetting")


def test_of_equals_the_smallest_weight_is_chosen() -> None:
    points = [point(0, 0, 0), point(0.25, 0.0, 0.5), point(0.75, 0.5, 1.0), point(1, 1, 1)]
    assert choose_weight(points).weight == 0.25


@pytest.mark.parametrize(
    ("points", "weight", "reason"),
    [
        ([point(0, 0, 0), point(0.5, -0.1, 0.5), point(1, -0.05, 0.9)], 1.0, "forgot anything"),
        ([point(0, 0, 0), point(0.5, 0.1, -0.2), point(1, 0.5, -0.4)], 0.0, "learned anything"),
        (
            [point(0, 0, 0), point(0.5, 0.8, 0.1), point(1, 1, 0.5)],
            0.0,
            "at no weight is the share",
        ),
        ([point(0, 0, 0)], 0.0, "learned anything"),
    ],
)
def test_curves_without_a_knee(points: list[SweptPoint], weight: float, reason: str) -> None:
    chosen = choose_weight(points)
    assert chosen.weight == weight
    assert reason in chosen.reason


# A tolerance


CURVE = [point(0, 0, 0), point(0.25, 0.004, 0.3, 0.004), point(0.5, 0.009, 0.6, 0.004),
         point(0.75, 0.008, 0.5, 0.001), point(1, 0.3, 1.0, 0.01)]  # fmt: skip


def test_the_whole_interval_has_to_stay_within_the_tolerance() -> None:
    assert choose_weight(CURVE, 0.01).weight == 0.75  # 0.5 learned more, but reaches 0.013
    assert choose_weight(CURVE, 0.013).weight == 0.5
    assert choose_weight(CURVE, 1.0).weight == 1.0
    chosen = choose_weight(CURVE, 0.005)
    assert chosen.weight == 0.0
    assert "no other weight stays within the tolerance" in chosen.reason


def test_what_improved_is_told_with_a_minus() -> None:
    points = [point(0, 0, 0), point(1, -0.2, 1.0, 0.05)]
    assert (
        choose_weight(points, 0.0).reason == "1.000 bits per byte learned, at most −0.150 forgotten"
    )


def test_without_an_interval_nothing_is_within_a_tolerance() -> None:
    points = [point(0, 0, 0, None), point(1, 0.0, 1.0, None)]
    assert choose_weight(points, 0.5).weight == 0.0
    assert choose_weight(points).weight == 1.0


def test_the_rule_is_told_with_its_number() -> None:
    assert "0.02 bits per byte with its whole 95 % interval" in rule_in_words(0.02)
    assert rule_in_words(None).startswith("the knee")


# From records to points


def test_a_point_is_the_mean_over_domains_of_a_kind() -> None:
    base = [
        record("a", "general", 0, [10.0] * 8),
        record("b", "replay", 0, [20.0] * 8),
        record("n", "new", 0, [30.0] * 8),
        record("q", "qa", 0, [40.0] * 8),
        record("chat", "general", 0, [1.0] * 8, "chat_bits_per_byte"),
    ]
    merged = [
        record("a", "general", 9, [11.0, 12.0] * 4),
        record("b", "replay", 9, [23.0] * 8),
        record("n", "new", 9, [26.0] * 8),
        record("q", "qa", 9, [99.0] * 8),
        record("chat", "general", 9, [50.0] * 8, "chat_bits_per_byte"),
    ]
    found = swept_point(0.5, base, merged)
    assert found is not None
    per_byte = 1 / 10 / math.log(2)
    assert found.forgetting.value == pytest.approx((1.5 + 3.0) / 2 * per_byte)
    assert found.adaptation.value == pytest.approx(4.0 * per_byte)
    assert found.forgetting.low is not None
    assert found.forgetting.low < found.forgetting.value
    # All differences of n are equal: their bootstrap has no width.
    for end in (found.adaptation.low, found.adaptation.high):
        assert end == pytest.approx(found.adaptation.value)
    # Without other new text, questions stand in for it.
    no_new = [[r for r in records if r.domain != "n"] for records in (base, merged)]
    found = swept_point(0.5, *no_new)
    assert found is not None
    assert found.adaptation.value == pytest.approx(-59.0 * per_byte)
    assert swept_point(0.5, base[2:], merged[2:]) is None
    assert swept_point(0.5, base[:2], merged[:2]) is None


def test_the_mean_of_no_domain_is_none() -> None:
    assert mean_change([]) is None
    assert old_verdicts([]) == new_verdicts([]) == []
