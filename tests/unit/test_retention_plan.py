"""What the plan makes of `[retention]`: defaults with reasons, costs by hand, refusals."""

from __future__ import annotations

import pytest

from rewarm.comparison.metrics import planned_values
from rewarm.errors import RecipeError
from rewarm.planning.plan import Plan
from rewarm.planning.probed import with_probe
from rewarm.planning.retention import fisher_order, memory_order
from rewarm.units import format_bytes
from tests.support.fake_facts import make_corpus_facts
from tests.unit.test_plan import CORPORA, RECIPE, plan_of, problems_of
from tests.unit.test_probe import made_probe

EWC = "retention.ewc.fisher_from='old'"


def estimate(plan: Plan, name: str) -> float:
    (found,) = [estimate.value for estimate in plan.estimates if estimate.name == name]
    return found


def reason(plan: Plan, key: str) -> str:
    (words,) = [f"{found.value}: {found.reason}" for found in plan.reasons if found.field == key]
    return words


def test_nothing_is_added_where_nothing_is_asked_for() -> None:
    plan = plan_of()
    assert not [e.name for e in plan.estimates if e.name.startswith("retention")]
    assert plan.science.memory == ()


def test_pulls_and_their_costs_by_hand() -> None:
    """A million weights; 20 sequences of 128 tokens for Fisher, of 999,680 that train."""
    plan = plan_of("retention.l2sp.weight=0.01", EWC, "retention.ewc.sequences=20")
    assert estimate(plan, "retention memory") == 8e6  # the base and Fisher in float32
    without = estimate(plan_of(), "peak memory")
    assert estimate(plan, "peak memory") == without + 8e6
    (peak,) = [found for found in plan.estimates if found.name == "peak memory"]
    assert f"{format_bytes(8_000_000)} retention" in peak.formula
    share = estimate(plan, "retention compute") / estimate(plan, "training compute")
    assert share == pytest.approx(20 * 128 / 999_680)
    assert [source.name for source in plan.science.memory] == ["old"]
    assert "20" in reason(plan, "retention.ewc.sequences")
    assert "about 32%" in reason(plan, "retention.ewc.sequences")  # √(2/20) = 0.316
    assert any("make a rough estimate" in warning for warning in plan.warnings)


def test_comparisons_count_retention_once_with_a_probe_and_without() -> None:
    """A probe's trial has it among what its steps took."""
    plan = plan_of("retention.l2sp.weight=0.01")
    assert planned_values(plan)["planned_peak_mib"] * 2**20 == estimate(plan, "peak memory")
    measured = planned_values(with_probe(plan, made_probe(plan)))
    assert measured["planned_peak_mib"] == 390
    assert measured["planned_mib"] == planned_values(plan)["planned_mib"]


@pytest.mark.parametrize(
    ("overrides", "num_bytes", "share"),
    [
        # 6 · (10⁶ + 4 layers · width 100 · length 128) operations train a token. A live teacher's
        # forward pass is a third; both heads of 100,000 and the divergence are 6 · 100,000 more.
        (("retention.distill={}",), 4e6, 1 / 3 + 600_000 / 6_307_200),
        (("retention.agem={memory=['old'], sequences_per_step=4}",), 4e6, 4 / 10),
        (("retention.ema={}",), 4e6, 0),
    ],
    ids=["lwf", "agem", "ema"],
)
def test_the_other_terms_and_their_costs_by_hand(
    overrides: tuple[str, ...], num_bytes: float, share: float
) -> None:
    plan = plan_of("phases=[{name='all', weights={new=1}}]", *overrides)
    assert estimate(plan, "retention memory") == num_bytes
    found = estimate(plan, "retention compute") / estimate(plan, "training compute")
    assert found == pytest.approx(share)


def test_a_stored_teacher_costs_the_divergence_alone_on_the_text_that_it_is_of() -> None:
    plan = plan_of(
        "phases=[{name='all', weights={new=3, made=1}}]",
        text=RECIPE + MADE,
        corpora={**CORPORA, "made": make_corpus_facts("made", "replay")},
    )
    assert estimate(plan, "retention memory") == 0
    share = estimate(plan, "retention compute") / estimate(plan, "training compute")
    assert share == pytest.approx(0.25 * 600_000 / 6_307_200, rel=1e-3)


def test_orders_of_memory_and_importance_are_keyed_apart() -> None:
    """From the run's own, too: else a step's memory would be the very text that it shows."""
    science = plan_of(EWC, "retention.agem.memory=['old']").science
    orders = (science.order(), memory_order(science), fisher_order(science))
    assert len({order.seed for order in orders}) == 3


def test_l2sp_beside_weight_decay_is_warned_of() -> None:
    def warned(*overrides: str) -> bool:
        plan = plan_of("retention.l2sp.weight=0.01", *overrides)
        return any("pulls weights to 0 while" in warning for warning in plan.warnings)

    assert warned("optimizer.weight_decay=0.1")
    assert not warned("optimizer.weight_decay=0")


def test_it_is_part_of_the_science() -> None:
    prints = {
        plan_of(*overrides).fingerprint
        for overrides in (
            (),
            ("retention.l2sp.weight=0.01",),
            ("retention.l2sp.weight=0.02",),
            (EWC,),
            (EWC, "retention.ewc.sequences=64"),
        )
    }
    assert len(prints) == 5


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("retention.ewc.fisher_from='none'",), "no source is called 'none'"),
        (("retention.ewc.fisher_from='new'",), "'new' has the role new"),
        ((EWC, "retention.ewc.sequences=9000"), "9000 sequences of 'old', which has"),
        (("retention.l2sp.weight=1", "parameters.adapter.rank=4"), "an adapter's matrices have"),
        ((EWC, "parameters.adapter.rank=4"), "an adapter's matrices have none"),
        (
            ("retention.agem={memory=['old'], sequences_per_step=9000}",),
            "9000 of each step's 9000 sequences are of 'old', which has 78",
        ),
        (
            ("retention.distill.replaces_loss=true",),
            "on all that is to be learned (new, qa): the model would stay the base",
        ),
        (
            ("retention.distill={on='all', replaces_loss=true}",),
            "on all that is to be learned (new, qa)",
        ),
        (
            (
                "retention.distill={on='replay', replaces_loss=true}",
                "phases=[{name='kept', weights={old=1}, until={fraction=0.5}}, "
                "{name='other', weights={old=1, new=1}}]",
            ),
            "phase 'kept' shows no other text",
        ),
        (
            (
                "retention.distill.on=['old']",
                "budget.tokens=2560",
                "phases=[{name='all', weights={new=1, old=0.01}}]",
            ),
            "so short that it shows no sample of old",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(overrides: tuple[str, ...], words: str) -> None:
    assert any(words in problem for problem in problems_of(*overrides))


def test_a_source_that_cannot_fill_a_window_is_told_once() -> None:
    few = {**CORPORA, "old": make_corpus_facts("old", "general", num_tokens=100)}
    shown = problems_of(EWC, corpora=few)
    unseen = problems_of(EWC, "phases=[{name='all', weights={new=1}}]", corpora=few)
    for found in (shown, unseen):
        told = [problem for problem in found if "do not fill one window" in problem]
        assert len(told) == 1
        assert "its 100 training tokens" in told[0]


def test_a_divergence_on_some_new_text_may_stand_alone_where_other_text_is_learned() -> None:
    distill = plan_of("retention.distill={on=['qa'], replaces_loss=true}").science.retention.distill
    assert distill is not None
    assert distill.on == ["qa"]


def test_text_that_no_phase_shows_is_warned_of_and_decides_nothing() -> None:
    """The default temperature is that of the text which it does act on: new text's."""
    plan = plan_of("retention.distill.on=['new', 'old']", "phases=[{name='all', weights={new=1}}]")
    distill = plan.science.retention.distill
    assert distill is not None
    assert (distill.on, distill.temperature) == (["new"], 2.0)
    assert any("names 'old', which no phase shows" in warning for warning in plan.warnings)
    assert not [w for w in plan_of("retention.distill={}").warnings if "no phase shows" in w]


@pytest.mark.parametrize(
    ("tokens", "words"), [(12_800, "the fewest there are"), (999_680, "a tenth of the run")]
)
def test_the_default_span_of_an_average_is_told_as_it_is(tokens: int, words: str) -> None:
    plan = plan_of("retention.ema={}", f"budget.tokens={tokens}")
    assert words in reason(plan, "retention.ema.decay")


MADE = """
[sources.made]
role = "replay"
rehearse = { tokens = "1M", top_k_logits = 8 }
[retention.distill]
on = ["made"]
teacher = "stored"
"""


def test_what_was_stored_within_documents_is_not_for_documents_that_see_each_other() -> None:
    def warned(*overrides: str) -> bool:
        plan = plan_of(
            "phases=[{name='all', weights={new=3, made=1}}]",
            *overrides,
            text=RECIPE + MADE,
            corpora={**CORPORA, "made": make_corpus_facts("made", "replay")},
        )
        return any("the base did not when its distribution" in found for found in plan.warnings)

    assert warned("batch.mask_documents=false")
    assert not warned()
    assert not warned("batch.mask_documents=false", "retention.distill.teacher='live'")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("retention.l2sp.weight=0", "greater than 0"),
        ("retention.l2sp.weight=-1", "greater than 0"),
        ("retention.ewc.weight=1", "fisher_from"),
        ("retention.l2=1", "retention.l2"),
        ("retention.distill.temperature=1e-30", "greater than or equal to 0.01"),
    ],
)
def test_mistakes_in_a_field_are_told(override: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        plan_of(override)
