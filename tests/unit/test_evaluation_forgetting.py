from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from rewarm.evaluation.forgetting import (
    adaptation,
    delta_curve,
    domain_verdicts,
    forgetting,
    stability_gap,
)
from rewarm.records.facts import EvalRecord

LN2 = math.log(2.0)
WEIGHTS = (100, 120, 80, 90, 110, 100, 130, 70)


def record(
    step: int,
    bits_per_byte: Sequence[float],
    *,
    domain: str = "web",
    role: str = "general",
    weights: Sequence[int] = WEIGHTS,
    **changes: Any,
) -> EvalRecord:
    """A record whose documents have these bits per byte."""
    nats = [bits * LN2 * weight for bits, weight in zip(bits_per_byte, weights, strict=True)]
    return EvalRecord.model_validate(
        {
            "step": step,
            "domain": domain,
            "role": role,
            "metric": "bits_per_byte",
            "value": sum(nats) / (LN2 * sum(weights)),
            "standard_error": 0.01,
            "item_values": tuple(nats),
            "item_weights": tuple(weights),
            "seconds": 0.1,
            **changes,
        }
    )


def flat(step: int, bits_per_byte: float, **changes: Any) -> EvalRecord:
    return record(step, [bits_per_byte] * len(WEIGHTS), **changes)


def accuracy(step: int, answers: Sequence[int]) -> EvalRecord:
    return record(
        step,
        [0] * len(answers),
        weights=[1] * len(answers),
        metric="matched_continuation",
        item_values=tuple(map(float, answers)),
        value=sum(answers) / len(answers),
    )


def test_delta_curve_is_against_step_0_in_order_and_keeps_the_last_of_a_step() -> None:
    curve = delta_curve([flat(4, 9.0), flat(0, 1.0), flat(2, 1.5), flat(4, 1.25)], "web")
    assert [point.step for point in curve] == [0, 2, 4]
    assert [point.delta for point in curve] == pytest.approx([0.0, 0.5, 0.25])


def test_a_curve_without_step_0_is_refused() -> None:
    with pytest.raises(ValueError, match="bits_per_byte of 'web' was not measured at step 0"):
        delta_curve([flat(2, 1.5)], "web")


def test_forgetting_is_of_old_domains_and_adaptation_of_new_ones() -> None:
    records = [
        flat(0, 1.0),
        flat(8, 1.3),
        flat(0, 2.0, domain="med", role="new"),
        flat(8, 1.5, domain="med", role="new"),
        flat(0, 1.0, domain="only measured once"),
    ]
    assert forgetting(records) == {"web": pytest.approx(0.3)}
    assert adaptation(records) == {"med": pytest.approx(0.5)}


def test_forgetting_of_an_accuracy_is_its_fall() -> None:
    records = [accuracy(0, [1, 1, 1, 0]), accuracy(9, [1, 0, 0, 0])]
    assert forgetting(records, "matched_continuation") == {"web": pytest.approx(0.5)}


def test_stability_gap_by_hand() -> None:
    values = {0: 1.0, 1: 1.2, 2: 1.4, 4: 1.3, 8: 1.1, 16: 1.005, 24: 1.0}
    gap = stability_gap([flat(step, value) for step, value in values.items()], "web")
    assert gap.depth == pytest.approx(0.4)
    assert gap.forgetting == pytest.approx(0.0)
    assert gap.transient == pytest.approx(0.4)
    assert gap.steps_to_peak == 2
    assert gap.recovery_step == 16
    # ½(0+.2)·1 + ½(.2+.4)·1 + ½(.4+.3)·2 + ½(.3+.1)·4 + ½(.1+.005)·8 + ½(.005+0)·8
    assert gap.area == pytest.approx(0.1 + 0.3 + 0.7 + 0.8 + 0.42 + 0.02)


def test_what_stays_lost_is_not_transient_and_not_recovered() -> None:
    gap = stability_gap([flat(0, 1.0), flat(1, 1.5), flat(2, 1.2)], "web")
    assert gap.recovery_step is None
    assert gap.transient == pytest.approx(0.3)


def test_recovery_is_for_good() -> None:
    values = {0: 1.0, 1: 1.5, 2: 1.0, 4: 1.2, 8: 0.9}
    gap = stability_gap([flat(step, value) for step, value in values.items()], "web")
    assert gap.recovery_step == 8
    assert gap.transient == pytest.approx(0.5), "an improvement at the end is not added to it"


@pytest.mark.parametrize(("last", "recovered"), [(1.25, 4), (1.2500001, None)])
def test_what_is_as_bad_as_the_tolerance_is_recovered(last: float, recovered: int | None) -> None:
    values = {0: 1.0, 1: 1.5, 2: 1.4, 4: last}
    records = [flat(step, value) for step, value in values.items()]
    assert stability_gap(records, "web", tolerance=0.25).recovery_step == recovered


def test_a_domain_that_only_improves_has_no_gap() -> None:
    gap = stability_gap([flat(0, 1.0), flat(1, 0.9), flat(2, 0.8)], "web")
    assert (gap.depth, gap.area, gap.steps_to_peak, gap.recovery_step) == (0.0, 0.0, 0, 0)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ([0.3, 0.2, 0.25, 0.3, 0.2, 0.3, 0.25, 0.2], "forgotten"),
        ([-0.3, -0.2, -0.25, -0.3, -0.2, -0.3, -0.25, -0.2], "improved"),
        ([0.004, 0.002, 0.003, 0.004, 0.002, 0.003, 0.002, 0.003], "kept"),
        ([0.3, -0.2, 0.25, -0.3, 0.2, -0.3, 0.25, -0.2], "not resolved"),
        ([0.0] * 8, "kept"),
    ],
)
def test_verdict_words(change: list[float], word: str) -> None:
    base = [1.0, 1.5, 2.0, 1.1, 1.2, 0.9, 1.4, 1.3]
    after = [bits + delta for bits, delta in zip(base, change, strict=True)]
    (verdict,) = domain_verdicts([record(0, base), record(7, after)], seed=1)
    assert verdict.verdict == word
    assert verdict.low is not None
    assert verdict.high is not None
    assert verdict.low <= verdict.delta <= verdict.high
    assert verdict.delta == pytest.approx(
        sum(d * w for d, w in zip(change, WEIGHTS, strict=True)) / sum(WEIGHTS)
    )
    assert (verdict.last_step, verdict.num_items) == (7, 8)


def test_the_margin_of_kept_is_a_parameter() -> None:
    records = [flat(0, 1.0), flat(7, 1.05)]
    assert domain_verdicts(records)[0].verdict == "forgotten"
    assert domain_verdicts(records, kept_within=0.1)[0].verdict == "kept"


@pytest.mark.parametrize("num_items", [1, 5])
def test_too_few_documents_resolve_nothing_however_large_the_change(num_items: int) -> None:
    weights = WEIGHTS[:num_items]
    records = [
        record(0, [1.0] * num_items, weights=weights),
        record(7, [3.0] * num_items, weights=weights),
    ]
    (verdict,) = domain_verdicts(records)
    assert verdict.verdict == "not resolved"
    assert "needs 6" in verdict.reason
    assert (verdict.low is None) == (num_items == 1)


def test_verdict_of_an_accuracy_turns_the_sign() -> None:
    before, after = [1] * 30 + [0] * 10, [0] * 25 + [1] * 5 + [0] * 10
    records = [accuracy(0, before), accuracy(3, after)]
    (verdict,) = domain_verdicts(records, metric="matched_continuation")
    assert verdict.verdict == "forgotten"
    assert verdict.delta == pytest.approx(-25 / 40)
    assert domain_verdicts(records) == [], "no bits per byte were measured"


@pytest.mark.parametrize(("num_items", "word"), [(60, "not resolved"), (299, "kept")])
def test_questions_that_none_is_answered_otherwise_tell_what_so_many_can(
    num_items: int, word: str
) -> None:
    """Where one in twenty is answered otherwise, 58 without any are seen in 5 % of draws."""
    answers = [0] * num_items
    records = [accuracy(0, answers), accuracy(3, answers)]
    (verdict,) = domain_verdicts(records, metric="matched_continuation")
    assert verdict.verdict == word
    assert verdict.delta == 0.0
    assert verdict.low is not None
    assert verdict.high is not None
    assert verdict.high == -verdict.low == verdict.resolvable
    assert (1 - verdict.high) ** num_items == pytest.approx(0.05)
    # Losses that stay the same to the bit are of the same weights, and scores have other units.
    assert domain_verdicts([flat(0, 0.0), flat(3, 0.0)])[0].high == 0.0
    scores = [r.model_copy(update={"item_values": (7.0,) * num_items}) for r in records]
    assert domain_verdicts(scores, metric="matched_continuation")[0].verdict == "kept"


def test_records_of_other_items_are_left_out_and_the_verdict_says_so() -> None:
    other_weights = (10,) * 8
    records = [
        flat(0, 1.0, items_key="one"),
        flat(4, 1.0, items_key="one"),
        flat(5, 5.0, items_key="another"),
        flat(6, 5.0, items_key="one", weights=other_weights),
    ]
    (verdict,) = domain_verdicts(records)
    assert (verdict.verdict, verdict.last_step) == ("kept", 4)
    assert "2 evaluation(s) that scored other items" in verdict.reason


def test_verdicts_are_deterministic_by_seed() -> None:
    base = [1.0, 1.5, 2.0, 1.1, 1.2, 0.9, 1.4, 1.3]
    records = [record(0, base), record(7, base[::-1])]
    assert domain_verdicts(records, seed=5) == domain_verdicts(records, seed=5)
    assert domain_verdicts(records, seed=5) != domain_verdicts(records, seed=6)
