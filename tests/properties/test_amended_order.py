"""Blends that an amendment has changed: the order on both sides of it, and what is counted on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewarm.order.blend import CYCLE, quantise_weights
from rewarm.order.position import locate_samples, samples_before, slots_of_rank, slots_of_step
from rewarm.planning.amended import amended, raised, replay_share
from rewarm.planning.amendments import Amendments
from rewarm.planning.plan import PlannedPhase, PlannedSource, Science
from rewarm.recipe.sources import OLD_ROLES
from tests.support.tiny_plans import make_plan

ROLES = ("new", "replay", "qa", "general")


@st.composite
def sciences(draw: st.DrawFn) -> Science:
    num_sources = draw(st.integers(1, 4))
    sources = tuple(
        PlannedSource(
            name=f"s{index}",
            role=draw(st.sampled_from(ROLES)),
            key="k",
            num_windows=draw(st.integers(1, 60)),
        )
        for index in range(num_sources)
    )
    phases: list[PlannedPhase] = []
    start = 0
    for number in range(draw(st.integers(1, 3))):
        raw = draw(
            st.lists(
                st.one_of(st.just(0.0), st.floats(0.01, 10)),
                min_size=num_sources,
                max_size=num_sources,
            ).filter(lambda weights: sum(weights) > 0)
        )
        end = start + draw(st.integers(1, 25))
        phases.append(
            PlannedPhase(
                name=f"p{number}",
                start_step=start,
                end_step=end,
                weights=quantise_weights(raw),
                samples=(),
            )
        )
        start = end
    plan = make_plan(num_steps=start, seed=draw(st.integers(0, 99)))
    return plan.science.model_copy(
        update={
            "sources": sources,
            "phases": tuple(phases),
            "num_steps": start,
            "sequences_per_step": draw(st.integers(1, 9)),
        }
    )


@st.composite
def amended_sciences(draw: st.DrawFn) -> tuple[Science, Amendments]:
    science = draw(sciences())
    chain = Amendments("p")
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, science.num_steps - 1))
        chain = chain.with_replay(at, science.num_steps, draw(st.floats(0.01, 0.99)), "a test")
    return science, chain


def test_what_is_dealt_seldom_still_is_where_replay_takes_nearly_all() -> None:
    """85 of 65,536 slots of what is left beside 98.8 % would be 0.996 of a slot: it has one."""
    sources = tuple(
        PlannedSource(name=name, role=role, key="k", num_windows=1)
        for name, role in (("often", "new"), ("seldom", "new"), ("old", "replay"))
    )
    phase = PlannedPhase(name="p", start_step=0, end_step=1, weights=(0, 0, CYCLE), samples=())
    often, seldom, old = raised(sources, [phase], (65_451, 85, 0), 0.98828125)
    assert (often, seldom, old) == (767, 1, 64_768)


@given(amended_sciences())
@settings(max_examples=40, deadline=None)
def test_no_window_is_lost_or_shown_twice_by_the_change(
    given: tuple[Science, Amendments],
) -> None:
    """Every source's samples are 0, 1, 2, … in the whole run, each once, whatever was amended."""
    science, amendments = given
    order = amended(science, amendments).order()
    slots = [slots_of_step(order, step) for step in range(order.num_steps)]
    source = np.concatenate([one.source for one in slots])
    sample = np.concatenate([one.sample for one in slots])
    window = np.concatenate([one.window for one in slots])
    for index, planned in enumerate(science.sources):
        own = np.sort(sample[source == index])
        assert own.tolist() == list(range(len(own)))
        by_sample = window[source == index][np.argsort(sample[source == index])]
        for epoch in range(len(own) // planned.num_windows):
            shown = by_sample[epoch * planned.num_windows : (epoch + 1) * planned.num_windows]
            assert sorted(shown.tolist()) == list(range(planned.num_windows))


@given(amended_sciences())
@settings(max_examples=40, deadline=None)
def test_what_lies_before_the_change_is_as_it_was_planned(
    given: tuple[Science, Amendments],
) -> None:
    science, amendments = given
    before, after = science.order(), amended(science, amendments).order()
    first = min(amendments.replay_steps())
    for step in range(first):
        for old, new in zip(
            (slots_of_step(before, step).window, slots_of_step(before, step).source),
            (slots_of_step(after, step).window, slots_of_step(after, step).source),
            strict=True,
        ):
            assert (old == new).all()


@given(amended_sciences())
@settings(max_examples=40, deadline=None)
def test_every_prefix_of_every_part_keeps_to_its_blend(given: tuple[Science, Amendments]) -> None:
    """Within one sample, for the quantised weights, on both sides of each amendment."""
    science, amendments = given
    whole = amended(science, amendments)
    order, size = whole.order(), whole.sequences_per_step
    assert whole.phases[0].start_step == 0
    assert whole.phases[-1].end_step == science.num_steps
    for phase in whole.phases:
        positions = np.arange(phase.start_step * size, phase.end_step * size)
        source = locate_samples(order, positions).source
        for index, weight in enumerate(phase.weights):
            counts = np.cumsum(source == index)
            exact = np.arange(1, len(positions) + 1) * weight / CYCLE
            assert np.abs(counts - exact).max(initial=0.0) < 1.0
        counted = np.bincount(source, minlength=len(science.sources))
        assert tuple(counted.tolist()) == phase.samples or whole is science


@given(amended_sciences())
@settings(max_examples=40, deadline=None)
def test_old_text_has_the_share_that_was_asked_and_the_rest_its_proportions(
    given: tuple[Science, Amendments],
) -> None:
    science, amendments = given
    whole = amended(science, amendments)
    is_old = [source.role in OLD_ROLES for source in science.sources]
    for step in range(science.num_steps):
        planned, now = science.phase_at(step), whole.phase_at(step)
        asked = amendments.replay_share(step)
        old = sum(w for w, known in zip(planned.weights, is_old, strict=True) if known) / CYCLE
        shown_somewhere = any(
            weight
            for phase in science.phases
            for weight, known in zip(phase.weights, is_old, strict=True)
            if known
        )
        if old == 1.0 or not shown_somewhere:
            assert now.weights == planned.weights
            continue
        assert replay_share(whole, step) == pytest.approx(max(old, asked), abs=4 / CYCLE)
        for index, known in enumerate(is_old):
            if not known and planned.weights[index]:
                rest = (1 - max(old, asked)) / (1 - old)
                wanted = max(planned.weights[index] * rest, 1)
                assert now.weights[index] == pytest.approx(wanted, abs=4)


@given(amended_sciences(), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_ranks_share_the_same_samples_whatever_was_amended(
    given: tuple[Science, Amendments], num_ranks: int
) -> None:
    science, amendments = given
    order = amended(science, amendments).order()
    step = max(amendments.replay_steps())
    shared = [slots_of_rank(order, step, rank, num_ranks) for rank in range(num_ranks)]
    alone = slots_of_step(order, step)
    assert np.concatenate([one.sample for one in shared]).tolist() == alone.sample.tolist()
    assert np.concatenate([one.source for one in shared]).tolist() == alone.source.tolist()


def test_a_blend_by_hand() -> None:
    plan = make_plan(num_steps=20)  # 3/4 old and 1/4 new, then the reverse, from step 10 on
    science = plan.science
    chain = Amendments(plan.fingerprint).with_replay(13, 20, 0.5, "forgotten")
    whole = amended(science, chain)
    assert [(p.name, p.start_step, p.end_step) for p in whole.phases] == [
        ("first", 0, 10),
        ("second", 10, 13),
        ("second, replay 0.5", 13, 20),
    ]
    assert whole.phases[0].weights == science.phases[0].weights
    assert whole.phases[2].weights == (CYCLE // 2, CYCLE // 2)
    assert whole.phases[2].samples == (28, 28)
    assert samples_before(whole.order(), 20).tolist() == [60 + 6 + 28, 20 + 18 + 28]
    # A share that every blend has already changes nothing, the dealing included.
    assert amended(science, Amendments("p").with_replay(13, 20, 0.2, "")) is science
    # Two that the phase has no room between: the larger one counts.
    twice = chain.with_replay(13, 20, 0.75, "still")
    assert replay_share(amended(science, twice), 13) == 0.75


def test_a_blend_without_old_text_takes_it_from_the_other_phases_shares() -> None:
    sources = tuple(
        PlannedSource(name=name, role=role, key=name, num_windows=9)
        for name, role in (("a", "replay"), ("b", "general"), ("n", "new"))
    )
    phases = [
        PlannedPhase(name="x", start_step=0, end_step=4, weights=(0, 0, CYCLE), samples=()),
        PlannedPhase(
            name="y",
            start_step=4,
            end_step=8,
            weights=(CYCLE // 2, CYCLE // 4, CYCLE // 4),
            samples=(),
        ),
    ]
    found = raised(sources, phases, phases[0].weights, 0.3)
    assert [weight / CYCLE for weight in found] == pytest.approx([0.2, 0.1, 0.7], abs=1e-4)
    assert math.isclose(sum(found), CYCLE)
