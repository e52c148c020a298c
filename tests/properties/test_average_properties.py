"""What every average of models keeps to, whatever the numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rewarm.model.average import Linear, Merge, Spherical, slerp_weights, weighted_sum
from rewarm.stages.merge_methods import task_arithmetic_weights
from tests.support.memory_weights import MemoryWeights, merged

Floats = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64])


@st.composite
def tensors(draw: st.DrawFn, count: int) -> list[Tensor]:
    size = draw(st.integers(1, 7))
    numbers = st.floats(-6e4, 6e4, width=32)
    dtype = draw(DTYPES)
    return [
        torch.tensor(draw(st.lists(numbers, min_size=size, max_size=size))).to(dtype)
        for _ in range(count)
    ]


def bits(tensor: Tensor) -> bytes:
    """The very bytes: −0 is another number than 0, and a subnormal is not 0."""
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def merged_tensor(tensors: list[Tensor], rule: Linear | Spherical) -> Tensor:
    return merged(Merge(tuple(MemoryWeights({"w": t}) for t in tensors), rule))["w"]


@given(tensors(2))
def test_the_ends_are_base_and_model_bit_for_bit(pair: list[Tensor]) -> None:
    base, other = pair
    for rules in ((Linear((1.0, 0.0)), Linear((0.0, 1.0))), (Spherical(0.0), Spherical(1.0))):
        assert bits(merged_tensor(pair, rules[0])) == bits(base)
        assert bits(merged_tensor(pair, rules[1])) == bits(other)


@given(tensors(3))
def test_one_task_vector_at_one_is_the_other_model(three: list[Tensor]) -> None:
    base, other, third = three
    assert bits(merged_tensor([base, other], Linear(task_arithmetic_weights((1.0,))))) == bits(
        other
    )
    weights = task_arithmetic_weights((0.0, 1.0))
    assert bits(merged_tensor([base, other, third], Linear(weights))) == bits(third)
    weights = task_arithmetic_weights((0.0, 0.0))
    assert bits(merged_tensor([base, other, third], Linear(weights))) == bits(base)


@given(tensors(1), st.integers(2, 9))
def test_an_average_of_one_model_with_itself_is_the_model(one: list[Tensor], count: int) -> None:
    rule = Linear((1.0,) * count, float(count))
    found = merged_tensor(one * count, rule)
    assert torch.equal(found, one[0])


@given(
    st.lists(
        st.lists(st.integers(-(2**20), 2**20), min_size=3, max_size=3), min_size=2, max_size=6
    ),
    st.randoms(use_true_random=False),
)
def test_an_average_does_not_depend_on_the_order(rows: list[list[int]], random: object) -> None:
    """On a grid of float32 the sum is exact, so that not even the last bit may depend on it."""
    models = [torch.tensor(row, dtype=torch.float32) / 2**12 for row in rows]
    rule = Linear((1.0,) * len(models), float(len(models)))
    found = merged_tensor(models, rule)
    random.shuffle(models)  # type: ignore[attr-defined]
    assert bits(merged_tensor(models, rule)) == bits(found)
    assert np.allclose(found.numpy(), np.mean(rows, axis=0) / 2**12, rtol=1e-7, atol=1e-7)


@given(tensors(3), st.floats(0, 1), st.floats(0, 1))
def test_a_convex_average_stays_between_its_models(
    three: list[Tensor], first: float, second: float
) -> None:
    weights = (first * second, first * (1 - second), 1 - first)
    total = weighted_sum(three, weights)
    stacked = torch.stack([t.double() for t in three])
    slack = 1e-12 * stacked.abs().max()
    assert (total <= stacked.max(0).values * sum(weights) + slack).all()
    assert (total >= stacked.min(0).values * sum(weights) - slack).all()


@given(st.floats(0.0, 1.0), st.floats(1e-3, math.pi - 1e-3), st.floats(1e-3, 1e3))
def test_spherical_interpolation_keeps_the_norm_of_equals(
    weight: float, angle: float, norm: float
) -> None:
    one = norm * np.array([1.0, 0.0])
    other = norm * np.array([math.cos(angle), math.sin(angle)])
    first, second = slerp_weights(weight, float(one @ other), norm, norm)
    point = first * one + second * other
    assert math.hypot(*point) == pytest.approx(norm, rel=1e-9)
    # At `weight` of the way, as an angle.
    turned = math.atan2(float(point[1]), float(point[0]))
    assert turned == pytest.approx(weight * angle, abs=1e-9)
    # From the other end it is the same point.
    back = slerp_weights(1.0 - weight, float(one @ other), norm, norm)
    assert back == pytest.approx((second, first), rel=1e-9, abs=1e-12)


@given(st.floats(0.0, 1.0), st.floats(1e-3, 1e3))
def test_parallel_tensors_are_taken_linearly(weight: float, scale: float) -> None:
    for cosine in (1.0, 1.0 - 1e-10, -1.0):
        found = slerp_weights(weight, cosine * scale, 1.0, scale)
        assert found == (1.0 - weight, weight)
    assert slerp_weights(weight, 0.0, 0.0, scale) == (1.0 - weight, weight)
    # Just beyond, the circle is the line but for what nobody sees: no jump between the two.
    near = slerp_weights(weight, (1.0 - 2e-8) * scale, 1.0, scale)
    assert near == pytest.approx((1.0 - weight, weight), abs=1e-8)
