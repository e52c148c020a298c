"""Shares by role, subsets and where phases end, with numbers worked out by hand."""

from __future__ import annotations

import pytest

from rewarm.errors import RecipeError
from rewarm.planning.plan import Plan
from rewarm.recipe.load import parse_recipe
from tests.support.fake_facts import make_corpus_facts
from tests.unit.test_plan import CORPORA, RECIPE, one_phase, plan_of, problems_of

STEPS = "budget.tokens=1_280_000"  # 1,000 steps of 10 sequences of 128 tokens
MORE = 'sources.wiki={path="w.jsonl", role="quality"}'


def reasons_of(plan: Plan) -> dict[str, str]:
    return {reason.field: f"{reason.value}: {reason.reason}" for reason in plan.reasons}


def test_roles_are_dealt_by_tokens() -> None:
    corpora = {
        **CORPORA,
        "wiki": make_corpus_facts("wiki", "quality").model_copy(update={"num_tokens": 300_000}),
        "old": CORPORA["old"].model_copy(update={"num_tokens": 900_000}),
    }
    plan = plan_of(
        STEPS,
        MORE,
        'phases=[{name="all", roles={new=0.6, old=0.4}}]',
        "sources.old.max_epochs=9",
        'sources.old.max_epochs_reason="x"',
        "sources.wiki.max_epochs=9",
        'sources.wiki.max_epochs_reason="x"',
        corpora=corpora,
    )
    (phase,) = plan.science.phases
    shares = {
        source.name: weight / 65_536
        for source, weight in zip(plan.science.sources, phase.weights, strict=True)
    }
    # 0.4 at 900,000 to 300,000 tokens: 0.3 and 0.1; qa is in no phase.
    assert shares == pytest.approx({"old": 0.3, "new": 0.6, "wiki": 0.1}, abs=2e-5)


def test_roles_and_weights_exclude_each_other() -> None:
    def refused(*overrides: str) -> str:
        with pytest.raises(RecipeError) as caught:
            parse_recipe(RECIPE, overrides=overrides)
        return str(caught.value)

    assert "one of the two" in refused("phases[0].roles={new=1}")
    assert "one of the two" in refused("phases[0].weights={}")
    assert "old takes in general" in refused("phases=[{name='x', roles={old=1, general=1}}]")
    assert "phases[0].roles.replay: no source has this role" in refused(
        "phases=[{name='x', roles={new=1, replay=1}}]"
    )
    assert "give exactly one of" in refused("phases[0].until={step=3, tokens=5}")
    assert "give exactly one of share" in refused("sources.new.subset={redraw=true}")
    assert "cannot be drawn anew" in refused(
        "sources.new.subset={share=0.5, redraw=true}", "sources.new.order=stored"
    )


def test_a_phase_may_end_at_a_step() -> None:
    plan = plan_of(STEPS, "phases[0].until={step=123}")
    assert [phase.start_step for phase in plan.science.phases] == [0, 123]
    assert "it has no steps" in "".join(problems_of(STEPS, "phases[0].until={step=1000}"))


@pytest.mark.parametrize(
    ("subset", "num_windows"),
    [
        ("{share=0.25}", 1953),  # of 7,812 windows in a million tokens
        ('{tokens="128k"}', 1000),
        ("{tokens=127_873}", 1000),  # a token more than 999 windows
        ("{epochs=4}", 2500),  # the run shows 10,000 sequences
        ("{epochs=4, redraw=true}", 2500),
    ],
)
def test_a_subset_by_hand(subset: str, num_windows: int) -> None:
    plan = plan_of(
        STEPS,
        f"sources.new.subset={subset}",
        "sources.new.max_epochs=20",
        'sources.new.max_epochs_reason="a test"',
        text=one_phase(),
    )
    (source,) = plan.science.sources
    assert source.num_windows == num_windows
    assert source.num_stored == 7812
    assert source.redrawn == ("redraw" in subset)
    assert "sources.new.subset" in reasons_of(plan)
    # Repeats count by what is drawn from: the subset, or all of it where it is drawn anew.
    expected = 10_000 / (7812 if source.redrawn else num_windows)
    assert source.epochs(10_000) == pytest.approx(expected)


def test_the_cap_on_epochs_counts_passes_over_the_subset() -> None:
    told = "".join(problems_of(STEPS, "sources.new.subset={share=0.25}", text=one_phase()))
    assert "1.28M tokens of a subset of 250k: 5.12 epochs, above its cap of 4" in told
    assert plan_of(STEPS, "sources.new.subset={share=0.25, redraw=true}", text=one_phase())


def test_a_subset_as_large_as_its_source_is_told() -> None:
    plan = plan_of(STEPS, 'sources.new.subset={tokens="5M"}', text=one_phase())
    assert plan.science.sources[0].num_stored is None
    assert "no smaller than the source" in "".join(plan.warnings)


def test_stored_order_is_planned() -> None:
    plan = plan_of(STEPS, "sources.new.order=stored", text=one_phase())
    assert plan.science.sources[0].in_stored_order
    assert plan.science.order().drawings[0].in_stored_order
    assert "unshuffled" in reasons_of(plan)["sources.new.order"]
