"""The learning rate against arithmetic done another way: sums, scans, finite steps."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewarm.planning.schedule import (
    PieceSpec,
    Schedule,
    Shape,
    area_under,
    chain,
    cosine_fraction_below,
    first_step_below,
    joins,
    lr_at,
    lr_curve,
    scaled,
    warmup_spec,
    warmup_then_decay,
)

SHAPES: tuple[Shape, ...] = (
    "constant",
    "linear",
    "cosine",
    "1-sqrt",
    "inverse-sqrt",
    "exponential",
)


@st.composite
def _chains(draw: st.DrawFn) -> Schedule:
    """Any pieces one after the other, rising and falling, each from where the last one ended."""
    rate = draw(st.floats(1e-6, 1e-1))
    specs = []
    for _ in range(draw(st.integers(1, 5))):
        shape = draw(st.sampled_from(SHAPES))
        end = rate if shape == "constant" else draw(st.floats(1e-7, 1e-1))
        specs.append(PieceSpec(shape, draw(st.integers(1, 90)), rate, end))
        rate = end
    return chain(specs)


decays = st.builds(
    lambda kind, num_steps, warmup, peak, ratio: warmup_then_decay(
        kind=kind,
        num_steps=num_steps,
        warmup_steps=int(warmup * (num_steps - 1)),
        peak_lr=peak,
        final_lr=peak * ratio,
    ),
    st.sampled_from(SHAPES),
    st.integers(1, 400),
    st.floats(0, 0.5),
    st.floats(1e-6, 1e-1),
    st.floats(1e-3, 1),
)
schedules = st.one_of(decays, _chains())


def test_the_switch_of_the_paper_is_at_0_7113() -> None:
    assert cosine_fraction_below(5, 1 / 100) == pytest.approx(0.7113, abs=5e-5)
    num_steps = 1_000_000
    schedule = warmup_then_decay(
        kind="cosine", num_steps=num_steps, warmup_steps=0, peak_lr=4.5e-5, final_lr=4.5e-7
    )
    assert first_step_below(schedule, 4.5e-5 / 5) == math.ceil(
        cosine_fraction_below(5, 1 / 100) * num_steps
    )


def test_the_cosine_by_hand() -> None:
    # 4 steps from 1 to 0: (1 + cos(k·45°))/2 at k = 0..3.
    schedule = warmup_then_decay(
        kind="cosine", num_steps=4, warmup_steps=0, peak_lr=1.0, final_lr=0.0
    )
    by_hand = [1.0, 0.8535533905932737, 0.5, 0.14644660940672627]
    assert [lr_at(schedule, k) for k in range(4)] == pytest.approx(by_hand, abs=1e-15)


def test_the_cosine_of_torch_agrees() -> None:
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=3e-4)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=3e-6)
    ours = warmup_then_decay(
        kind="cosine", num_steps=50, warmup_steps=0, peak_lr=3e-4, final_lr=3e-6
    )
    for step in range(50):
        assert lr_at(ours, step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        theirs.step()


def test_the_warm_up_wastes_no_step_and_meets_the_peak() -> None:
    schedule = warmup_then_decay(
        kind="linear", num_steps=10, warmup_steps=4, peak_lr=1.0, final_lr=0.1
    )
    assert [lr_at(schedule, k) for k in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


@given(schedules)
def test_one_look_up_equals_the_whole_curve(schedule: Schedule) -> None:
    curve = lr_curve(schedule)
    assert [lr_at(schedule, k) for k in range(len(curve))] == pytest.approx(list(curve), rel=1e-12)


@given(schedules)
def test_the_area_is_the_sum(schedule: Schedule) -> None:
    curve = lr_curve(schedule)
    assert area_under(schedule) == pytest.approx(math.fsum(curve), rel=1e-9)
    assert area_under(scaled(schedule, 3.0)) == pytest.approx(3 * math.fsum(curve), rel=1e-9)


@given(schedules, st.floats(0, 1.2))
def test_the_first_step_below_is_the_one_a_scan_finds(schedule: Schedule, share: float) -> None:
    curve = lr_curve(schedule)
    threshold = share * float(curve.max())
    peak = int(np.argmax(curve))
    scan = next((k for k in range(peak, len(curve)) if lr_at(schedule, k) < threshold), None)
    assert first_step_below(schedule, threshold) == scan


@given(decays)
def test_it_rises_then_falls_within_its_ends(schedule: Schedule) -> None:
    curve = lr_curve(schedule)
    peak = int(np.argmax(curve))
    assert (np.diff(curve[: peak + 1]) >= 0).all()
    assert (np.diff(curve[peak:]) <= 1e-18).all()
    assert curve.min() > 0 or schedule[-1].end_lr == 0


@given(st.sampled_from(("linear", "cosine")), st.integers(2, 300))
def test_pieces_join_without_a_jump(kind: Shape, num_steps: int) -> None:
    schedule = warmup_then_decay(
        kind=kind,
        num_steps=num_steps,
        warmup_steps=num_steps // 3,
        peak_lr=1.0,
        final_lr=0.0,
    )
    largest = max(1.0 / (num_steps // 3 + 1), math.pi / 2 / (num_steps - num_steps // 3))
    assert np.abs(np.diff(lr_curve(schedule))).max() <= largest + 1e-12


def test_a_step_outside_is_refused() -> None:
    schedule = warmup_then_decay(
        kind="linear", num_steps=3, warmup_steps=0, peak_lr=1.0, final_lr=0.1
    )
    for step in (-1, 3):
        with pytest.raises(ValueError, match=rf"step {step} is outside of the schedule \[0, 3\)"):
            lr_at(schedule, step)
    with pytest.raises(ValueError, match="do not fit into 3 steps"):
        warmup_then_decay(kind="linear", num_steps=3, warmup_steps=3, peak_lr=1, final_lr=0)
    with pytest.raises(ValueError, match="never passes"):
        cosine_fraction_below(200, 1 / 100)


@pytest.mark.parametrize(
    ("shape", "end", "rates"),
    [
        # By hand: √0.09 = 0.3, √0.64 = 0.8; ¼^x; 1/√(1 + 10x) is ½ at 0.3 and ⅓ at 0.8.
        ("1-sqrt", 0.0, {9: 0.7, 64: 0.2}),
        ("exponential", 0.25, {25: 0.70710678118655, 50: 0.5, 75: 0.35355339059327}),
        ("inverse-sqrt", 0.0, {30: 0.284168760482231, 80: 0.045558347309642}),
    ],
)
def test_the_newer_shapes_by_hand(shape: Shape, end: float, rates: dict[int, float]) -> None:
    schedule = chain([PieceSpec(shape, 100, 1.0, end)])
    assert {k: lr_at(schedule, k) for k in rates} == pytest.approx(rates, abs=1e-13)


@given(st.sampled_from(SHAPES), st.integers(1, 300), st.floats(1e-6, 1), st.floats(1e-6, 1))
def test_a_piece_is_monotone_and_keeps_between_its_ends(
    shape: Shape, num_steps: int, start: float, end: float
) -> None:
    end = start if shape == "constant" else end
    curve = lr_curve(chain([PieceSpec(shape, num_steps, start, end)]))
    slack = 1e-12 * max(start, end)
    assert curve[0] == pytest.approx(start, rel=1e-12)
    assert (np.diff(curve) * math.copysign(1, end - start) >= -slack).all()
    assert curve.min() >= min(start, end) - slack
    assert curve.max() <= max(start, end) + slack


@given(st.sampled_from(SHAPES[1:]), st.integers(1, 50), st.integers(1, 50))
def test_a_piece_ends_where_the_next_one_begins(shape: Shape, first: int, second: int) -> None:
    """The limit at the last step is the next piece's first rate: no jump, and `joins` says so."""
    specs = [PieceSpec(shape, first, 1.0, 0.3), PieceSpec("constant", second, 0.3, 0.3)]
    assert joins(chain(specs)) == []
    fine = chain([PieceSpec(shape, 1_000_000, 1.0, 0.3)])
    assert lr_at(fine, 999_999) == pytest.approx(0.3, abs=2e-6)
    assert joins(chain([specs[0], PieceSpec("constant", second, 0.5, 0.5)])) == [(first, 0.3, 0.5)]


def test_a_warm_up_may_start_from_a_rate() -> None:
    schedule = chain([warmup_spec(3, 1.0, from_lr=0.2), PieceSpec("constant", 2, 1.0, 1.0)])
    assert [lr_at(schedule, k) for k in range(5)] == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0])


def test_pieces_without_steps_are_left_out_and_nonsense_is_refused() -> None:
    schedule = chain([warmup_spec(0, 1.0), PieceSpec("cosine", 4, 1.0, 0.0)], from_step=7)
    assert [(piece.start_step, piece.end_step) for piece in schedule] == [(7, 11)]
    with pytest.raises(ValueError, match="a piece of -1 steps"):
        chain([PieceSpec("cosine", -1, 1.0, 0.0)])
    with pytest.raises(ValueError, match="never leaves or reaches a rate of 0"):
        chain([PieceSpec("exponential", 4, 1.0, 0.0)])
