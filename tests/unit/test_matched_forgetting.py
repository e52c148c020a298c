"""Forgetting where two runs have learned as much, by hand; and in a comparison's verdict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from rewarm.comparison.matched import Place, forgetting_at, matched_forgetting, trade_off
from rewarm.records.facts import EvalRecord, Role
from tests.support.fake_comparison import made_up

LEARNS = (Place(0, 0), Place(0.2, 0.3), Place(0.5, 0.4))
KEEPS = (Place(0, 0), Place(0.1, 0.05), Place(0.3, 0.06), Place(0.25, 0.08))


def record(step: int, domain: str, role: Role, value: float) -> EvalRecord:
    return EvalRecord(
        step=step,
        domain=domain,
        role=role,
        metric="bits_per_byte",
        value=value,
        standard_error=None,
        item_values=(value,) * 4,
        item_weights=(1,) * 4,
        items_key="k",
        seconds=0.0,
    )


def records_of(places: Sequence[Place]) -> list[EvalRecord]:
    """Evaluations of one old and one new domain that have these places."""
    return [
        made
        for step, place in enumerate(places)
        for made in (
            record(step, "old", "general", 1.5 + place.forgetting),
            record(step, "new", "new", 2.0 - place.adaptation),
        )
    ]


def test_both_are_read_where_the_one_that_learned_less_was_at_its_best() -> None:
    # 0.3 is a third of the way from 0.2 to 0.5: 0.3 + 0.1/3. The other one is there itself.
    found = matched_forgetting(LEARNS, KEEPS)
    assert found == pytest.approx((0.3 + 0.1 / 3, 0.06))
    assert matched_forgetting(KEEPS, LEARNS) == pytest.approx((0.06, 0.3 + 0.1 / 3))
    assert matched_forgetting(LEARNS, LEARNS) == pytest.approx((0.4, 0.4))


def test_the_first_time_counts() -> None:
    """What was learned, lost and learned again was learned the first time."""
    places = (Place(0, 0), Place(0.4, 0.1), Place(0.1, 0.9), Place(0.5, 0.7))
    assert forgetting_at(places, 0.4) == pytest.approx(0.1)
    assert forgetting_at(places, 0.2) == pytest.approx(0.05)
    assert forgetting_at(places, 0.45) == pytest.approx(0.9 + (0.35 / 0.4) * (0.7 - 0.9))
    assert forgetting_at(places, 0.6) is None


def test_who_never_learned_is_matched_with_nobody() -> None:
    worse = (Place(0, 0), Place(-0.3, 0.2))
    assert matched_forgetting(LEARNS, worse) is None
    assert matched_forgetting(LEARNS, ()) is None


def test_places_are_means_over_domains_of_whole_evaluations() -> None:
    records = [
        *(record(0, name, "general", 1.0) for name in ("a", "b")),
        record(0, "new", "new", 2.0),
        record(0, "questions", "qa", 3.0),
        record(4, "a", "general", 1.5),  # b was left out: no place
        record(4, "new", "new", 1.9),
        record(8, "a", "general", 1.2),
        record(8, "b", "general", 1.4),
        record(8, "new", "new", 1.5),
        record(8, "questions", "qa", 1.0),
    ]
    assert np.array(trade_off(records)) == pytest.approx(np.array([(0, 0), (0.5, 0.3)]))
    of_a = np.array(trade_off(records, {"a", "new"}))
    assert of_a == pytest.approx(np.array([(0, 0), (0.1, 0.5), (0.5, 0.2)]))
    assert trade_off([r for r in records if r.domain != "new"])[1] == pytest.approx(Place(2.0, 0.3))
    assert trade_off([r for r in records if r.role == "general"]) == ()


def test_a_run_from_elsewhere_was_never_at_the_base() -> None:
    """No line leads from the base to its first evaluation."""
    scratch = [Place(0, 0), Place(-5, 6), Place(0.2, 0.1), Place(0.8, -0.2)]
    own = trade_off(records_of(scratch), from_base=False)
    assert np.array(own) == pytest.approx(np.array(scratch[1:]))
    assert forgetting_at(own, 0.4) == pytest.approx(0.0)
    late = trade_off(records_of([Place(0, 0), Place(0.8, -0.2)]), from_base=False)
    assert forgetting_at(late, 0.4) is None


def test_seeds_where_one_never_learned_are_told() -> None:
    ends = {"forgetting": [0.4] * 3, "adaptation": [0.5] * 3}
    records = {("learns", seed): records_of(LEARNS) for seed in (1, 2, 3)}
    records |= {("keeps", seed): records_of(KEEPS) for seed in (1, 2)}
    records["keeps", 3] = records_of([Place(0, 0), Place(-0.3, 0.2)])
    primary = {"metric": "matched_forgetting", "expect": "lower"}
    result = made_up({"learns": ends, "keeps": ends}, [primary], records=records)
    assert result.primary[0].seeds == (1, 2)
    assert any("keeps − learns is without seed 3: one of the two" in n for n in result.notes)
    assert not any("is without seed" in n for n in made_up({"a": ends, "b": ends}, [primary]).notes)


def test_it_stands_beside_a_contrast_and_is_tested_where_it_was_named() -> None:
    ends = {"forgetting": [0.4, 0.4], "adaptation": [0.5, 0.5]}
    values = {"learns": ends, "keeps": ends}
    records = {
        ("learns", 1): records_of(LEARNS),
        ("learns", 2): records_of(LEARNS),
        ("keeps", 1): records_of(KEEPS),
        ("keeps", 2): records_of((*KEEPS[:2], Place(0.3, 0.10))),
    }
    primary = {"metric": "forgetting", "expect": "lower"}
    (beside,) = (
        effect
        for effect in made_up(values, [primary], records=records).secondary
        if effect.metric == "matched_forgetting"
    )
    assert (beside.arm, beside.against, beside.seeds) == ("keeps", "learns", (1, 2))
    expected = [0.06 - (0.3 + 0.1 / 3), 0.10 - (0.3 + 0.1 / 3)]
    assert beside.differences == pytest.approx(expected)
    assert beside.unit == "bits per byte"

    primary = {"metric": "matched_forgetting", "expect": "lower"}
    (tested,) = made_up(values, [primary], records=records).primary
    assert tested.differences == pytest.approx(expected)
    assert tested.word in ("as expected", "not resolved")
    # One seed has no interval, and no bootstrap over documents of two checkpoints either.
    one = {name: {"forgetting": [0.4], "adaptation": [0.5]} for name in values}
    (alone,) = made_up(one, [primary], records=records).primary
    assert (alone.word, alone.document_low) == ("one seed", None)
