"""UniMax against a dealer that gives one unit at a time; what plans deal against their caps."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewarm.errors import PlanError
from rewarm.order.blend import CYCLE, count_before, deal_cycle, quantise_weights
from rewarm.planning.mixture import by_temperature, deal_evenly, parts_of_caps, units_within
from tests.support.fake_facts import make_corpus_facts
from tests.unit.test_plan import plan_of, problems_of

CAPS = st.lists(st.integers(0, 60), min_size=1, max_size=9)


def one_at_a_time(num_units: int, caps: list[int]) -> tuple[list[int], int]:
    """Give each unit to whoever has fewest and may have more, the first of several."""
    units = [0] * len(caps)
    for given_ in range(num_units):
        open_ = [index for index in range(len(caps)) if units[index] < caps[index]]
        if not open_:
            return units, num_units - given_
        units[min(open_, key=lambda index: (units[index], index))] += 1
    return units, 0


@settings(deadline=None)
@given(st.integers(0, 400), CAPS)
def test_it_deals_as_if_unit_by_unit(num_units: int, caps: list[int]) -> None:
    dealt = deal_evenly(num_units, caps)
    assert (list(dealt.units), dealt.num_short) == one_at_a_time(num_units, caps)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 10**6), min_size=1, max_size=300))
def test_no_one_could_be_dealt_more_evenly(num_units: int, caps: list[int]) -> None:
    dealt = deal_evenly(num_units, caps)
    assert sum(dealt.units) + dealt.num_short == num_units
    assert all(0 <= units <= cap for units, cap in zip(dealt.units, caps, strict=True))
    if dealt.num_short:
        assert dealt.units == tuple(caps)
    for units, cap in zip(dealt.units, caps, strict=True):
        assert units == cap or units >= max(dealt.units) - 1


def test_literals() -> None:
    # Levels by hand: 2 + 4 + 4; then the two smallest bind and the third takes the rest.
    assert deal_evenly(10, [2, 9, 9]).units == (2, 4, 4)
    assert deal_evenly(20, [9, 2, 12]).units == (9, 2, 9)
    assert deal_evenly(11, [9, 2, 9]).units == (5, 2, 4)  # the odd one goes to the first
    assert (deal_evenly(12, [2, 9]).units, deal_evenly(12, [2, 9]).num_short) == ((2, 9), 1)
    # Square roots of 1, 4, 9 tokens: 1/6, 2/6, 3/6.
    sizes = by_temperature([1_000, 4_000, 9_000], 2)
    assert [size / sum(sizes) for size in sizes] == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    assert by_temperature([3, 5], 1) == [3.0, 5.0]
    # Two phases of 300 and 100 samples share a source 3 : 1; only the first has the other one.
    parts = parts_of_caps({"a": 80, "b": 7}, [(300, ["a", "b"]), (100, ["a"])])
    assert parts == [{"a": 60, "b": 7}, {"a": 20}]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 3000), st.integers(1, 300_000), st.integers(0, 2**32))
def test_a_share_within_a_cap_is_dealt_no_more_than_it(
    num_samples: int, num_slots: int, rest: int
) -> None:
    """Against the deal itself, whatever else is in the blend."""
    units = units_within(num_samples, num_slots)
    others = CYCLE - units
    first = rest % (others + 1)
    cycle = deal_cycle((units, first, others - first))
    assert count_before(cycle, num_slots)[0] <= num_samples


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(2_000, 400_000), min_size=2, max_size=6),
    st.floats(0.3, 4.0),
    st.floats(0.1, 0.9),
)
def test_plans_keep_to_caps_over_all_phases(
    tokens: list[int], max_epochs: float, where: float
) -> None:
    """A phase by hand, then two as evenly as can be: caps hold, or what is short is told."""
    corpora = {
        f"s{index}": make_corpus_facts(f"s{index}", num_tokens=count)
        for index, count in enumerate(tokens)
    }
    sources = "\n".join(
        f'[sources.{name}]\npath = "{name}"\nrole = "new"\nmax_epochs = {max_epochs}'
        for name in corpora
    )
    text = f"""
name = "x"
base = {{ path = "base", pretraining = {{ peak_lr = 1e-3, final_lr = 1e-4 }} }}
budget.tokens = 256_000
batch = {{ tokens = 1_280, sequence_length = 128 }}
{sources}
[[phases]]
name = "by hand"
weights = {{ s0 = 1, s1 = 1 }}
until.step = 2
[[phases]]
name = "even"
weights = "unimax"
until.fraction = {where}
[[phases]]
name = "even again"
weights = "unimax"
"""
    windows = [(count - 1) // 128 for count in tokens]
    caps = [int(max_epochs * count) for count in windows]
    try:
        plan = plan_of(text=text, corpora=corpora)
    except PlanError:
        told = "".join(problems_of(text=text, corpora=corpora))
        by_hand = min(caps[:2]) < 10  # two steps show ten of each
        # Rounding down costs less than a sample a source and phase, and a phase has its share alone
        # of what is left over.
        too_much = sum(caps) < 2_000 + 4 + len(caps) / min(where, 1 - where)
        tiny = "below 1/65,536" in told
        assert by_hand or too_much or tiny, told
        return
    for index, source in enumerate(plan.science.sources):
        samples = [phase.samples[index] for phase in plan.science.phases]
        assert source.epochs(sum(samples)) <= max_epochs


def test_quantised_units_are_kept() -> None:
    """What was dealt in 1/65,536 goes through the quantiser unchanged."""
    units = deal_evenly(CYCLE, [11, 40_000, 1, 30_000]).units
    assert quantise_weights([float(unit) for unit in units]) == units
